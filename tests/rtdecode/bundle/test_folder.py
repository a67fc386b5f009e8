import dataclasses
import hashlib
import json
import os
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode import cli
from rtdecode.disk.hashed_folder import HashedFolder, digest_of
from rtdecode.errors import BundleError, UsageError
from tests import small
from tests.refusals import refused
from tests.shipped import BUNDLES
from tests.streaming import rich


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


@pytest.mark.parametrize("name", BUNDLES)
def test_a_shipped_manifest_is_written_as_it_lies_there(name: str) -> None:
    shipped = json.loads((bundles.SHIPPED / name / "manifest.json").read_text())
    del shipped["digest"]
    assert bundles.to_json(bundles.load(name).manifest) == shipped


def test_how_the_signals_were_prepared_is_stated_where_they_knew_the_future() -> None:
    causal = bundles.to_json(small.manifest())
    assert "chain" not in causal
    offline = dataclasses.replace(small.manifest(), chain="offline")
    tree = bundles.to_json(offline)
    assert tree["chain"] == "offline"
    assert bundles.from_json(tree) == offline
    with refused(BundleError, "manifest-chain-unknown", causal="causal", offline="offline", chain="both"):
        bundles.from_json(tree | {"chain": "both"})


def test_the_flavour_of_the_graphs_is_stated_where_they_have_one() -> None:
    assert "flavour" not in bundles.to_json(small.manifest())
    fused = dataclasses.replace(small.manifest(), flavour="fused")
    tree = bundles.to_json(fused)
    assert tree["flavour"] == "fused"
    assert bundles.from_json(tree) == fused
    with refused(BundleError, "manifest-flavour-unknown", available=["fused", "decomposed"], flavour="both"):
        bundles.from_json(tree | {"flavour": "both"})


def test_a_changed_byte_is_found(written: Path) -> None:
    raw = bytearray((written / "stats.npz").read_bytes())
    raw[-40] ^= 1
    (written / "stats.npz").write_bytes(raw)
    with refused(BundleError, "bundle-file-digest-mismatch", path=written / "stats.npz", manifest="manifest"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lag": "4"', '"lag": "5"'),
        ('"digest": "', '"digest": "0'),
        ('"digest"', '"digesu"'),
        ('"schema": 2', '"schema": 3'),
    ],
)
def test_an_edited_manifest_is_found(written: Path, old: str, new: str) -> None:
    file = written / "manifest.json"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    with refused(BundleError, "manifest-digest-mismatch", path=file):
        bundles.load(written)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "manifest-not-json"),
        (b"\xff{}", "manifest-not-json"),
        (b"[]", "manifest-not-object"),
        (b"", "manifest-not-json"),
    ],
)
def test_a_manifest_that_is_none_is_named(written: Path, raw: bytes, code: str) -> None:
    (written / "manifest.json").write_bytes(raw)
    with refused(BundleError, code, path=written / "manifest.json"):
        bundles.load(written)


def test_the_digest_is_of_the_values_and_not_of_their_layout(written: Path) -> None:
    digest = bundles.load(written).digest
    file = written / "manifest.json"
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(dict(sorted(tree.items()))))
    assert bundles.load(written).digest == digest == tree["digest"]


def test_a_missing_file_is_named(written: Path) -> None:
    (written / "projection.npz").unlink()
    with refused(BundleError, "bundle-missing-file", file="projection.npz"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "place", "unknown_keys", "missing_keys"),
    [
        ({"speed": 3}, "", ["speed"], []),
        ({"grid": {"tr": "4/5"}}, ": grid", [], ["fps", "hop", "lag", "sfreq", "window"]),
        ({"eeg": {"channels": []}}, ": eeg", [], ["band", "reference", "unit"]),
        ({"stages": {"encode": {"file": "x"}}}, ": stages.encode", [], ["inputs", "outputs"]),
    ],
)
def test_a_manifest_that_is_not_as_agreed_is_refused(
    written: Path, changes: dict, place: str, unknown_keys: list[str], missing_keys: list[str]
) -> None:
    edit(written, **changes)
    with refused(
        BundleError,
        "json-keys-mismatch",
        location=f"{written / 'manifest.json'}{place}",
        unknown_keys=unknown_keys,
        missing_keys=missing_keys,
    ):
        bundles.load(written)


