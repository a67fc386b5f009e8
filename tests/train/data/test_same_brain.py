"""Two releases of one study: who is in both with other voxels, and who only watched the same films."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from tests.refusals import refused
from tests.train.data.layouts import released
from tests.train.data.test_several_sets import node, work
from train.data import several_sets
from train.data.same_brain import SAME_BRAIN, likeness, same_brain

# Windows of a segment. Those within 20 s of each other are not compared.
LENGTH = 32
SEGMENTS = {"train": 18, "test": 5}
STATES = 12
VOXELS = 500
# Shares of a voxel's variance: what the film drives in everybody, what it does not drive, and what is the
# voxel's alone.
SHARED = 0.2
UNDRIVEN = 0.4
NOISE = 0.4


@dataclass(frozen=True)
class Brains:
    """States of people who watched the same films in two showings, by person: (showing, window, state)."""

    states: Mapping[int, NDArray[np.float64]]

    def voxels(self, person: int, release: int, seed: int) -> NDArray[np.float64]:
        """Read a person in the voxels of a release, (showing, window, voxel)."""
        # The same place of two brains reads the same states.
        weights = released.rng(release).normal(0, 1, (STATES, VOXELS)) / STATES**0.5
        noise = released.rng(seed).normal(0, NOISE**0.5, (*self.states[person].shape[:2], VOXELS))
        return self.states[person] @ weights + noise


def brains(count: int, seed: int) -> Brains:
    draws = released.rng(seed)
    driven = _slow(draws.normal(0, 1, (1, count, STATES)))
    states = {
        person: SHARED**0.5 * driven + UNDRIVEN**0.5 * _slow(draws.normal(0, 1, (2, count, STATES)))
        for person in range(3)
    }
    return Brains(states)


def _slow(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Let every state last some windows, as a response does."""
    for window in range(1, values.shape[1]):
        values[:, window] += 0.5 * values[:, window - 1]
    return values / values.std(axis=1, keepdims=True)


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write both releases. Person 1 is in both: subject2 of MinD-Video and subj01 of NeuroClips."""
    monkeypatch.setattr(released, "LENGTH", LENGTH)
    first, second = (tmp_path / name for name in "AB")
    second.mkdir()
    released.mindvideo(first)
    released.neuroclips(second)
    for part, segments in SEGMENTS.items():
        people = brains(segments * LENGTH, segments)
        for person, number in ((0, 1), (1, 2)):
            mean = people.voxels(person, 1, 10 + person).mean(axis=0)
            np.save(first / f"fmri_{part}_subject{number}.npy", mean.reshape(segments, LENGTH, VOXELS))
        for person, number in ((1, 1), (2, 2)):
            showings = people.voxels(person, 2, 20 + person).swapaxes(0, 1).astype(np.float32)
            torch.save(torch.from_numpy(showings.copy()), second / f"subj0{number}_{part}_fmri.pt")
    return f"{first},{second}"


def test_people_who_watch_the_same_are_as_alike_as_real_ones() -> None:
    """Correlation of V1 between people, voxel by voxel and single trials: 0.1 to 0.3."""
    people = brains(18 * LENGTH, 18)
    values = [people.voxels(person, 1, person)[0] for person in (0, 1)]
    first, second = ((part - part.mean(axis=0)) / part.std(axis=0) for part in values)
    assert 0.1 < (first * second).mean() < 0.3


def test_a_participant_of_two_releases_is_refused(releases: str, tmp_path: Path) -> None:
    both = node(releases, "data.subject=A:subject2,B:subj01", "data.frames=6")
    # No bit is the same, and neither is the number of showings.
    several_sets.check_copies(both.participants(Path(releases)))
    with refused(
        UsageError,
        "data-participant-copied",
        first="subject2",
        second="subj01",
        second_folder=tmp_path / "B",
        explanation=re.compile(r"mindvideo, neuroclips.* study cc2017.* at 0\.9\d .* more than 0\.8"),
    ):
        both.check(work(releases, tmp_path))


def test_other_people_of_the_same_study_are_no_copies(releases: str, tmp_path: Path) -> None:
    for subjects in ("A:subject1,B:subj01", "A:subject1,B:subj02", "A:subject2,B:subj02"):
        both = node(releases, f"data.subject={subjects}", "data.frames=6")
        both.check(work(releases, tmp_path))
        for windows in both.participants(Path(releases)).values():
            (note,) = windows.study_notes
            assert "(mindvideo, neuroclips) hold the study cc2017" in note
            # What one of them holds out teaches in neither.
            tested, taught = (
                windows.data.windows.shown[rows] for rows in (windows.split.test, windows.split.train)
            )
            assert not {*tested.tolist()} & {*taught.tolist()}
        measured = same_brain(*both.participants(Path(releases)).values())
        assert measured is not None
        assert 0 < measured < 0.6


def test_a_few_windows_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released, "LENGTH", 8)
    (tmp_path / "B").mkdir()
    released.mindvideo(tmp_path / "A")
    released.neuroclips(tmp_path / "B")
    data = f"{tmp_path / 'A'},{tmp_path / 'B'}"
    both = node(data, "data.subject=A:subject1,B:subj01", "data.frames=6")
    both.check(work(data, tmp_path))
    notes = {note for windows in both.participants(Path(data)).values() for note in windows.study_notes}
    assert len(notes) == 1
    assert "too little of the same" in notes.pop()


@pytest.mark.full
def test_people_who_share_a_cortex_are_not_one_brain() -> None:
    """Participants of the simulation who watch one film, at TR 2 s."""
    sessions = [
        PhantomSession("easy", person, 990 + person, 200, tr_s=2.0, film_seed=991, cortex="shared")
        for person in (1, 2)
    ]
    values = [session.vectors()[4:].astype(np.float64) for session in sessions]
    half, other_half = np.array_split(released.rng().permutation(values[0].shape[1]), 2)
    assert likeness(values[0][:, half], values[0][:, other_half], 10) > 0.9 > SAME_BRAIN
    assert likeness(values[0][:, half], values[1][:, other_half], 10) < 0.7 < SAME_BRAIN
