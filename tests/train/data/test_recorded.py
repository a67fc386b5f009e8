"""Recordings are placed on the time of the film: by markers where there are any, else by the run's zero."""

import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Manifest
from rtdecode.disk.film_marks import END, FilmMark, frame_label, start_label
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.errors import UsageError
from rtdecode.phantom.body.amplifier import montage
from rtdecode.phantom.body.scanner import head
from rtdecode.phantom.session import START_AT, PhantomSession
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.types import EegChunk, Trigger, Volume
from tests.refusals import refused
from train.data.chain import windows
from train.data.nodes import grid
from train.data.phantom import Participant, manifest
from train.data.recorded import film_starts, modalities, raw_bundle, read_recordings

TR = 0.8
SFREQ = 200
ZERO_AT = 500.0


@pytest.fixture(scope="module")
def draft() -> Manifest:
    times = grid(tr="4/5", window=4, hop=4, lag=4, sfreq=125, fps=8)
    return manifest(Participant(), times, EegBand(), Baseline(0, 0.005))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Sixteen seconds of film with EEG and volumes, one of them lost; marks as of a film 6 s older."""
    folder = tmp_path_factory.mktemp("recorded") / "session"
    session = PhantomSession("easy", 2, 3, 16, sfreq=SFREQ, spec="volume-drop@8")
    with RecordingWriter(folder, session.montage, {"simulated": True}) as writer:
        for item in session.events(chunk_s=1.0):
            writer.write(item)
    return Recording(folder)


def mark(folder: Path, onset_at: float, frames: int, name: str = "film.mp4") -> None:
    lines = [(onset_at, start_label(name, 8, frames))]
    lines += [(onset_at + n / 8, frame_label(n)) for n in range(frames)] + [(onset_at + frames / 8, END)]
    with (folder / "film.jsonl").open("w") as file:
        for stamp, label in lines:
            film_mark = FilmMark(stamp, label, stamp)
            entry = {"stamp": film_mark.stamp, "label": film_mark.label, "arrived_at": film_mark.stamp}
            file.write(json.dumps(entry) + "\n")


def eeg_recording(folder: Path, seconds: float, slope: float, pauses: tuple[float, ...] = ()) -> Recording:
    """EEG and triggers of a scanner whose clock is slow by `slope`; runs are separated by pauses."""
    cap = montage(SFREQ)
    data = np.random.default_rng(0).normal(0, 10, (64, SFREQ)).astype(np.float32)
    with RecordingWriter(folder, cap, {}) as writer:
        begin = ZERO_AT
        for length in (seconds, *pauses):
            triggers = begin + TR * (1 + slope) * np.arange(int(length / TR))
            for second in range(int(length) + 2):
                chunk_s = begin - 1 + second
                writer.write(EegChunk(data, chunk_s + np.arange(SFREQ) / SFREQ, chunk_s + 1))
                for stamp in triggers[(triggers >= chunk_s) & (triggers < chunk_s + 1)]:
                    writer.write(Trigger(float(stamp), "R128", float(stamp)))
            begin += length + 40
    return Recording(folder)


def cut(recording: Recording, draft: Manifest) -> list:
    return windows(raw_bundle(draft, None, None), recording.events(), recording.montage, ["eeg"])


def test_without_markers_the_film_begins_with_the_run(watched, draft):
    film_windows = read_recordings([watched], [16.0], ["film.mp4"], draft)
    assert film_windows.start_s.tolist() == [0, 4, 8, 12], "windows after the film are left out"
    assert film_windows.eeg is not None
    assert film_windows.eeg.data.shape == (4, 64, 500)
    assert film_windows.eeg.mask.all()


def test_volumes_keep_their_places_and_a_lost_one_leaves_a_hole(watched, draft):
    fmri = read_recordings([watched], [16.0], ["film.mp4"], draft).fmri
    assert fmri is not None
    np.testing.assert_allclose(fmri.slot_s, 4.4 + TR * np.arange(5))
    assert np.argwhere(fmri.rows < 0).tolist() == [[1, 0]]
    np.testing.assert_allclose(fmri.times[fmri.rows[2]], 8 + fmri.slot_s)
    assert np.isin(head(2).voxels, fmri.head.voxels).all()
    slots = fmri.slots(fmri.volumes[:, :3])
    np.testing.assert_allclose(slots[1, 0], slots[1, 1:].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(slots[2], fmri.volumes[fmri.rows[2], :3])


def test_markers_say_when_the_film_began(watched, draft):
    try:
        mark(watched.path, START_AT - 6, 22 * 8)
        film_windows = read_recordings([watched], [22.0], ["film.mp4"], draft)
        np.testing.assert_allclose(film_windows.start_s, [6, 10, 14, 18], atol=1e-6)
        assert film_windows.fmri is not None
        np.testing.assert_allclose(
            film_windows.fmri.times[film_windows.fmri.rows[0]], 10.4 + TR * np.arange(5), atol=1e-6
        )
        mark(watched.path, START_AT + 2, 8 * 8)
        short = read_recordings([watched], [8.0], ["film.mp4"], draft)
        np.testing.assert_allclose(short.start_s, [2], atol=1e-6)
    finally:
        (watched.path / "film.jsonl").unlink(missing_ok=True)


def test_the_scanners_clock_does_not_bend_the_films(draft, tmp_path):
    slope = 2e-4
    recording = eeg_recording(tmp_path / "slow", 120, slope)
    mark(recording.path, ZERO_AT + 1.5, 118 * 8)
    run_windows = cut(recording, draft)
    starts = film_starts(recording, run_windows, 118.0, "film.mp4")
    assert np.isnan(starts[0]), "before the film"
    run_s = np.array([window.start_s for window in run_windows])
    # Run time 4 k is ZERO_AT + 4 k (1 + slope) on the local clock, which is the film's; the slope is
    # known once there are 20 triggers.
    in_film = np.isfinite(starts) & (run_s > 20)
    assert in_film.sum() > 20
    np.testing.assert_allclose(starts[in_film], run_s[in_film] * (1 + slope) - 1.5, atol=2e-3)


def test_the_markers_of_the_named_film_count(draft, tmp_path):
    recording = eeg_recording(tmp_path / "two", 60, 0.0)
    mark(recording.path, ZERO_AT, 20 * 8, "trailer.mp4")
    first = (recording.path / "film.jsonl").read_text()
    mark(recording.path, ZERO_AT + 24, 30 * 8)
    second = (recording.path / "film.jsonl").read_text()
    (recording.path / "film.jsonl").write_text(first + second)
    starts = film_starts(recording, cut(recording, draft), 30.0, "film.mp4")
    np.testing.assert_allclose(starts[np.isfinite(starts)], np.arange(0, 25, 4.0), atol=1e-6)


def test_markers_of_another_film_are_refused_and_markers_without_a_name_taken(draft, tmp_path):
    recording = eeg_recording(tmp_path / "other", 30, 0.0)
    mark(recording.path, ZERO_AT, 28 * 8, "trailer.mp4")
    run_windows = cut(recording, draft)
    with refused(UsageError, "recording-film-mismatch", marked_films=1, film="film.mp4"):
        film_starts(recording, run_windows, 28.0, "film.mp4")
    starts = film_starts(recording, run_windows, 28.0, "trailer.mp4")
    assert np.isfinite(starts).any()
    marks = recording.path / "film.jsonl"
    marks.write_text("".join(marks.read_text().splitlines(keepends=True)[1:]))
    np.testing.assert_allclose(film_starts(recording, run_windows, 28.0, "film.mp4"), starts, atol=1e-6)


def test_a_film_is_known_by_its_names_digest_in_a_recording(draft, tmp_path):
    recording = eeg_recording(tmp_path / "plain", 30, 0.0)
    mark(recording.path, ZERO_AT, 28 * 8, "my  film.mp4")
    plain = recording.path / "film.jsonl"
    marks = [FilmMark(**json.loads(line)) for line in plain.read_text().splitlines()]
    anonymous = eeg_recording(tmp_path / "kept", 30, 0.0)
    with RecordingWriter(tmp_path / "marks", None, {}) as writer:
        for film_mark in marks:
            writer.write(film_mark)
    (tmp_path / "marks" / "film.jsonl").rename(anonymous.path / "film.jsonl")
    starts = film_starts(anonymous, cut(anonymous, draft), 28.0, "my film.mp4")
    assert np.isfinite(starts).any()
    with refused(UsageError, "recording-film-mismatch", film="another.mp4"):
        film_starts(anonymous, cut(anonymous, draft), 28.0, "another.mp4")


def test_a_name_with_wide_spaces_is_known_by_its_markers(draft, tmp_path):
    recording = eeg_recording(tmp_path / "spaces", 30, 0.0)
    mark(recording.path, ZERO_AT, 28 * 8, "my  film.mp4")
    assert np.isfinite(film_starts(recording, cut(recording, draft), 28.0, "my  film.mp4")).any()


@pytest.mark.parametrize(("late", "first"), [(0.02, 0.0), (0.12, 0.0), (0.13, np.nan)])
def test_the_first_window_may_begin_a_frame_before_the_films_zero(late, first, draft, tmp_path):
    recording = eeg_recording(tmp_path / "late", 30, 0.0)
    mark(recording.path, ZERO_AT + late, 24 * 8)
    starts = film_starts(recording, cut(recording, draft), 24.0, "film.mp4")
    np.testing.assert_allclose(starts[:2], [first, 4 - late], atol=1e-6)


def test_dummies_of_the_session_are_left_out(watched, draft):
    plain = read_recordings([watched], [16.0], ["film.mp4"], draft)
    watched.meta["dummies"] = 5
    try:
        film_windows = read_recordings([watched], [12.0], ["film.mp4"], draft)
    finally:
        del watched.meta["dummies"]
    # Five volumes of 0.8 s are one window.
    assert film_windows.start_s.tolist() == [0, 4, 8]
    assert film_windows.eeg is not None
    assert plain.eeg is not None
    np.testing.assert_array_equal(film_windows.eeg.data, plain.eeg.data[1:])


def test_several_runs_without_markers_are_refused(draft, tmp_path):
    recording = eeg_recording(tmp_path / "runs", 30, 0.0, (30,))
    with refused(UsageError, "recording-run-ambiguous", runs=2):
        film_starts(recording, cut(recording, draft), 30.0, "film.mp4")


def test_one_modality_is_enough_and_none_is_not(draft, tmp_path):
    alone = eeg_recording(tmp_path / "eeg", 30, 0.0)
    assert modalities([alone], draft) == ["eeg"]
    film_windows = read_recordings([alone], [30.0], ["film.mp4"], draft)
    assert film_windows.fmri is None
    assert len(film_windows) == 7
    session = PhantomSession("easy", 2, 3, 8, sfreq=SFREQ)
    with RecordingWriter(tmp_path / "fmri", None, {}) as writer:
        for item in session.events(chunk_s=1.0):
            if isinstance(item, Volume):
                writer.write(item)
    volumes = Recording(tmp_path / "fmri")
    assert modalities([volumes], draft) == ["fmri"]
    film_windows = read_recordings([volumes], [8.0], ["film.mp4"], draft)
    assert film_windows.eeg is None
    assert len(film_windows) == 2
    with refused(UsageError, "recordings-no-modality"):
        modalities([alone, volumes], draft)


def test_a_film_that_was_not_shown_has_no_window(watched, draft):
    with refused(UsageError, "recordings-outside-film"):
        read_recordings([watched], [3.0], ["film.mp4"], draft)