@pytest.mark.parametrize("schema", [1, 99])
def test_a_manifest_of_another_schema_is_refused(written: Path, schema: int) -> None:
    edit(written, schema=schema)
    with refused(BundleError, "bundle-schema-unsupported", path=written, actual=schema, expected=2) as caught:
        bundles.load(written)
    assert "rtdecode export RUN --out DIR" in str(caught.value)


def test_a_subject_that_reads_nothing_is_refused_by_file_and_name(tmp_path: Path) -> None:
    folder = rich.make(tmp_path / "bundle").path
    subjects = json.loads((folder / "manifest.json").read_text())["subjects"]
    edit(folder, subjects=subjects | {"two": subjects["two"] | {"eeg": None}})
    with refused(BundleError, "manifest-modality-missing", manifest=folder / "manifest.json", subject="two"):
        bundles.load(folder)


def test_a_fraction_that_is_none_is_refused(written: Path) -> None:
    grid = json.loads((written / "manifest.json").read_text())["grid"]
    edit(written, grid=grid | {"lag": "soon"})
    with refused(BundleError, "json-fraction-malformed", value="'soon'"):
        bundles.load(written)


def test_a_voxel_count_that_does_not_fit_is_refused(written: Path) -> None:
    fmri = json.loads((written / "manifest.json").read_text())["fmri"]
    edit(written, fmri=fmri | {"voxels": 6})
    with refused(
        BundleError,
        "projection-manifest-mismatch",
        path=written / "projection.npz",
        field="voxels",
        actual=5,
        expected=6,
    ):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        (
            {"shape": np.array([9, 9, 9])},
            "projection-manifest-mismatch",
            {"field": "shape", "actual": [9, 9, 9], "expected": list(small.SHAPE)},
        ),
        (
            {"affine": small.AFFINE + np.eye(4)},
            "projection-manifest-mismatch",
            {
                "field": "affine",
                "actual": (small.AFFINE + np.eye(4)).tolist(),
                "expected": small.AFFINE.tolist(),
            },
        ),
        (
            {"affine": np.eye(3)},
            "projection-invalid",
            {"error": re.compile(r"found \[4, 3, 2\] and \(3, 3\)")},
        ),
    ],
)
def test_a_grid_other_than_the_manifests_is_refused(
    written: Path, changes: dict, code: str, values: dict
) -> None:
    edit_projection(written, **changes)
    with refused(BundleError, code, path=written / "projection.npz", **values):
        bundles.load(written)


def test_an_unknown_name_lists_the_shipped_ones(tmp_path: Path) -> None:
    with refused(BundleError, "bundle-missing", path="nowhere", available=re.compile(".*".join(BUNDLES))):
        bundles.load("nowhere")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with refused(
            UsageError,
            "output-folder-foreign-files",
            folder_kind="bundle",
            foreign_files=["thesis.txt"],
        ):
            bundles.write(target, small.manifest(), {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_and_nothing_that_lies_in_it(written: Path) -> None:
    files = {name: written.parent / name for name in ("stats.npz", "projection.npz")}
    other = dataclasses.replace(small.manifest(), name="another")
    assert bundles.write(written, other, files).manifest.name == "another"
    (written / "thesis.txt").write_text("years of work")
    with refused(
        UsageError,
        "output-folder-foreign-files",
        folder=written,
        folder_kind="bundle",
        foreign_files=["thesis.txt"],
    ):
        bundles.write(written, small.manifest(), files)
    assert (written / "thesis.txt").read_text() == "years of work"


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(written: Path) -> None:
    link = written.parent / "current"
    link.symlink_to(written.name)
    files = {name: written.parent / name for name in ("stats.npz", "projection.npz")}
    bundles.write(link, dataclasses.replace(small.manifest(), name="another"), files)
    assert link.is_symlink()
    assert bundles.load(written).manifest.name == "another"


def listed(path: Path, name: str, file: Path) -> None:
    """List a file in a manifest under any name, with the hash that it has."""
    files = json.loads((path / "manifest.json").read_text())["files"]
    edit(path, files=files | {name: hashlib.sha256(file.read_bytes()).hexdigest()})


@pytest.mark.parametrize("name", ["../elsewhere.onnx", "/absolute", "inner/../stats.npz", "./stats.npz", ""])
def test_a_file_that_is_no_name_in_the_folder_is_refused(written: Path, name: str) -> None:
    elsewhere = written.parent / "elsewhere.onnx"
    elsewhere.write_bytes(b"weights")
    stage = {"file": str(elsewhere) if name == "/absolute" else name, "inputs": {}, "outputs": {}}
    edit(written, stages={"encode": stage})
    with refused(BundleError, "bundle-file-unlisted", entry="stages.encode", file=stage["file"]):
        bundles.load(written)
    listed(written, stage["file"], elsewhere)
    with refused(BundleError, "bundle-missing-file", folder=written, file=stage["file"], manifest="manifest"):
        bundles.load(written)


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "pipe"])
def test_a_listed_name_that_is_no_file_of_the_folder_is_refused(written: Path, kind: str) -> None:
    elsewhere = written.parent / "elsewhere.onnx"
    elsewhere.write_bytes(b"weights")
    path = written / "encode.onnx"
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    listed(written, "encode.onnx", elsewhere)
    with refused(BundleError, "bundle-file-not-regular", path=path):
        bundles.load(written)


