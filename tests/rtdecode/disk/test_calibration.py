import json
import re
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from rtdecode.disk import calibration, hashed_folder
from rtdecode.disk.calibration import Calibration, Placement, QualityFigures, Record
from rtdecode.disk.hashed_folder import digest_of
from rtdecode.errors import BundleError, GeometryError, UsageError
from rtdecode.signal.volume.motion import rigid
from rtdecode.signal.volume.projection import Projection
from tests.refusals import refused

SHAPE = (6, 5, 4)
AFFINE = np.array([[-3.0, 0, 0, 9], [0, 3.0, 0, -7], [0, 0, 4.0, -5], [0, 0, 0, 1]])
VOXELS = np.array([3, 8, 40, 41, 77, 119])
TRAINED = Projection(VOXELS, SHAPE, AFFINE)
PLACEMENT = Placement(np.eye(4).tolist(), 0.99, 0.0, 0.0)
FIGURES = QualityFigures(0.2, 0.1, 0, 90.0, 80.0, None, 1.0, 0)


def write_calibration(path, projection=TRAINED, placement=None) -> Calibration:
    record = Record(
        1, "0", "now", "mask", "0" * 16, None, projection.features, 4, 0.8, 20, 1, list(SHAPE),
        AFFINE.tolist(), projection.digest, placement, FIGURES, {},
    )  # fmt: skip
    mean = np.arange(projection.features, dtype=np.float32) + 100
    parts = {
        "reference": {"volume": np.ones(SHAPE, np.float32), "affine": AFFINE},
        "projection": projection.to_arrays(),
        "warmup": {"mean": mean, "scale": mean / 50},
    }
    return calibration.write(path, record, parts, {"quality.html": b"page"})


def test_what_was_written_is_read(tmp_path) -> None:
    written = write_calibration(tmp_path / "c", placement=PLACEMENT)
    again = calibration.load(tmp_path / "c")
    assert again.record == written.record
    assert again.record.placement == PLACEMENT
    assert again.record.figures == FIGURES
    assert set(again.record.files) == {"reference.npz", "projection.npz", "warmup.npz", "quality.html"}
    assert np.array_equal(again.projection.voxels, VOXELS)
    assert again.warmup_mean.tolist() == [100, 101, 102, 103, 104, 105]
    assert not (tmp_path / "c.part").exists()


def rewritten(path, **change) -> None:
    tree = json.loads((path / "calibration.json").read_text())
    tree.pop("digest")
    tree |= change
    tree["digest"] = digest_of(tree)
    (path / "calibration.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        (
            {"colour": "red"},
            "json-keys-mismatch",
            {
                "location": re.compile(r"calibration\.json$"),
                "unknown_keys": ["colour"],
                "missing_keys": [],
            },
        ),
        (
            {"figures": {"max_fd_mm": 1}},
            "json-keys-mismatch",
            {
                "location": re.compile(r"calibration\.json: figures$"),
                "missing_keys": sorted({field.name for field in fields(QualityFigures)} - {"max_fd_mm"}),
            },
        ),
        (
            {"placement": 3},
            "json-wrong-type",
            {"location": re.compile(r"calibration\.json: placement$"), "expected_type": "an object"},
        ),
        ({"schema": 9}, "calibration-schema-unsupported", {"schema": 9, "supported_schema": 1}),
        (
            {"features": 7},
            "calibration-record-mismatch",
            {"quantity": "the number of features", "actual": (6,), "expected": (7,)},
        ),
        (
            {"projection": "0" * 16},
            "calibration-record-mismatch",
            {"quantity": "the matrix's digest", "expected": "0" * 16},
        ),
        (
            {"shape": [6, 5, 5]},
            "calibration-record-mismatch",
            {"quantity": "the reference's shape", "actual": (6, 5, 4), "expected": (6, 5, 5)},
        ),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, change, code, values) -> None:
    write_calibration(tmp_path / "c")
    rewritten(tmp_path / "c", **change)
    with refused(BundleError, code, **values):
        calibration.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("file", "values", "code"),
    [
        ("warmup.npz", {"mean": np.array(["a"] * 6), "scale": np.ones(6)}, "calibration-not-numbers"),
        ("warmup.npz", {"mean": np.full(6, np.nan), "scale": np.ones(6)}, "calibration-not-numbers"),
        ("warmup.npz", {"mean": np.array([{}] * 6), "scale": np.ones(6)}, "npz-unreadable"),
        ("reference.npz", {"volume": np.ones(3), "affine": AFFINE}, "calibration-record-mismatch"),
        ("projection.npz", {"shape": np.full(3, 2**40)}, "calibration-projection-invalid"),
        ("projection.npz", {"shape": np.full(3, np.inf)}, "calibration-projection-invalid"),
    ],
)
def test_arrays_that_no_calibration_has_are_refused(tmp_path, file, values, code) -> None:
    path = tmp_path / "c"
    write_calibration(path)
    parts = TRAINED.to_arrays() if file == "projection.npz" else {}
    np.savez(path / file, **(parts | values))
    rewritten(path, files={name: hashed_folder.file_hash(path / name) for name in calibration_files(path)})
    with refused(BundleError, code):
        calibration.load(path)


