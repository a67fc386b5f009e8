"""A person who is decoded with a bundle of a simulated brain is not called simulated."""

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.recording import RecordingWriter
from rtdecode.types import Montage, Volume
from streaming.client import parse
from streaming.decode.decoder import Decoder
from streaming.session import live, replay
from streaming.session.mailbox import pack_status
from streaming.session.options import StreamOptions
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.text import banner
from streaming.sinks.truth import Truth
from streaming.status import Status
from tests.streaming.bundles import AFFINE, CHANNELS, make_bundle, scan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return make_bundle(folder, eeg=False, tr=Fraction(1, 2), window=Fraction(1))


def recorded(folder: Path, meta: dict[str, Any], montage: Montage | None) -> Path:
    rng = np.random.default_rng(0)
    with RecordingWriter(folder, montage, meta) as writer:
        for index in range(6):
            arrived_at = 100.6 + 0.5 * index
            writer.write(
                Volume(
                    scan(rng),
                    AFFINE,
                    index,
                    1,
                    0.5,
                    0.5 * index,
                    0.6,
                    arrived_at,
                    arrived_at,
                    arrived_at,
                    "v",
                    "1",
                )
            )
    return folder


@pytest.mark.parametrize(
    ("meta", "montage", "simulated"),
    [
        ({"seconds": 1, "simulated": False}, None, False),
        ({"seconds": 1, "simulated": False}, Montage(CHANNELS, 500.0, simulated=True), True),
    ],
)
def test_a_replay_calls_simulated_what_its_sources_did(
    bundle: Bundle, tmp_path: Path, meta: dict[str, Any], montage: Montage | None, simulated: bool
) -> None:
    out = tmp_path / "out"
    replay.run(recorded(tmp_path / "r", meta, montage), str(bundle.path), speed="max", out=out)
    report = json.loads((out / "report.json").read_text())
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert lines
    for tree in (report, *lines):
        assert (tree["simulated"], tree["bundle_simulated"]) == (simulated, True)
    assert all(("simulated" in line["file"]) is simulated for line in lines)


@pytest.mark.parametrize(
    ("simulated", "bundle_simulated", "words"),
    [
        (True, True, "SIMULATED PARTICIPANT"),
        (True, False, "SIMULATED PARTICIPANT"),
        (False, True, "a note, DECODER OF A SIMULATED BRAIN"),
        (False, False, "a note"),
    ],
)
def test_every_picture_says_which_of_both_is_simulated(
    simulated: bool, bundle_simulated: bool, words: str
) -> None:
    assert banner("a note", "causal", simulated=simulated, bundle_simulated=bundle_simulated) == words


def test_a_live_session_begins_with_a_participant_who_is_not_simulated(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the session gives its emitter, before any source has spoken."""
    simulated: list[bool] = []

    def opened(*arguments: Any, **how: Any) -> ClipEmitter:
        simulated.append(how["simulated"])
        return open_emitter(*arguments, **how)

    # An acquisition that ends with its first message, in which every window has gone out.
    messages = [pack_status(Status(done=True, reached=1), ends=True)]
    process = SimpleNamespace(
        mailbox=SimpleNamespace(get=lambda _: messages.pop() if messages else None),
        is_alive=lambda: True,
        **dict.fromkeys(("start", "end", "stop", "join"), list),
    )
    monkeypatch.setattr(live, "AcquisitionProcess", lambda *_: process)
    monkeypatch.setattr(live, "open_emitter", opened)
    out = tmp_path / "out"
    options = StreamOptions(fmri_dir=tmp_path / "volumes", bundle=str(bundle.path), out=out)
    assert live.run(options) == 0
    assert simulated == [False]
    assert json.loads((out / "report.json").read_text())["simulated"] is False


def test_programs_of_ones_own_are_told_too(bundle: Bundle, tmp_path: Path) -> None:
    prepare(tmp_path, overwrite=False)
    output = open_emitter(tmp_path, "s", bundle, Decoder(bundle), Truth(None, bundle), float, simulated=False)
    assert not output.simulated
    output.close()
    values = {
        **dict.fromkeys(("clip", "run", "steps"), 0),
        **dict.fromkeys(("eeg_quality", "confidence", "brain", "beyond_floor_ms")),
        "revision": "final",
        "late": False,
        "missing": {},
        "simulated": False,
        "window_s": [0, 1],
        "session_s": [0, 1],
    }
    assert parse(json.dumps(values), 0.0, "x-clips").bundle_simulated is None
    clip = parse(json.dumps(values | {"bundle_simulated": True, "eeg_source": "changed"}), 0.0, "x-clips")
    assert (clip.bundle_simulated, clip.eeg_source) == (True, "changed")