@pytest.fixture
def nested(written: Path, tmp_path: Path) -> Path:
    """A bundle with a file in a folder of a folder."""
    engine = tmp_path / "engine"
    engine.write_bytes(b"built for one GPU")
    files = {name: written / name for name in ("stats.npz", "projection.npz")}
    bundle = bundles.write(
        tmp_path / "nested", small.manifest(), files | {"engines/h200/encode.plan": engine}
    )
    return bundle.path


def test_files_may_lie_in_folders_by_their_way_from_the_bundles_own(nested: Path) -> None:
    read = bundles.load(nested)
    assert "engines/h200/encode.plan" in read.manifest.files
    assert read.read("engines/h200/encode.plan") == b"built for one GPU"
    assert bytes(read.mapped("engines/h200/encode.plan")) == b"built for one GPU"
    again = bundles.write(nested, read.manifest, {name: nested / name for name in read.manifest.files})
    assert again.digest == read.digest, "a bundle with folders is replaced as one without"


@pytest.mark.parametrize(
    "kind", ["changed", "gone", "link", "folder that is a link", "unlisted", "empty folder"]
)
def test_a_file_in_a_folder_is_held_as_one_beside_the_manifest(nested: Path, kind: str) -> None:
    file = nested / "engines" / "h200" / "encode.plan"
    elsewhere = nested.with_name("elsewhere")
    if kind == "changed":
        file.write_bytes(b"built for one CPU")
    elif kind == "gone":
        file.unlink()
    elif kind == "link":
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
    elif kind == "folder that is a link":
        file.parent.rename(elsewhere)
        file.parent.symlink_to(elsewhere)
    elif kind == "unlisted":
        file.with_name("more.plan").write_bytes(b"mine")
    else:
        (nested / "engines" / "empty").mkdir()
    unlisted = {
        "gone": "engines/h200",
        "folder that is a link": "engines/h200",
        "unlisted": "engines/h200/more.plan",
        "empty folder": "engines/empty",
    }
    expected: dict[str, Any]
    if kind == "changed":
        code, expected = "bundle-file-digest-mismatch", {"path": file}
    elif kind == "link":
        code, expected = "bundle-file-not-regular", {"path": file, "link_target": elsewhere}
    else:
        code = "bundle-unlisted-files"
        expected = {"folder": nested, "unlisted_files": [f"'{unlisted[kind]}'"], "manifest": "manifest.json"}
    with refused(BundleError, code, **expected):
        bundles.load(nested)


@pytest.mark.parametrize(
    "name",
    ["engines/../stats.npz", "engines//h200/encode.plan", "/engines/h200/encode.plan", "engines\\plan"],
)
def test_a_name_is_the_plain_way_to_a_file(nested: Path, name: str) -> None:
    file = nested / "engines" / "h200" / "encode.plan"
    if "\\" in name:
        (nested / name).write_bytes(file.read_bytes())
    listed(nested, name, file)
    with refused(BundleError, "bundle-missing-file", file=name, manifest="manifest"):
        bundles.load(nested)


def test_a_folder_with_something_else_in_a_folder_is_not_replaced(nested: Path) -> None:
    (nested / "engines" / "thesis.txt").write_text("years of work")
    with refused(
        UsageError,
        "output-folder-foreign-files",
        folder=nested,
        folder_kind="bundle",
        foreign_files=["engines/thesis.txt"],
    ):
        bundles.write(nested, small.manifest(), {})