def test_arrays_that_state_sizes_that_nothing_has_are_refused(tmp_path) -> None:
    path = tmp_path / "c"
    write_calibration(path)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    with zipfile.ZipFile(path / "warmup.npz", "w") as archive:
        for name in ("mean", "scale"):
            data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            archive.writestr(f"{name}.npy", data)
    rewritten(path, files={name: hashed_folder.file_hash(path / name) for name in calibration_files(path)})
    with refused(BundleError, "npz-unreadable", path=path / "warmup.npz"):
        calibration.load(path)


def calibration_files(path) -> list[str]:
    return [file.name for file in path.iterdir() if file.name != "calibration.json"]


def test_what_was_changed_or_lost_is_named(tmp_path) -> None:
    path = tmp_path / "c"
    with refused(UsageError, "calibration-missing", path=path):
        calibration.load(path)
    write_calibration(path)
    content = (path / "warmup.npz").read_bytes()
    (path / "warmup.npz").write_bytes(content[:-1])
    with refused(BundleError, "bundle-file-digest-mismatch", path=path / "warmup.npz"):
        calibration.load(path)
    (path / "warmup.npz").unlink()
    with refused(BundleError, "bundle-missing-file", file="warmup.npz"):
        calibration.load(path)
    write_calibration(path)
    text = (path / "calibration.json").read_text()
    (path / "calibration.json").write_text(text.replace("0.8", "0.9"))
    with refused(BundleError, "manifest-digest-mismatch", path=path / "calibration.json"):
        calibration.load(path)
    (path / "calibration.json").write_text(text[:-9])
    with refused(BundleError, "manifest-not-json", path=path / "calibration.json"):
        calibration.load(path)


def test_a_folder_that_holds_anything_else_is_not_replaced(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    write_calibration(tmp_path / "both")
    (tmp_path / "both" / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt", tmp_path / "both"):
        with refused(
            UsageError, "output-folder-foreign-files", folder_kind="calibration", foreign_files=["thesis.txt"]
        ):
            write_calibration(target)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "both" / "thesis.txt").read_text() == "years of work"
    calibration.load(tmp_path / "both")


def test_the_same_voxels_stored_otherwise_come_in_the_bundles_order(tmp_path) -> None:
    flipped = AFFINE.copy()
    flipped[:3, 3] += AFFINE[:3, 0] * 5
    flipped[:3, 0] *= -1
    voxels = np.sort(TRAINED.bind(SHAPE, flipped))
    matched = write_calibration(tmp_path / "c", Projection(voxels, SHAPE, flipped)).matched(TRAINED)
    data = np.arange(120).reshape(SHAPE)
    mine = np.flip(data, 0).reshape(-1)[matched.projection.voxels]
    assert mine.tolist() == data.reshape(-1)[VOXELS].tolist()
    assert matched.warmup_mean.tolist() == [
        100 + np.searchsorted(voxels, v) for v in matched.projection.voxels
    ]
    assert matched.warmup_scale == pytest.approx(matched.warmup_mean / 50)


def test_a_registered_head_takes_the_bundles_features_wherever_it_lies(tmp_path) -> None:
    placed = replace(TRAINED, affine=rigid([9, -4, 12, 0.1, 0.2, -0.1]) @ AFFINE)
    registered = write_calibration(tmp_path / "c", placed, PLACEMENT)
    assert registered.matched(TRAINED) is registered
    mismatch = re.compile("for other features")
    with refused(GeometryError, "calibration-bundle-mismatch", mismatch=mismatch):
        registered.matched(Projection(VOXELS[::-1], SHAPE, AFFINE))
    with refused(GeometryError, "calibration-bundle-mismatch", mismatch=mismatch):
        registered.matched(replace(TRAINED, affine=AFFINE @ np.diag([1.2, 1, 1, 1])))


@pytest.mark.parametrize(
    "other",
    [
        Projection(VOXELS[:-1], SHAPE, AFFINE),
        Projection(VOXELS + 1 - (VOXELS == 119), SHAPE, AFFINE),
        Projection(VOXELS, SHAPE, rigid([3, 0, 0, 0, 0, 0]) @ AFFINE),
        Projection(VOXELS, (5, 6, 4), AFFINE),
    ],
)
def test_other_features_are_refused_with_both_geometries(tmp_path, other) -> None:
    written = write_calibration(tmp_path / "c")
    calibration_geometry = f"^{written.projection.features} .*{re.escape(str(SHAPE))}"
    bundle_geometry = f"^{other.features} .*{re.escape(str(other.shape))}"
    with refused(
        GeometryError,
        "calibration-bundle-mismatch",
        calibration_features=re.compile(calibration_geometry),
        bundle_features=re.compile(bundle_geometry),
    ) as caught:
        written.matched(other)
    assert "--bundle" in str(caught.value)
