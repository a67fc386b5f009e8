"""From windows to clips, film, twin and judgement, without processes."""

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.video import read_mp4
from rtdecode.errors import OutputError, RtDecodeError
from rtdecode.types import Window
from streaming.decode.deadline import Cost, Job, StepChooser
from streaming.decode.decoder import Decoded, Decoder
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.clips import ClipSink
from streaming.sinks.film import FilmSink
from streaming.sinks.session_folder import ARCHIVE, prepare
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.truth import Archive, Truth
from tests.refusals import refused
from tests.streaming.bundles import changed, make_bundle
from tests.streaming.sinks.test_truth import write_film
from tests.streaming.windows import window

FITTED = {"fitted_on": "a held-out run"}


Session = tuple[ClipEmitter, dict[str, Any], list[dict[str, Any]]]


class Clock:
    """A clock of which every reading is a millisecond later."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", steps=4, confidence=FITTED)


def session(bundle: Bundle, folder: Path, count: int, **how: Any) -> Session:
    """Decode windows 0 to `count` with their truth; returns it, the sections and the clips' lines."""
    write_film(folder / "truth", count)
    lefts = how.pop("lefts", {})
    output = opened(bundle, folder, **how)
    out = folder / "out"
    for k in range(count):
        output.emit(Job(window(k, seed=k), k), *([lefts[k]] if k in lefts else []))
    sections = output.judge()
    output.close()
    return output, sections, [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]


def test_a_window_that_gives_no_numbers_is_skipped_and_said(bundle: Bundle, tmp_path: Path) -> None:
    output = opened(bundle, tmp_path)
    bad = window(1)
    assert bad.fmri is not None
    bad.fmri[2, 3] = np.nan
    for work in (Job(window(0), 0), Job(bad, 1), Job(window(2), 2)):
        output.emit(work)
    output.close()
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [line["clip"] for line in lines] == [0, 2]
    assert output.tally.counts["skipped"] == 1
    (note,) = output.notes()
    assert "window 1 of run 0 has no clip" in note


def opened(bundle: Bundle, folder: Path, **how: Any) -> ClipEmitter:
    """An output into `folder`/out; the truth is what lies in `folder`/truth."""
    clock = Clock()
    out = folder / "out"
    prepare(out, overwrite=False)
    decoder = Decoder(bundle, clock, carry=how.pop("carry", True))
    options = {"simulated": True} | how
    return open_emitter(out, "s", bundle, decoder, Truth(folder / "truth", bundle), clock, **options)


def test_a_twin_is_shown_and_judged_but_is_no_clip(bundle: Bundle, tmp_path: Path) -> None:
    _, sections, lines = session(bundle, tmp_path, 3, twin=True)
    assert [line["revision"] for line in lines] == ["final"] * 3
    assert len(list((tmp_path / "out" / "clips").iterdir())) == 6
    baselines = sections["baselines"]
    assert baselines["mean_clip"]["identification_2way"]["value"] == 0
    assert baselines["null_brain"]["identification_2way"]["n"] == 3
    film = read_mp4(tmp_path / "out" / "film.mp4")
    assert film.shape == (3 * 32, 24 + 256 + 48, 3 * 384 + 2 * 8, 3)
    decoder = Decoder(bundle, carry=False)
    twin = decoder.decode(window(2), null=True).clip.frames
    middle, right = (film[2 * 32 + 10, 24:-48, column : column + 384] for column in (392, 784))
    assert off(right, twin[10]) < 6
    assert off(middle, twin[10]) > 12


def off(panel: np.ndarray, frame: np.ndarray) -> float:
    """Mean difference of an enlarged panel from a frame, grey levels."""
    small = panel.astype(float).reshape(64, 4, 96, 4, 3).mean((1, 3))
    return float(np.abs(small - frame).mean())


def test_less_time_gives_fewer_steps_and_each_is_counted(bundle: Bundle, tmp_path: Path) -> None:
    output, _, lines = session(bundle, tmp_path, 4, lefts={1: 0.0, 3: -2.0})
    assert [line["steps"] for line in lines] == [4, 1, 4, 1]
    assert output.tally.steps == {4: 2, 1: 2}