def test_a_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**26)
    head = tmp_path / "head.json"
    head.write_text("{}")
    sealed = HashedFolder(head, {"large": hashlib.sha256(bytes(2**26)).hexdigest()}, "Copy it again.")
    tracemalloc.start()
    try:
        sealed.check()
        assert len(sealed.mapped("large")) == 2**26
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22, "the whole of it was never in memory"


def test_an_empty_file_cannot_be_mapped(nested: Path) -> None:
    empty = nested.with_name("empty")
    empty.touch()
    files = {name: nested / name for name in bundles.load(nested).manifest.files}
    bundle = bundles.write(nested.with_name("other"), small.manifest(), files | {"engines/none": empty})
    with refused(BundleError, "bundle-file-unreadable", path=bundle.path / "engines" / "none"):
        bundle.mapped("engines/none")


def test_a_bundle_without_a_list_of_its_files_is_refused(written: Path) -> None:
    edit(written, files={})
    with refused(
        BundleError,
        "bundle-unlisted-files",
        unlisted_files=["'projection.npz'", "'stats.npz'"],
        manifest="manifest.json",
    ):
        bundles.load(written)


@pytest.mark.parametrize("name", ["encode.onnx.data", ".hidden"])
def test_a_file_that_nobody_listed_is_refused(written: Path, name: str) -> None:
    (written / name).write_bytes(b"weights")
    with refused(BundleError, "bundle-unlisted-files", folder=written, unlisted_files=[f"'{name}'"]):
        bundles.load(written)


@pytest.mark.parametrize("name", ["stats.npz", "projection.npz"])
def test_what_is_read_is_listed(written: Path, name: str) -> None:
    files = json.loads((written / "manifest.json").read_text())["files"]
    del files[name]
    (written / name).unlink()
    edit(written, files=files)
    with refused(BundleError, "manifest-entry-missing", manifest=written / "manifest.json", file=name):
        bundles.load(written)


def test_what_is_read_is_hashed_without_the_rest(written: Path) -> None:
    (written / "stats.npz").write_bytes((written / "projection.npz").read_bytes())
    with refused(BundleError, "bundle-file-digest-mismatch", path=written / "stats.npz"):
        bundles.load(written, verify=False)


def test_statistics_of_another_size_are_refused(written: Path) -> None:
    eeg = json.loads((written / "manifest.json").read_text())["eeg"]
    edit(written, eeg=eeg | {"channels": ["Fz", "Cz"]})
    with refused(BundleError, "stats-shape-mismatch", array="eeg_mean", actual=(4,), expected_size=2):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "code", "place", "values"),
    [
        (
            {"steps": "4"},
            "json-number-invalid",
            ": steps",
            {"expected_type": "a whole number", "value": "'4'"},
        ),
        ({"steps": True}, "json-number-invalid", ": steps", {"expected_type": "a whole number"}),
        ({"steps": 10**9}, "manifest-steps-out-of-range", "", {"limit": 1000, "steps": 10**9}),
        ({"detail": 1.5}, "manifest-detail-out-of-range", "", {"detail": 1.5}),
        ({"detail": "all"}, "json-number-invalid", ": detail", {"expected_type": "a number"}),
        ({"name": None}, "json-wrong-type", ": name", {"expected_type": "text", "value": "None"}),
        (
            {"simulated": 1},
            "json-wrong-type",
            ": simulated",
            {"expected_type": "true or false", "value": "1"},
        ),
        (
            {"sigmas": {"2": [1.0, "half"]}},
            "json-number-invalid",
            ": sigmas.2[1]",
            {"expected_type": "a number"},
        ),
        ({"sigmas": {"4": [1.0, 0.5]}}, "sigmas-count-mismatch", "", {"n_levels": 2, "steps": "4"}),
        ({"sigmas": {"1": [0]}}, "sigmas-not-positive", "", {"steps": "1", "levels": [0]}),
        (
            {"noise_key": "phantom"},
            "manifest-noise-key-invalid",
            "",
            {"max_digits": 64, "noise_key": "phantom"},
        ),
        ({"latent": [1, 4, 9]}, "manifest-latent-shape-invalid", "", {"shape": [1, 4, 9]}),
        ({"dtype": "float32"}, "json-keys-mismatch", "", {"unknown_keys": ["dtype"], "missing_keys": []}),
        (
            {"labels": ["face", 3]},
            "json-wrong-type",
            ": labels[1]",
            {"expected_type": "text", "value": "3"},
        ),
        ({"labels": ["face", "face"]}, "manifest-labels-invalid", "", {"labels": ["face", "face"]}),
        (
            {"stages": {"draw": None}},
            "manifest-stage-unknown",
            "",
            {"available": re.compile("front"), "unknown": ["draw"]},
        ),
        ({"eeg": None, "fmri": None}, "manifest-modality-missing", "", {}),
        ({"files": ["stats.npz"]}, "json-wrong-type", ": files", {"expected_type": "an object"}),
        (
            {"clip": {"frames": "33", "height": 8, "width": 12, "fps": 8}},
            "json-number-invalid",
            ": clip: frames",
            {"expected_type": "a whole number"},
        ),
        (
            {"clip": {"frames": -33, "height": 8, "width": 12, "fps": 8}},
            "clip-geometry-invalid",
            ": clip",
            {"geometry": re.compile("frames=-33")},
        ),
        (
            {"provenance": {"onset_correction_s": "3.5"}},
            "json-number-invalid",
            ": provenance.onset_correction_s",
            {"expected_type": "a number"},
        ),
    ],
)
def test_a_value_of_another_kind_is_refused(
    written: Path, changes: dict, code: str, place: str, values: dict
) -> None:
    edit(written, **changes)
    with refused(BundleError, code, location=f"{written / 'manifest.json'}{place}", **values):
        bundles.load(written)


