"""The ceiling of a bundle that reads chosen voxels: what is driven among them counts, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.phantom.session import PhantomSession
from rtdecode.signal.volume.projection import Projection
from train.data.chain import draft_bundle, unit_statistics
from train.data.phantom import Participant
from train.data.simulated import SimulatedSessions
from train.judging.ceiling import fit_forward, likelihood, predicted_volumes
from train.recipe import build, read
from train.work import Arrays

WHO = Participant(shape=(48, 48, 30))
DRIVEN = 40
BESIDE = 15


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return WHO.session(3, 16.0)


def reading(session: PhantomSession, voxels: NDArray[np.int64]) -> Bundle:
    """Draft a bundle that reads these voxels, from their level at rest."""
    data = build(read("ridge", []).tree)["data"]
    assert isinstance(data, SimulatedSessions)
    place = session.head
    projection = Projection(voxels, place.shape, place.affine)
    draft = replace(data, who=WHO).manifest(projection)
    assert draft.fmri is not None
    assert draft.fmri.voxels == len(voxels)
    return draft_bundle(draft, unit_statistics(draft, place.mean.reshape(-1)[voxels]), projection)


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
    others = np.setdiff1d(session.head.brain, session.head.voxels)
    beside = others[:: len(others) // BESIDE][:BESIDE]
    every = np.sort(np.concatenate([driven, beside]))
    found = []
    for voxels in (driven, every):
        bundle = reading(session, voxels)
        given = inputs(session, bundle, voxels)
        forward = fit_forward(bundle, session, given)
        found.append((predicted_volumes(bundle, session), likelihood(forward, bundle, session, given)))
    for true, chosen in zip(*found, strict=True):
        np.testing.assert_allclose(chosen, true, rtol=1e-6, atol=1e-6)
    assert found[0][0].shape == (4, 5, DRIVEN)


def test_a_part_of_the_driven_voxels_is_predicted_as_among_all(session: PhantomSession) -> None:
    whole = predicted_volumes(reading(session, session.head.voxels), session)
    few = np.arange(5, len(session.head.voxels), 97)
    part = predicted_volumes(reading(session, session.head.voxels[few]), session)
    assert part.std() > 0
    np.testing.assert_allclose(part, whole[:, :, few], rtol=1e-6, atol=1e-6)