def test_a_known_truth_gives_curves_and_seams(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks at the film here, and it takes longer than all else.
    monkeypatch.setattr(FilmSink, "write", lambda *_, **__: None)
    _, sections, lines = session(bundle, tmp_path, 22)
    curve = sections["confidence"]["reliability"]
    assert curve["n"] == 22
    mean = sum(confidence_bin["n"] * confidence_bin["confidence"] for confidence_bin in curve["bins"]) / 22
    assert mean == pytest.approx(np.mean([line["confidence"] for line in lines]), abs=1e-5)
    risks = sections["confidence"]["risk_coverage"]
    won = sections["accuracy"]["identification_2way"]["value"]
    assert risks["risk"][-1] == pytest.approx(1 - won)
    with Image.open(tmp_path / "out" / "confidence.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    # Every window of this film begins with a shot.
    assert sections["seam"]["n"] == 0
    assert sections["seam"]["n_all"] == 21
    assert sections["seam"]["truth_all"] > 0


def test_few_clips_have_no_curves(bundle: Bundle, tmp_path: Path) -> None:
    _, sections, _ = session(bundle, tmp_path, 5)
    assert sections["confidence"] is None
    assert sections["accuracy"]["identification_2way"]["n"] == 5
    assert not (tmp_path / "out" / "confidence.png").exists()


def test_twins_that_are_not_shown_are_judged_all_the_same(bundle: Bundle, tmp_path: Path) -> None:
    _, sections, _ = session(bundle, tmp_path, 2)
    assert sections["baselines"]["null_brain"]["identification_2way"]["n"] == 2
    assert read_mp4(tmp_path / "out" / "film.mp4").shape[2] == 2 * 384 + 8


def test_a_twin_is_not_counted_in_what_a_clip_costs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[Cost] = []
    monkeypatch.setattr(StepChooser, "follow", lambda _, newest: costs.append(newest))
    (tmp_path / "bare").mkdir()
    bare = opened(bundle, tmp_path / "bare")
    bare.emit(Job(window(0), 0))
    bare.close()
    (tmp_path / "known").mkdir()
    session(bundle, tmp_path / "known", 1)
    assert len(costs) == 2
    assert costs[0] == costs[1]


@pytest.mark.parametrize("broken", ["film.mp4", "events.tsv"])
def test_a_truth_that_cannot_be_read_ends_nothing(broken: str, bundle: Bundle, tmp_path: Path) -> None:
    write_film(tmp_path / "truth", 2)
    (tmp_path / "truth" / broken).write_bytes(b"neither film nor table\n" * 100)
    output = opened(bundle, tmp_path)
    for k in range(2):
        output.emit(Job(window(k, seed=k), k))
    sections = output.judge()
    output.close()
    assert output.tally.counts["final"] == 2
    assert set(sections["accuracy"].values()) == {None}
    assert sections["baselines"] is None
    assert len(read_mp4(tmp_path / "out" / "film.mp4")) == 64


def test_film_and_twin_of_a_clip_are_made_later_and_in_order(bundle: Bundle, tmp_path: Path) -> None:
    write_film(tmp_path / "truth", 3)
    output = opened(bundle, tmp_path)
    output.emit(Job(window(0, seed=0), 0))
    output.skip(Job(window(1, seed=1), 1))
    output.emit(Job(window(2, seed=2), 2))
    output.settle()
    # The clips are out; nothing else is made of them yet.
    assert [line["clip"] for line in lines_of(tmp_path)] == [0, 2]
    assert output.unarchived == 3
    assert (tmp_path / "out" / ARCHIVE).stat().st_size == 0
    output.archive_next()
    assert output.unarchived == 2
    baselines = output.judge()["baselines"]
    assert output.unarchived == 0
    output.close()
    film = read_mp4(tmp_path / "out" / "film.mp4")
    assert len(film) == 3 * 32
    assert np.ptp(film[40, 100:200].astype(int), axis=(0, 1)).max() < np.ptp(film[10, 100:200].astype(int))
    # On a virtual clock it is made at once, and it is the same.
    (tmp_path / "again").mkdir()
    write_film(tmp_path / "again" / "truth", 3)
    replayed = opened(bundle, tmp_path / "again", live=False)
    replayed.emit(Job(window(0, seed=0), 0))
    replayed.skip(Job(window(1, seed=1), 1))
    replayed.emit(Job(window(2, seed=2), 2))
    # The newest is being written.
    assert replayed.unarchived == 0
    assert replayed.judge()["baselines"] == baselines
    replayed.close()
    assert (tmp_path / "again" / "out" / "film.mp4").read_bytes() == (
        tmp_path / "out" / "film.mp4"
    ).read_bytes()


def test_few_clips_wait_for_their_film(bundle: Bundle, tmp_path: Path) -> None:
    output = opened(bundle, tmp_path)
    for k in range(6):
        output.emit(Job(window(k), k))
    # The newest is being written.
    assert output.unarchived == 4
    # On a disk that is full nothing more can be written, and nothing is tried.
    output.leave_out()
    output.close()
    assert len(read_mp4(tmp_path / "out" / "film.mp4")) == 32
    assert len(lines_of(tmp_path)) == 6


def test_a_clip_is_written_while_the_next_window_is_decoded(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[int] = []
    decided: list[int] = []
    output = opened(
        bundle,
        tmp_path,
        on_emitted=lambda record, _: emitted.append(record["clip"]),
        on_decided=lambda job, *_: decided.append(job.clip),
    )
    next_window = threading.Event()
    decode = Decoder.decode
    save = ClipSink.save

    def decoding(decoder: Decoder, cut: Window, *arguments: Any, **options: Any) -> Decoded:
        if cut.index == 1:
            next_window.set()
        return decode(decoder, cut, *arguments, **options)

    def saving(clips: ClipSink, clip: int, *arguments: Any) -> str:
        # Would wait for ever if the next window waited for this clip.
        assert clip > 0 or next_window.wait(60)
        return save(clips, clip, *arguments)

    monkeypatch.setattr(Decoder, "decode", decoding)
    monkeypatch.setattr(ClipSink, "save", saving)
    for k in range(2):
        output.emit(Job(window(k), k))
    # What is told of a window waits for the clip before it.
    output.skip(Job(window(2), 2))
    assert emitted == [0, 1]
    assert decided == [0, 1, 2]
    assert output.tally.counts == {"final": 2, "skipped": 1}
    output.close()
    assert [line["clip"] for line in lines_of(tmp_path)] == [0, 1]


def test_a_clip_that_cannot_be_written_is_told_at_the_next_window(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = opened(bundle, tmp_path)
    save = ClipSink.save

    def saving(clips: ClipSink, clip: int, *arguments: Any) -> str:
        if clip == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(clips, clip, *arguments)

    monkeypatch.setattr(ClipSink, "save", saving)
    output.emit(Job(window(0), 0))
    output.emit(Job(window(1), 1))
    with refused(OutputError, "output-write-failed", error="No space left on device"):
        output.emit(Job(window(2), 2))
    assert output.tally.counts == {"final": 1}
    output.close()
    assert [line["clip"] for line in lines_of(tmp_path)] == [0]
    assert len(read_mp4(tmp_path / "out" / "film.mp4")) == 32


def test_a_file_that_cannot_be_closed_leaves_the_others_whole(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Archive.close

    def full(archive: Archive) -> None:
        close(archive)
        raise OSError(errno.ENOSPC, "No space left on device")

    output = opened(bundle, tmp_path)
    output.emit(Job(window(0), 0))
    output.settle()
    output.archive_next()
    monkeypatch.setattr(Archive, "close", full)
    with refused(RtDecodeError, "output-write-failed", error="No space left on device"):
        output.close()
    files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert [file for file in files if file.startswith(str(tmp_path / "out"))] == []
    assert len(read_mp4(tmp_path / "out" / "film.mp4")) == 32
    assert (tmp_path / "out" / "contact_sheet.png").is_file()


def test_a_source_may_say_on_the_way_that_the_participant_is_simulated(tmp_path: Path) -> None:
    real = make_bundle(tmp_path / "bundle", simulated=False)
    output = opened(real, tmp_path, simulated=False)
    output.emit(Job(window(0), 0))
    output.settle()
    output.archive_next()
    output.mark_simulated()
    output.emit(Job(window(1), 1))
    output.close()
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    assert [line["simulated"] for line in lines] == [False, True]
    assert ["simulated" in line["file"] for line in lines] == [False, True]
    caption = read_mp4(tmp_path / "out" / "film.mp4").astype(int)[:, -20:]
    assert np.abs(caption[40] - caption[0]).max() > 60


def test_every_clip_of_a_bundle_that_was_trained_offline_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal = make_bundle(tmp_path / "causal", simulated=False)
    offline = changed(causal, tmp_path / "offline", chain="offline")
    captions: list[str] = []
    write = FilmSink.write

    def writing(film: FilmSink, *args: Any, **how: Any) -> None:
        captions.append(film.note)
        write(film, *args, **how)

    monkeypatch.setattr(FilmSink, "write", writing)
    output = opened(offline, tmp_path, simulated=False)
    output.emit(Job(window(0), 0))
    output.close()
    assert [line["chain"] for line in lines_of(tmp_path)] == ["offline"]
    assert captions == ["random weights, TRAINED OFFLINE"]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "clips.jsonl").read_text().splitlines()]


def orange(frame: np.ndarray) -> int:
    """Pixels of a film frame's title bar in the colour of a warning."""
    title = frame[:24].astype(int)
    return int((title[..., 0] - title[..., 2] > 60).sum())


def test_a_clip_is_late_more_than_a_hop_after_its_floor(bundle: Bundle, tmp_path: Path) -> None:
    output = opened(bundle, tmp_path)
    # The clock stands at 100 s, a floor lies 0.01 s before the cut, and the hop is 4 s.
    output.emit(Job(window(0, windowed_at=97.0), 0))
    output.emit(Job(window(1, windowed_at=95.0), 1))
    output.emit(Job(window(2, "preview", windowed_at=95.0), 2))
    output.close()
    lines = lines_of(tmp_path)
    assert [line["late"] for line in lines] == [False, True, True]
    assert [line["t_ms"]["emitted"] > 4000 for line in lines] == [False, True, True]
    assert output.tally.counts["late"] == 2
    film = read_mp4(tmp_path / "out" / "film.mp4")
    assert orange(film[16]) == 0
    assert orange(film[48]) > 200


def test_nothing_is_late_on_a_virtual_clock(bundle: Bundle, tmp_path: Path) -> None:
    output = opened(bundle, tmp_path, live=False)
    output.emit(Job(window(0, windowed_at=10.0), 0))
    output.close()
    assert [line["late"] for line in lines_of(tmp_path)] == [False]


@pytest.mark.parametrize(
    ("modalities", "eeg", "degraded"),
    [(["fmri"], False, 0), (["eeg", "fmri"], False, 1), (None, False, 1), (["eeg"], True, 0)],
)
def test_a_modality_that_was_not_asked_for_is_not_missed(
    bundle: Bundle, tmp_path: Path, modalities: list[str] | None, eeg: bool, degraded: int
) -> None:
    output = opened(bundle, tmp_path, modalities=modalities)
    output.emit(Job(window(0, eeg=eeg, fmri=not eeg), 0))
    output.close()
    assert output.tally.counts["degraded"] == degraded
    assert output.tally.newest is not None
    assert output.tally.newest.marks == ["degraded"] * degraded


def test_the_likeliest_category_is_named_in_film_and_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = make_bundle(tmp_path / "bundle", labels=["face", "house", "chair"])
    output = opened(labelled, tmp_path)
    captions: list[str] = []
    labels: list[str] = []
    write = FilmSink.write
    add = ContactSheet.add
    monkeypatch.setattr(
        FilmSink, "write", lambda *args, **how: (captions.append(how["category"]), write(*args, **how))
    )
    monkeypatch.setattr(
        ContactSheet, "add", lambda sheet, label, *args: (labels.append(label), add(sheet, label, *args))
    )
    output.emit(Job(window(0), 0))
    output.close()
    (line,) = lines_of(tmp_path)
    label = max(line["scores"], key=line["scores"].get)
    category = f"{label} {line['scores'][label]:.2f}"
    assert captions == [category]
    assert labels == [f"window 0   {category}"]
    assert output.tally.categories() == [f"final of window 0: {category}"]
    assert output.tally.categories() == []
