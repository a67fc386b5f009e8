"""The ceiling of a bundle: of the voxels that it reads, on the grid of its windows, by what it reads."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.accuracy import identification_nway
from rtdecode.signal.volume.projection import Projection
from rtdecode.timing import TimingGrid, exact
from train.config.recipe import build, read
from train.config.run_context import Arrays
from train.data.chain import draft_bundle, unit_statistics
from train.data.phantom import Participant, session_arrays
from train.data.simulated import SimulatedSessions
from train.evaluation.ceiling import fit_forward, likelihood, predicted_volumes, volume_offsets

WHO = Participant(shape=(48, 48, 30))
DRIVEN = 40
UNDRIVEN = 15


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return WHO.session(3, 16.0)


def reading(
    session: PhantomSession, voxels: NDArray[np.int64], grid: TimingGrid | None = None, absent: str = ""
) -> Bundle:
    """Draft a bundle that reads these voxels, from their level at rest, on a grid, without a modality."""
    data = build(read("ridge", []).tree)["data"]
    assert isinstance(data, SimulatedSessions)
    place = session.head
    projection = Projection(voxels, place.shape, place.affine)
    draft = replace(data, who=WHO).manifest(projection)
    assert draft.fmri is not None
    assert draft.fmri.voxels == len(voxels)
    draft = replace(draft, grid=grid or draft.grid, **({absent: None} if absent else {}))
    stats = unit_statistics(draft, place.mean.reshape(-1)[voxels])
    return draft_bundle(draft, stats, None if absent == "fmri" else projection)


def inputs(session: PhantomSession, bundle: Bundle, columns: NDArray[np.int64]) -> Arrays:
    """Windows that hold noise, the same for the same columns."""
    rng = np.random.default_rng(0)
    grid = bundle.manifest.grid
    count = session.film.windows
    assert bundle.manifest.eeg is not None
    channels = len(bundle.manifest.eeg.channels)
    fmri = rng.normal(size=(count, grid.slots, len(session.head.mean.reshape(-1))))[:, :, columns]
    eeg = rng.normal(size=(count, channels, grid.samples))
    return {"eeg": eeg.astype(np.float32), "fmri": fmri.astype(np.float32)}


def test_voxels_that_no_film_drives_change_nothing(session: PhantomSession) -> None:
    driven = session.head.voxels[:: len(session.head.voxels) // DRIVEN][:DRIVEN]
    undriven = np.setdiff1d(session.head.brain, session.head.voxels)
    chosen_undriven = undriven[:: len(undriven) // UNDRIVEN][:UNDRIVEN]
    driven_and_undriven = np.sort(np.concatenate([driven, chosen_undriven]))
    fits = []
    for voxels in (driven, driven_and_undriven):
        bundle = reading(session, voxels)
        signals = inputs(session, bundle, voxels)
        forward = fit_forward(bundle, session, signals)
        fits.append((predicted_volumes(bundle, session), likelihood(forward, bundle, session, signals)))
    for true, chosen in zip(*fits, strict=True):
        np.testing.assert_allclose(chosen, true, rtol=1e-6, atol=1e-6)
    assert fits[0][0].shape == (4, 5, DRIVEN)


def test_noise_that_neighbours_share_is_known_to_the_ceiling() -> None:
    session = replace(WHO, cortex="shared").session(3, 40.0)
    voxels = session.head.voxels[:400]
    bundle = reading(session, voxels)
    arrays = session_arrays(bundle, session)
    density = likelihood(fit_forward(bundle, session, arrays), bundle, session, arrays)
    assert np.array_equal(density.argmax(axis=1), np.arange(session.film.windows))


def test_a_part_of_the_driven_voxels_is_predicted_as_among_all(session: PhantomSession) -> None:
    all_driven = predicted_volumes(reading(session, session.head.voxels), session)
    subset = np.arange(5, len(session.head.voxels), 97)
    part = predicted_volumes(reading(session, session.head.voxels[subset]), session)
    assert part.std() > 0
    np.testing.assert_allclose(part, all_driven[:, :, subset], rtol=1e-6, atol=1e-6)


def on_grid(tr: float, window: float, after: int) -> TimingGrid:
    length = exact(window)
    return TimingGrid(exact(tr), exact(125), length, length, lag=exact(4), fps=exact(8), after=after)


def watched(tr: float, seed: int, seconds: float = 36.0) -> PhantomSession:
    return PhantomSession("easy", seed=seed, seconds=seconds, sfreq=250, shape=WHO.shape, tr_s=tr)


def identified(bundle: Bundle, tr: float) -> float:
    """Share of pairs of windows that are told apart by who knows the simulator."""
    other, judged = (watched(tr, seed) for seed in (8, 9))
    forward = fit_forward(bundle, other, session_arrays(bundle, other))
    likely = likelihood(forward, bundle, judged, session_arrays(bundle, judged))
    return float(identification_nway(likely, ~np.eye(len(likely), dtype=bool), 2).mean())


@pytest.mark.parametrize(
    ("tr", "window", "after", "absent"),
    [
        (2.0, 2.0, 1, "eeg"),
        (0.8, 4.0, 0, "fmri"),
        pytest.param(1.75, 3.0, 0, "eeg", marks=pytest.mark.full),
    ],
)
def test_windows_are_told_apart_on_any_grid_by_one_modality(
    tr: float, window: float, after: int, absent: str
) -> None:
    place = watched(tr, 8).head
    bundle = reading(watched(tr, 8), place.voxels[::20], on_grid(tr, window, after), absent)
    assert identified(bundle, tr) > 0.9


def test_look_ahead_is_read_too() -> None:
    session = watched(2.0, 8, 24.0)
    voxels = session.head.voxels[::97]
    near, far = (
        predicted_volumes(reading(session, voxels, on_grid(2.0, 2.0, after), "eeg"), session)
        for after in (0, 2)
    )
    # The scan ends 8 s after the film.
    assert near.shape == (12, 1, len(voxels))
    assert far.shape == (12, 3, len(voxels))
    np.testing.assert_array_equal(far[:, 0], near[:, 0])
    np.testing.assert_array_equal(far[:-2, 2], near[2:, 0])


def test_candidates_are_predicted_for_the_instants_of_the_window_in_question() -> None:
    """Of windows of 3 s at TR 1.75 s some have two volumes and some have one, elsewhere in each."""
    session = watched(1.75, 8, 42.0)
    grid = on_grid(1.75, 3.0, 0)
    bundle = reading(session, session.head.voxels[::97], grid, "eeg")
    predictions = {k: predicted_volumes(bundle, session, volume_offsets(grid, k)) for k in range(7)}
    assert {len(grid.volumes(k)) for k in predictions} == {1, 2}
    # After 21 s, 12 volumes, the windows lie as before.
    assert volume_offsets(grid, 2) == volume_offsets(grid, 9)
    for k, predicted in predictions.items():
        assert predicted.shape[:2] == (14, len(grid.volumes(k)))
    # What is read 1.75 s later in window 0 is the next volume; a little later it is a little on.
    first, *_ = volume_offsets(grid, 0)
    first_volume, soon, next_volume = (
        predicted_volumes(bundle, session, (first + Fraction(step) * Fraction(7, 4),))[0, 0]
        for step in ("0", "1/2", "1")
    )
    np.testing.assert_array_equal(predictions[0][0, 0], first_volume)
    np.testing.assert_array_equal(predictions[0][0, 1], next_volume)
    between = np.linalg.norm(soon - (first_volume + next_volume) / 2)
    assert between < 0.3 * np.linalg.norm(next_volume - first_volume)
