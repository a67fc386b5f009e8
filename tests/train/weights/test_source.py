"""What is kept of weights: a digest of their content, and nothing that names a person."""

import hashlib
from pathlib import Path

from rtdecode.disk import strict_json
from train.weights.source import of_files


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    one = tmp_path / "b.safetensors"
    other = tmp_path / "a.safetensors"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    alone = of_files([one], "safetensors", " MIT ")
    assert alone.digest == hashlib.sha256(b"one").hexdigest()
    assert alone.licence == "MIT"
    both = of_files([one, other], "diffusers folder", "MIT")
    assert both == of_files([other, one], "diffusers folder", "MIT")
    assert both.digest not in {alone.digest, of_files([other], "torch", "MIT").digest}
    other.write_bytes(b"Other")
    assert both.digest != of_files([one, other], "diffusers folder", "MIT").digest


def test_a_manifest_gets_no_folders(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"")
    stated = of_files([path], "lora", "MIT").stated()
    assert stated == {
        "files": ["w.safetensors"],
        "sha256": hashlib.sha256(b"").hexdigest(),
        "form": "lora",
        "licence": "MIT",
    }
    assert str(tmp_path) not in strict_json.dumps(stated)
