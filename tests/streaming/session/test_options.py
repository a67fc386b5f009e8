"""What a session refuses before, or just after, it has begun."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import load
from rtdecode.errors import RtDecodeError
from streaming.session import live
from streaming.session.live import run
from streaming.session.options import StreamOptions
from streaming.sinks.session_folder import prepare
from tests.refusals import refused
from tests.streaming.bundles import AFFINE, SHAPE, damage, make_bundle, make_calibration
from tests.streaming.sessions import TR, WINDOW
from tests.streaming.sinks.test_truth import write_film

# Options that are paths.
_PATHS = ("fmri_dir", "out", "record", "truth", "token_file", "ca")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", tr=TR, window=WINDOW).path


# A value that begins with a word of `places` below is a path there.
@pytest.mark.parametrize(
    ("flags", "exit_code", "code", "values"),
    [
        ((), 2, "session-source-missing", {}),
        (
            ("--lsl", "x", "--dashboard", "localhost"),
            2,
            "dashboard-address-malformed",
            {"address": "localhost"},
        ),
        (
            ("--lsl", "x", "--dashboard", "203.0.113.1:80"),
            2,
            "dashboard-address-unavailable",
            {"host": "203.0.113.1", "port": 80},
        ),
        (("--lsl", "x", "--outlet", " "), 2, "outlet-name-invalid", {"outlet": " "}),
        (("--lsl", "x", "--osc", "localhost"), 2, "osc-address-malformed", {"address": "localhost"}),
        (("--lsl", "x", "--decoder", "http://x"), 2, "decoder-address-malformed", {"address": "http://x"}),
        (
            ("--lsl", "x", "--decoder", "wss://a:1,ws://x"),
            2,
            "decoder-address-malformed",
            {"address": "ws://x"},
        ),
        (("--lsl", "x", "--decoder", ","), 2, "decoder-address-missing", {}),
        (
            ("--lsl", "x", "--decoder", "ws://203.0.113.1:80"),
            2,
            "decoder-not-encrypted",
            {"address": "ws://203.0.113.1:80"},
        ),
        (("--lsl", "x", "--decoder", "ws://127.0.0.1:1"), 2, "session-token-missing", {}),
        (
            ("--lsl", "x", "--decoder", "ws://[::1]:1", "--token-file", "NEW"),
            2,
            "token-file-unreadable",
            {"path": "NEW"},
        ),
        (
            ("--lsl", "x", "--token-file", "NEW"),
            2,
            "session-flag-without-decoder",
            {"flag": "--token-file", "path": "NEW"},
        ),
        (("--lsl", "x", "--ca", "NEW"), 2, "session-flag-without-decoder", {"flag": "--ca"}),
        (("--fmri-dir", "/nowhere/at/all"), 2, "fmri-dir-parent-missing", {"folder": "/nowhere/at/all"}),
        (("--lsl", "x", "--out", "USED"), 2, "output-folder-not-empty", {"folder": "USED"}),
        (
            ("--lsl", "x", "--truth", "USED", "--out", "USED"),
            2,
            "session-truth-out-conflict",
            {"folder": "USED"},
        ),
        (("--lsl", "x", "--record", "USED"), 2, "recording-folder-not-empty", {"folder": "USED"}),
        (
            ("--lsl", "x", "--out", "USED/film.mp4/below"),
            2,
            "output-folder-unwritable",
            {"option": "--out", "folder": "USED/film.mp4/below"},
        ),
        (
            ("--lsl", "x", "--record", "USED/film.mp4/below"),
            2,
            "output-folder-unwritable",
            {"option": "--record", "folder": "USED/film.mp4/below"},
        ),
        (
            ("--lsl", "x", "--record", "NEW", "--out", "NEW"),
            2,
            "session-record-out-conflict",
            {"folder": "NEW"},
        ),
        (("--lsl", "x", "--bundle", "nothing"), 4, "bundle-missing", {"path": "nothing"}),
        (
            ("--lsl", "x", "--bundle", "DAMAGED"),
            4,
            "bundle-file-digest-mismatch",
            {"path": "DAMAGED/encode.onnx"},
        ),
        (("--lsl", "x", "--bundle", "FMRI"), 2, "session-modality-mismatch", {"bundle_modalities": "fmri"}),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    flags: tuple[str, ...], exit_code: int, code: str, values: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "film.mp4").write_bytes(b"precious")
    places = {"USED": tmp_path / "used", "NEW": tmp_path / "new"}
    if "DAMAGED" in flags:
        places["DAMAGED"] = damage(load(bundle), tmp_path / "damaged")
    if "FMRI" in flags:
        places["FMRI"] = make_bundle(tmp_path / "fmri", eeg=False).path

    def place(value: Any) -> Any:
        word, *below = str(value).split("/")
        return str(places[word].joinpath(*below)) if word in places else value

    options = {
        flag.removeprefix("--").replace("-", "_"): place(value)
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }
    paths = {name: Path(options.pop(name)) for name in _PATHS if name in options}
    expected = {name: place(value) for name, value in values.items()}
    with refused(RtDecodeError, code, **expected) as caught:
        run(StreamOptions(**({"bundle": str(bundle), "out": tmp_path / "out"} | options | paths)))
    assert caught.value.exit_code == exit_code
    assert (tmp_path / "used" / "film.mp4").read_bytes() == b"precious"
    if "--record" in flags:
        assert not (tmp_path / "out").exists()


def test_a_session_that_never_began_to_record_leaves_no_truth_in_anothers_recording(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "truth", 1)
    record = tmp_path / "record"

    def prepared_beside_another(out: Path, *, overwrite: bool) -> None:
        prepare(out, overwrite=overwrite)
        record.mkdir(exist_ok=True)
        (record / "recording.json").write_text("another session's")

    monkeypatch.setattr(live, "prepare", prepared_beside_another)
    options = StreamOptions(
        lsl="nobody-is-called-so",
        bundle=str(bundle),
        out=tmp_path / "out",
        truth=tmp_path / "truth",
        record=record,
    )
    with refused(RtDecodeError, "recording-folder-not-empty", folder=record):
        run(options)
    assert [file.name for file in record.iterdir()] == ["recording.json"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fault", "exit_code", "code", "file", "values"),
    [
        ("missing", 2, "calibration-missing", "", {}),
        ("damaged", 4, "bundle-file-digest-mismatch", "quality.html", {}),
        (
            "another's",
            4,
            "calibration-bundle-mismatch",
            "",
            {
                "calibration_features": re.compile("^40 features"),
                "bundle_features": re.compile("^40 features"),
            },
        ),
    ],
)
def test_a_bad_calibration_is_told_before_any_folder_is_made(
    fault: str, exit_code: int, code: str, file: str, values: dict[str, Any], bundle: Path, tmp_path: Path
) -> None:
    calibration = tmp_path / "cal"
    if fault != "missing":
        affine = AFFINE + np.diag([1.0, 0, 0, 0]) if fault == "another's" else AFFINE
        whose = make_bundle(tmp_path / "whose", affine=affine)
        make_calibration(calibration, whose, np.ones(SHAPE))
    if fault == "damaged":
        (calibration / "quality.html").write_text("another page")
    options = StreamOptions(
        fmri_dir=tmp_path / "volumes",
        bundle=str(bundle),
        out=tmp_path / "out",
        calibration=calibration,
        record=tmp_path / "record",
    )
    with refused(RtDecodeError, code, path=calibration / file, **values) as caught:
        run(options)
    assert caught.value.exit_code == exit_code
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "record").exists()
