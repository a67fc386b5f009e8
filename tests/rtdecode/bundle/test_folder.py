import dataclasses
import hashlib
import json
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode import cli
from rtdecode.disk.sealed import Sealed, digest_of
from rtdecode.errors import BundleError, UsageError
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


@pytest.mark.parametrize("name", ["phantom", "haxby", "cinesync-tiny"])
def test_a_shipped_manifest_is_written_as_it_lies_there(name: str) -> None:
    kept = json.loads((bundles.SHIPPED / name / "manifest.json").read_text())
    del kept["digest"]
    assert bundles.to_json(bundles.load(name).manifest) == kept


def test_how_the_signals_were_prepared_is_stated_where_they_knew_the_future() -> None:
    causal = bundles.to_json(small.manifest())
    assert "chain" not in causal
    offline = dataclasses.replace(small.manifest(), chain="offline")
    tree = bundles.to_json(offline)
    assert tree["chain"] == "offline"
    assert bundles.from_json(tree) == offline
    with pytest.raises(BundleError, match="chain is causal or offline, found 'both'"):
        bundles.from_json(tree | {"chain": "both"})


def test_the_flavour_of_the_graphs_is_stated_where_they_have_one() -> None:
    assert "flavour" not in bundles.to_json(small.manifest())
    fused = dataclasses.replace(small.manifest(), flavour="fused")
    tree = bundles.to_json(fused)
    assert tree["flavour"] == "fused"
    assert bundles.from_json(tree) == fused
    with pytest.raises(BundleError, match="flavour is one of fused, decomposed, found 'both'"):
        bundles.from_json(tree | {"flavour": "both"})


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
        ('"schema": 2', '"schema": 3'),
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
    digest = bundles.load(written).digest
    file = written / "manifest.json"
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
        ({"schema": 1}, r"schema 1, this version reads 2.*`rtdecode export RUN --out DIR`"),
        ({"schema": 99}, "schema 99, this version reads 2"),
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
        ({"affine": np.eye(3)}, r"expected a grid .* found \[4, 3, 2\] and \(3, 3\)"),
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
        with pytest.raises(UsageError, match="exists and holds something other than a bundle"):
            bundles.write(target, small.manifest(), {})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_and_nothing_that_lies_in_it(written: Path) -> None:
    files = {name: written.parent / name for name in ("stats.npz", "projection.npz")}
    other = dataclasses.replace(small.manifest(), name="another")
    assert bundles.write(written, other, files).manifest.name == "another"
    (written / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"something other than a bundle: found thesis\.txt"):
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
    with pytest.raises(BundleError, match=r"stages\.encode is in the file .* not listed under files"):
        bundles.load(written)
    listed(written, stage["file"], elsewhere)
    with pytest.raises(BundleError, match=r"is missing, but the manifest names it") as caught:
        bundles.load(written)
    assert str(written) in str(caught.value)


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "pipe"])
def test_a_listed_name_that_is_no_file_of_the_folder_is_refused(written: Path, kind: str) -> None:
    elsewhere = written.parent / "elsewhere.onnx"
    elsewhere.write_bytes(b"weights")
    inside = written / "encode.onnx"
    if kind == "link":
        inside.symlink_to(elsewhere)
    elif kind == "loop":
        inside.symlink_to(inside)
    elif kind == "folder":
        inside.mkdir()
    else:
        os.mkfifo(inside)
    listed(written, "encode.onnx", elsewhere)
    with pytest.raises(BundleError, match=r"bundle/encode\.onnx is not a file of this folder"):
        bundles.load(written)


@pytest.fixture
def nested(written: Path, tmp_path: Path) -> Path:
    """A bundle with a file in a folder of a folder."""
    engine = tmp_path / "engine"
    engine.write_bytes(b"built for one GPU")
    files = {name: written / name for name in ("stats.npz", "projection.npz")}
    made = bundles.write(tmp_path / "nested", small.manifest(), files | {"engines/h200/encode.plan": engine})
    return made.path


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
    words = {
        "changed": r"engines/h200/encode\.plan was changed",
        "gone": r"holds 'engines/h200', which manifest\.json does not list",
        "link": r"engines/h200/encode\.plan is not a file of this folder: .* a link to",
        "folder that is a link": r"holds 'engines/h200', which manifest\.json does not list",
        "unlisted": r"holds 'engines/h200/more\.plan', which",
        "empty folder": r"holds 'engines/empty', which",
    }
    with pytest.raises(BundleError, match=words[kind]):
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
    with pytest.raises(
        BundleError, match="is missing, but the manifest names it: expected the name of a file"
    ):
        bundles.load(nested)


def test_a_folder_with_something_else_in_a_folder_is_not_replaced(nested: Path) -> None:
    (nested / "engines" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"something other than a bundle: found engines/thesis\.txt"):
        bundles.write(nested, small.manifest(), {})


def test_a_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**26)
    head = tmp_path / "head.json"
    head.write_text("{}")
    held = Sealed(head, {"large": hashlib.sha256(bytes(2**26)).hexdigest()}, "Copy it again.")
    tracemalloc.start()
    try:
        held.check()
        assert len(held.mapped("large")) == 2**26
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22, "the whole of it was never in memory"


def test_an_empty_file_cannot_be_mapped(nested: Path) -> None:
    empty = nested.with_name("empty")
    empty.touch()
    files = {name: nested / name for name in bundles.load(nested).manifest.files}
    made = bundles.write(nested.with_name("other"), small.manifest(), files | {"engines/none": empty})
    with pytest.raises(BundleError, match="engines/none cannot be read"):
        made.mapped("engines/none")


def test_a_bundle_without_a_list_of_its_files_is_refused(written: Path) -> None:
    edit(written, files={})
    with pytest.raises(
        BundleError, match=r"holds 'projection\.npz', 'stats\.npz', which manifest\.json does not"
    ):
        bundles.load(written)


