"""The voxels that are read: nearly all of those that are chosen are driven by the film."""

import numpy as np
import pytest

from train.config.run_context import Arrays
from train.data.film_stages import all_clips
from train.data.phantom import Participant
from train.data.simulated import Showing
from train.data.voxel_choice import find_voxels
from train.parts.codecs.fitted_patch import fit_codec

WHO = Participant(shape=(48, 48, 30))
COUNT = 150


@pytest.fixture(scope="module")
def showings() -> list[Showing]:
    return [Showing(f"shapes-{seed}", f"shapes-{seed}", WHO, seed, 48.0, "shapes") for seed in range(3)]


@pytest.fixture(scope="module")
def chosen(showings: list[Showing]) -> Arrays:
    return find_voxels(fit_codec(all_clips(showings[:1]), 8, 0.5), showings, COUNT, 4.0)


def test_nearly_all_chosen_voxels_are_driven_and_none_is_told(
    chosen: Arrays, showings: list[Showing]
) -> None:
    head = showings[0].session().head
    assert len(chosen["voxels"]) == COUNT
    assert (np.diff(chosen["voxels"]) > 0).all()
    # By chance few would be: of the whole head, a small part follows the film.
    assert len(head.voxels) < 0.2 * len(head.brain)
    assert np.isin(chosen["voxels"], head.voxels).mean() > 0.9
    assert chosen["explained"].min() > 0


def test_the_projection_reads_them_and_the_level_is_that_of_the_head(
    chosen: Arrays, showings: list[Showing]
) -> None:
    session = showings[0].session()
    projection = showings[0].projection(chosen["voxels"])
    assert projection.shape == WHO.shape
    np.testing.assert_array_equal(projection.voxels, chosen["voxels"])
    baseline = session.head.mean.reshape(-1)[chosen["voxels"]]
    np.testing.assert_allclose(chosen["level"], baseline, rtol=0.05)
