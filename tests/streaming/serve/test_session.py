"""What a session leaves is the same, wherever it is decoded."""

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.disk.video import read_mp4
from streaming.decode.deadline import Job
from streaming.decode.decoder import AnyDecoder, SharedDecoder
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.running import remote, running
from tests.streaming.sinks.test_truth import write_film
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("session") / "bundle", steps=2)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


def opened(folder: Path, bundle: Bundle, decoder: AnyDecoder, **how: Any) -> ClipEmitter:
    prepare(folder / "out", overwrite=False)
    truth = Truth(folder / "truth", bundle)
    return open_emitter(folder / "out", "s", bundle, decoder, truth, time.monotonic, simulated=True, **how)


def job(index: int, revision: str = "final") -> Job:
    cut = window(index, revision, fmri=revision == "final", seed=index)
    now = time.monotonic()
    return Job(replace(cut, floor_at=now, stamps=dict.fromkeys(cut.stamps, now)), 2 * index)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "clips.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def session(folder: Path, bundle: Bundle, decoder: AnyDecoder) -> ClipEmitter:
    """Two windows with their previews, and their twins; the truth is known."""
    folder.mkdir()
    write_film(folder / "truth", 2)
    output = opened(folder, bundle, decoder, twin=True)
    for index in range(2):
        output.emit(job(index, "preview"))
        output.emit(job(index))
    output.judge()
    output.close()
    return output


def test_clips_film_and_records_are_the_same(shared: SharedDecoder, tmp_path: Path) -> None:
    bundle = shared.bundle
    session(tmp_path / "here", bundle, shared.session())
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        output = session(tmp_path / "there", bundle, decoder)
    assert output.runs_on == shared.runs_on
    assert output.tally.meter.summary()["wire"] is not None
    here, elsewhere = lines_of(tmp_path / "here"), lines_of(tmp_path / "there")
    assert len(here) == len(elsewhere) == 4
    for local, other in zip(here, elsewhere, strict=True):
        assert local["latency_ms"].pop("wire") is None
        assert other["latency_ms"].pop("wire") >= 0
        assert local["latency_ms"].keys() == other["latency_ms"].keys()
        for changing in ("latency_ms", "t_ms"):
            local.pop(changing)
            other.pop(changing)
        assert local == other
    films = [read_mp4(tmp_path / name / "out" / "film.mp4") for name in ("here", "there")]
    assert np.array_equal(*films)


def test_windows_without_a_decoder_are_skipped_and_counted(shared: SharedDecoder, tmp_path: Path) -> None:
    bundle = shared.bundle
    write_film(tmp_path / "truth", 3)
    with running(shared) as server:
        decoder = remote(shared, server)
        output = opened(tmp_path, bundle, decoder, twin=True)
        output.emit(job(0))
        output.settle()
        output.archive_next()
    output.emit(job(1), 0.01)
    with running(shared, port=server.port):
        output.emit(job(2))
        output.settle()
        output.archive_next()
    # Nobody is there to draw its twin.
    output.archive_next()
    output.judge()
    output.close()
    decoder.close()
    assert output.tally.counts["final"] == 2
    assert output.tally.counts["skipped"] == 1
    notes = output.notes()
    assert any("away since" in note for note in notes)
    assert any("answers again" in note for note in notes)
    assert any(note.startswith("the null-brain twin of final of window 2 is missing") for note in notes)
    assert [line["clip"] for line in lines_of(tmp_path)] == [0, 4]
