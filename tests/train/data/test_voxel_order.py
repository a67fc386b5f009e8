"""Voxels stand by the areas of the visual hierarchy where these are known, and a bundle says which it is."""

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.data.phantom import participant
from train.data.voxel_order import check_order, ordered

VOXELS = np.array([3, 5, 8, 9, 12, 20])
AREAS = {
    "visual": np.array([3, 5, 8, 9]),
    "V2v": np.array([12, 3]),
    "V1": np.array([9, 4]),
    "V2d": np.array([8]),
    "V3A": np.array([20, 12]),
}


def test_early_areas_come_first_and_voxels_of_none_last() -> None:
    places, sentence = ordered("hierarchy", np.append(VOXELS, 2), AREAS, 0)
    # V1, V2d, V2v, then visual and V3A as they are listed; voxel 2 lies in none.
    assert np.append(VOXELS, 2)[places].tolist() == [9, 8, 12, 3, 5, 20, 2]
    assert sentence == "by areas: V1, V2d, V2v, then others"


@pytest.mark.parametrize("areas", [{}, {"visual": AREAS["visual"], "V3A": AREAS["V3A"]}])
def test_without_early_areas_they_stand_as_they_are_stored(areas: dict) -> None:
    places, sentence = ordered("hierarchy", VOXELS, areas, 0)
    assert VOXELS[places].tolist() == VOXELS.tolist()
    assert sentence == "as stored"
    assert ordered("stored", VOXELS, AREAS, 0)[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_shuffled_order_is_that_of_its_seed() -> None:
    orders = [ordered("shuffled", VOXELS, AREAS, seed)[0].tolist() for seed in (0, 0, 1)]
    assert sorted(orders[0]) == [0, 1, 2, 3, 4, 5]
    assert orders[0] == orders[1] != orders[2]


def test_areas_of_the_simulated_participant_are_known_on_a_shared_cortex() -> None:
    areas = participant("easy", 1, cortex="shared").areas()
    assert [*areas][:4] == ["V1", "V2", "V3", "V4"]
    voxels = participant("easy", 1, cortex="shared").projection().voxels
    places, sentence = ordered("hierarchy", np.sort(voxels), areas, 0)
    assert np.sort(voxels)[places].tolist() == voxels.tolist()
    assert sentence.startswith("by areas: V1, V2, V3, V4")
    assert participant("easy", 1).areas() == {}


def test_an_order_that_there_is_not_is_refused() -> None:
    with refused(UsageError, "voxel-order-unknown", order="size"):
        check_order("size")
