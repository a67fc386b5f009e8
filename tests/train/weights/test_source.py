"""What is kept of weights: a digest of their content, and nothing that names a person."""

import hashlib
from pathlib import Path

from rtdecode import strict_json
from train.weights.source import of_files


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    first = tmp_path / "b.safetensors"
    second = tmp_path / "a.safetensors"
    first.write_bytes(b"one")
    second.write_bytes(b"other")
    alone = of_files([first], "safetensors", " MIT ")
    assert alone.digest == hashlib.sha256(b"one").hexdigest()
    assert alone.licence == "MIT"
    both = of_files([first, second], "diffusers folder", "MIT")
    assert both == of_files([second, first], "diffusers folder", "MIT")
    assert both.digest not in {alone.digest, of_files([second], "torch", "MIT").digest}
    second.write_bytes(b"Other")
    assert both.digest != of_files([first, second], "diffusers folder", "MIT").digest


def test_a_manifest_gets_no_folders(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"")
    record = of_files([path], "lora", "MIT").to_manifest()
    assert record == {
        "files": ["w.safetensors"],
        "sha256": hashlib.sha256(b"").hexdigest(),
        "form": "lora",
        "licence": "MIT",
    }
    assert str(tmp_path) not in strict_json.dumps(record)
