import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.errors import BundleError
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
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


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
    with pytest.raises(BundleError, match=message):
        bundles.load(written)


def test_a_fraction_that_is_none_is_refused(written: Path) -> None:
    grid = json.loads((written / "manifest.json").read_text())["grid"]
    edit(written, grid=grid | {"lag": "soon"})
    with pytest.raises(BundleError, match="'soon' is no fraction"):
        bundles.load(written)


def test_a_voxel_count_that_does_not_fit_is_refused(written: Path) -> None:
    fmri = json.loads((written / "manifest.json").read_text())["fmri"]
    edit(written, fmri=fmri | {"voxels": 6})
    with pytest.raises(BundleError, match="holds 5 voxels"):
        bundles.load(written)


def test_an_unknown_name_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at 'nowhere'.*shipped"):
        bundles.load("nowhere")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        bundles.write(tmp_path / "mine", small.manifest(), {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
