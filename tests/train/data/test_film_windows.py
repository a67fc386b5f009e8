"""Films in the windows of any grid: what the participant saw at each instant, and nothing else."""

from typing import Any

import numpy as np
import pytest

from rtdecode.bundle import Manifest
from rtdecode.disk import clip_file
from rtdecode.disk.clip_file import StoredClip
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import watched
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from tests.refusals import refused
from train.data import nodes
from train.data.film_windows import clip_cuts, count_windows, film_clips, on_grid
from train.data.phantom import Participant, events, manifest

USUAL: dict[str, Any] = {"tr": 2, "window": 2, "hop": 2, "lag": 4, "sfreq": 125, "fps": 3}


def draft(**changes: Any) -> Manifest:
    return manifest(Participant(), nodes.grid(**(USUAL | changes)), EegBand(), Baseline())


def test_the_film_on_its_own_grid_is_the_film() -> None:
    film = watched("shapes", 12.0, 3, "free")
    usual = draft(tr="4/5", window=4, hop=4, fps=8)
    np.testing.assert_array_equal(film_clips(film, usual), film_clips(film))
    assert on_grid(film, usual) is film


def test_each_frame_is_the_one_that_is_on() -> None:
    film = watched("shapes", 12.5, 3, "free")
    clips = film_clips(film, draft())
    assert clips.shape == (6, 6, 64, 96, 3)
    instants = [int((2 * window + n / 3) * 8 + 1e-9) for window in range(6) for n in range(6)]
    np.testing.assert_array_equal(clips.reshape(36, 64, 96, 3), film.frames[instants])


def test_windows_may_overlap_and_have_the_frame_after_them() -> None:
    film = watched("shapes", 12.0, 3, "free")
    overlapping = draft(window=4, hop=1, fps=8)
    assert count_windows(film, overlapping.grid) == 9
    clips = film_clips(film, overlapping)
    np.testing.assert_array_equal(clips[3, :32], film.frames[24:56])
    # What is beyond the window may lie behind a cut.
    np.testing.assert_array_equal(clips[:, 32], clips[:, 31])
    with refused(UsageError, "film-windows-not-adjacent", window_s=4.0, hop_s=1.0):
        on_grid(film, overlapping)


def test_a_large_film_on_disk_has_the_same_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    film = watched("natural", 8.0, 3, "grid")
    larger = draft(size=[96, 144])
    clips = film_clips(film, larger)
    monkeypatch.setattr(clip_file, "IN_MEMORY", 1000)
    np.testing.assert_array_equal(film_clips(film, larger), clips)
    on_windows = on_grid(film, larger)
    assert isinstance(on_windows.frames, StoredClip)
    for k, clip in enumerate(clips):
        # The film's own clips have the frame after the window.
        np.testing.assert_array_equal(on_windows.clip(k)[: len(clip)], clip)


def test_shots_begin_where_they_begin_in_the_film() -> None:
    film = watched("shapes", 40.0, 5, "free")
    manifest_of_six = draft()
    on_windows = on_grid(film, manifest_of_six)
    assert (on_windows.windows, on_windows.fps) == (20, 3)
    assert len(on_windows.cut_frames) == len(film.cut_frames)
    shots, film_shots = (events({0: shot})[0] for shot in (on_windows, film))
    for shot, film_shot in zip(shots, film_shots, strict=True):
        assert 0 <= shot.onset_s - film_shot.onset_s < 1 / 3
    cuts = np.flatnonzero(clip_cuts(film, manifest_of_six).ravel())
    assert cuts.tolist() == [cut for cut in on_windows.cut_frames if cut < 120]
    np.testing.assert_array_equal(on_windows.clip(2)[:6], film_clips(film, manifest_of_six)[2])


def test_a_film_is_drawn_in_the_size_of_the_grid() -> None:
    film = watched("natural", 4.0, 3, "grid")
    clips = film_clips(film, draft(size=[128, 192], fps=8))
    assert clips.shape == (2, 17, 128, 192, 3)
    coarse = clips[:, :16].reshape(2, 16, 64, 2, 96, 2, 3).mean((3, 5))
    assert np.abs(coarse - film.frames.reshape(2, 16, 64, 96, 3)).mean() < 8