@pytest.mark.parametrize("name", ["encode.onnx.data", ".hidden"])
def test_a_file_that_nobody_listed_is_refused(written: Path, name: str) -> None:
    (written / name).write_bytes(b"weights")
    with pytest.raises(BundleError, match="does not list under files"):
        bundles.load(written)


@pytest.mark.parametrize("name", ["stats.npz", "projection.npz"])
def test_what_is_read_is_listed(written: Path, name: str) -> None:
    files = json.loads((written / "manifest.json").read_text())["files"]
    del files[name]
    (written / name).unlink()
    edit(written, files=files)
    with pytest.raises(BundleError, match=rf"manifest\.json does not list '{name}' under files"):
        bundles.load(written)


def test_what_is_read_is_hashed_without_the_rest(written: Path) -> None:
    (written / "stats.npz").write_bytes((written / "projection.npz").read_bytes())
    with pytest.raises(BundleError, match=r"stats\.npz was changed"):
        bundles.load(written, verify=False)


def test_statistics_of_another_size_are_refused(written: Path) -> None:
    eeg = json.loads((written / "manifest.json").read_text())["eeg"]
    edit(written, eeg=eeg | {"channels": ["Fz", "Cz"]})
    with pytest.raises(BundleError, match=r"eeg_mean has shape \(4,\), manifest\.json asks for \(2,\)"):
        bundles.load(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "4"}, r"manifest\.json: steps must be a whole number of at most 2\^53, found '4'"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": 10**9}, "steps lies between 0 and 1000"),
        ({"name": None}, "name must be text, found None"),
        ({"simulated": 1}, "simulated must be true or false, found 1"),
        ({"sigmas": {"2": [1.0, "half"]}}, r"sigmas\.2\[1\] must be a number"),
        (
            {"sigmas": {"4": [1.0, 0.5]}},
            "sigmas has a level for each step, found 2 levels for '4' steps",
        ),
        ({"sigmas": {"1": [0]}}, r"sigmas\.1: noise levels above 0"),
        ({"noise_key": "phantom"}, "noise_key is 1 to 64 hexadecimal digits, found 'phantom'"),
        ({"latent": [1, 4, 9]}, r"latent is \(1, channel, latent frame, row, column\), or null"),
        ({"dtype": "float32"}, r"unknown keys \['dtype'\]"),
        ({"labels": ["face", 3]}, r"labels\[1\] must be text, found 3"),
        ({"labels": ["face", "face"]}, "labels are one or more different names"),
        ({"stages": {"draw": None}}, r"stages are front, .* found \['draw'\]"),
        ({"eeg": None, "fmri": None}, "reads neither eeg nor fmri"),
        ({"files": ["stats.npz"]}, "files must be an object"),
        (
            {"clip": {"frames": "33", "height": 8, "width": 12, "fps": 8}},
            "clip: frames must be a whole number",
        ),
        ({"clip": {"frames": -33, "height": 8, "width": 12, "fps": 8}}, "clip: a clip has a frame"),
        ({"provenance": {"onset_correction_s": "3.5"}}, r"provenance\.onset_correction_s must be a number"),
    ],
)
def test_a_value_of_another_kind_is_refused(written: Path, changes: dict, message: str) -> None:
    edit(written, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        bundles.load(written)
    assert str(written) in str(caught.value)


def test_numbers_that_json_has_not_are_refused(written: Path) -> None:
    edit(written, sigmas={"1": [float("nan")]})
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        bundles.load(written)


@pytest.mark.parametrize("what", ["missing", "empty", "file", "garbage", "no manifest", "too long", "\0"])
def test_what_is_no_bundle_is_inspected_with_a_sentence(what: str, written: Path) -> None:
    path = written.parent / what.replace("\0", "nul") if what != "too long" else written / ("x" * 5000)
    if what in ("empty", "garbage", "no manifest"):
        path.mkdir()
    if what == "file":
        path.write_text("thesis")
    if what == "garbage":
        (path / "manifest.json").write_bytes(os.urandom(100))
    if what == "no manifest":
        (path / "manifest.json").mkdir()
    with pytest.raises(BundleError, match=r"expected|cannot be read|is not JSON"):
        bundles.load(f"{path}\0" if what == "\0" else path)


@pytest.mark.parametrize(("mode", "name"), [(0, "."), (0o300, "."), (0, "manifest.json"), (0, "stats.npz")])
def test_what_may_not_be_read_is_refused_with_a_sentence(mode: int, name: str, written: Path) -> None:
    for folder in [*written.parents, written]:
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o5 != 0o5:
            folder.chmod(0o755)
    (written / name).chmod(mode)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(BundleError, match="cannot be read") as caught:
            bundles.load(written)
    finally:
        os.seteuid(user)
        (written / name).chmod(0o755)
    assert str(written) in str(caught.value)


def test_inspect_ends_with_4_where_a_bundle_is_refused(
    written: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (written / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["rtdecode", "inspect", str(written)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    assert "holds 'notes.txt'" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text"])
def test_arrays_that_are_none_are_refused(written: Path, data: bytes) -> None:
    (written / "stats.npz").write_bytes(data)
    listed(written, "stats.npz", written / "stats.npz")
    with pytest.raises(BundleError, match=r"stats\.npz cannot be read as arrays"):
        bundles.load(written)


def test_a_lone_array_is_no_archive(written: Path) -> None:
    with (written / "stats.npz").open("wb") as file:
        np.save(file, np.zeros(4))
    listed(written, "stats.npz", written / "stats.npz")
    with pytest.raises(BundleError, match=r"stats\.npz cannot be read as arrays"):
        bundles.load(written)
