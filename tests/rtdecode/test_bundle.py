import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.errors import BundleError, UsageError
from rtdecode.sealed import digest_of
from tests import small


@pytest.fixture
def written(tmp_path: Path) -> Path:
    files = {}
    for name, arrays in {
        "stats.npz": small.bundle().stats,
        "projection.npz": {
            "voxels": np.array([1, 5, 9, 14, 23]),
            "shape": np.array(small.SHAPE),
            "affine": small.AFFINE,
        },
    }.items():
        files[name] = tmp_path / name
        np.savez(files[name], **arrays)
    bundles.write(tmp_path / "bundle", small.manifest(), files)
    return tmp_path / "bundle"


def edit(path: Path, **changes: object) -> None:
    """Change a manifest so that its own digest holds again."""
    file = path / "manifest.json"
    tree = json.loads(file.read_text()) | changes
    del tree["digest"]
    file.write_text(json.dumps(tree | {"digest": digest_of(tree)}))


def edit_projection(path: Path, **changes: np.ndarray) -> None:
    """Change a projection so that the manifest's hash of it holds again."""
    file = path / "projection.npz"
    with np.load(file) as archive:
        arrays = dict(archive) | changes
    np.savez(file, **arrays)
    files = json.loads((path / "manifest.json").read_text())["files"]
    edit(path, files=files | {file.name: hashlib.sha256(file.read_bytes()).hexdigest()})


def test_round_trip(written: Path) -> None:
    read = bundles.load(written)
    assert dataclasses.replace(read.manifest, files={}) == small.manifest()
    assert read.projection is not None
    assert read.projection.voxels.tolist() == [1, 5, 9, 14, 23]
    assert bundles.load(written).digest == read.digest
    assert not list(written.parent.glob("*.part"))


def test_a_changed_byte_is_found(written: Path) -> None:
    raw = bytearray((written / "stats.npz").read_bytes())
    raw[-40] ^= 1
    (written / "stats.npz").write_bytes(raw)
    with pytest.raises(BundleError, match=r"stats\.npz was changed: the manifest says SHA-256"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lag": "4"', '"lag": "5"'),
        ('"digest": "', '"digest": "0'),
        ('"digest"', '"digesu"'),
        ('"schema": 1', '"schema": 2'),
    ],
)
def test_an_edited_manifest_is_found(written: Path, old: str, new: str) -> None:
    file = written / "manifest.json"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=r"bundle/manifest\.json was changed: its digest says"):
        bundles.load(written)


@pytest.mark.parametrize("raw", [b"{", b"\xff{}", b"[]", b""])
def test_a_manifest_that_is_none_is_named(written: Path, raw: bytes) -> None:
    (written / "manifest.json").write_bytes(raw)
    with pytest.raises(BundleError, match=r"bundle/manifest\.json (is not JSON|must be an object)"):
        bundles.load(written)


def test_the_digest_is_of_the_values_and_not_of_their_layout(written: Path) -> None:
    digest, file = bundles.load(written).digest, written / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(dict(sorted(tree.items()))))
    assert bundles.load(written).digest == digest == tree["digest"]


def test_a_missing_file_is_named(written: Path) -> None:
    (written / "projection.npz").unlink()
    with pytest.raises(BundleError, match=r"projection\.npz is missing"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, r"unknown keys \['speed'\]"),
        ({"schema": 99}, "schema 99, this version reads 1"),
        ({"grid": {"tr": "4/5"}}, r"manifest\.json: grid: .*missing keys"),
        ({"eeg": {"channels": []}}, r"manifest\.json: eeg: .*missing keys"),
        ({"stages": {"encode": {"file": "x"}}}, r"stages\.encode: .*missing keys"),
    ],
)
def test_a_manifest_that_is_not_as_agreed_is_refused(written: Path, changes: dict, message: str) -> None:
    edit(written, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        bundles.load(written)
    assert str(written) in str(caught.value)


def test_a_fraction_that_is_none_is_refused(written: Path) -> None:
    grid = json.loads((written / "manifest.json").read_text())["grid"]
    edit(written, grid=grid | {"lag": "soon"})
    with pytest.raises(BundleError, match="'soon' is no fraction"):
        bundles.load(written)


def test_a_voxel_count_that_does_not_fit_is_refused(written: Path) -> None:
    fmri = json.loads((written / "manifest.json").read_text())["fmri"]
    edit(written, fmri=fmri | {"voxels": 6})
    with pytest.raises(
        BundleError, match=r"projection\.npz: voxels is 5, manifest\.json fmri\.voxels says 6"
    ):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": np.array([9, 9, 9])}, r"shape is \[9, 9, 9\], .*fmri\.shape says \["),
        ({"affine": small.AFFINE + np.eye(4)}, r"affine is \[\[.*fmri\.affine says \[\["),
        ({"affine": np.eye(3)}, r"a grid of shape \[4, 3, 2\] with an affine of \(3, 3\)"),
    ],
)
def test_a_grid_other_than_the_manifests_is_refused(written: Path, changes: dict, message: str) -> None:
    edit_projection(written, **changes)
    with pytest.raises(BundleError, match=r"projection\.npz: " + message):
        bundles.load(written)


def test_an_unknown_name_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at 'nowhere'.*shipped"):
        bundles.load("nowhere")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(UsageError, match="exists and is no bundle"):
            bundles.write(target, small.manifest(), {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_and_nothing_that_lies_in_it(written: Path) -> None:
    files = {name: written.parent / name for name in ("stats.npz", "projection.npz")}
    other = dataclasses.replace(small.manifest(), name="another")
    assert bundles.write(written, other, files).manifest.name == "another"
    (written / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"not that alone: found thesis\.txt"):
        bundles.write(written, small.manifest(), files)
    assert (written / "thesis.txt").read_text() == "years of work"


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(written: Path) -> None:
    link = written.parent / "current"
    link.symlink_to(written.name)
    files = {name: written.parent / name for name in ("stats.npz", "projection.npz")}
    bundles.write(link, dataclasses.replace(small.manifest(), name="another"), files)
    assert link.is_symlink()
    assert bundles.load(written).manifest.name == "another"