def test_numbers_that_json_has_not_are_refused(written: Path) -> None:
    edit(written, sigmas={"1": [float("nan")]})
    with refused(BundleError, "manifest-not-json", path=written / "manifest.json"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("missing", "bundle-missing"),
        ("empty", "bundle-missing"),
        ("file", "bundle-missing"),
        ("garbage", "manifest-not-json"),
        ("no manifest", "bundle-missing"),
        ("too long", "bundle-unreadable"),
        ("\0", "bundle-missing"),
    ],
)
def test_what_is_no_bundle_is_inspected_with_a_sentence(what: str, code: str, written: Path) -> None:
    path = written.parent / what.replace("\0", "nul") if what != "too long" else written / ("x" * 5000)
    if what in ("empty", "garbage", "no manifest"):
        path.mkdir()
    if what == "file":
        path.write_text("thesis")
    if what == "garbage":
        (path / "manifest.json").write_bytes(os.urandom(100))
    if what == "no manifest":
        (path / "manifest.json").mkdir()
    with refused(BundleError, code):
        bundles.load(f"{path}\0" if what == "\0" else path)


@pytest.mark.parametrize(
    ("mode", "name", "code"),
    [
        (0, ".", "bundle-unreadable"),
        # An owner may enter such a folder without listing it; root is another user here, who may not.
        (0o300, ".", "bundle-unreadable" if os.geteuid() == 0 else "bundle-folder-unreadable"),
        (0, "manifest.json", "manifest-unreadable"),
        (0, "stats.npz", "bundle-file-unreadable"),
    ],
)
def test_what_may_not_be_read_is_refused_with_a_sentence(
    mode: int, name: str, code: str, written: Path
) -> None:
    for folder in [*written.parents, written]:
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o5 != 0o5:
            folder.chmod(0o755)
    # Root is another user here, who may read a bundle only once it was opened to others.
    for file in written.iterdir():
        file.chmod(0o644)
    (written / name).chmod(mode)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with refused(BundleError, code) as caught:
            bundles.load(written)
    finally:
        os.seteuid(user)
        (written / name).chmod(0o755)
    assert str(written) in str(caught.value.values)


def test_inspect_ends_with_4_where_a_bundle_is_refused(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (written / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["rtdecode", "inspect", str(written), "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    printed = capsys.readouterr()
    assert "notes.txt" in printed.err
    error = json.loads(printed.out)["error"]
    assert error["code"] == "bundle-unlisted-files"
    assert error["values"]["unlisted_files"] == ["'notes.txt'"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text"])
def test_arrays_that_are_none_are_refused(written: Path, data: bytes) -> None:
    (written / "stats.npz").write_bytes(data)
    listed(written, "stats.npz", written / "stats.npz")
    with refused(BundleError, "npz-unreadable", path=written / "stats.npz"):
        bundles.load(written)


def test_a_lone_array_is_no_archive(written: Path) -> None:
    with (written / "stats.npz").open("wb") as file:
        np.save(file, np.zeros(4))
    listed(written, "stats.npz", written / "stats.npz")
    with refused(BundleError, "npz-unreadable", path=written / "stats.npz"):
        bundles.load(written)
