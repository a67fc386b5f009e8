"""A recipe whose participant has a cortex that others share: its keys, its voxels, and its regions."""

from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.cortex import regions
from tests.refusals import refused
from train.config.recipe import build, check, read
from train.config.run_context import RunContext
from train.data.phantom import Participant, participant, resting_level
from train.data.simulated import Showing


@pytest.mark.parametrize("recipe", ["ridge", "compact"])
def test_what_a_recipe_does_not_say_of_the_cortex_leaves_its_digest(recipe: str) -> None:
    plain = read(recipe, [])
    assert "cortex" not in plain.values["arguments"]["data"]["who"]
    assert read(recipe, ["data.who.cortex=mixed"]).digest == plain.digest
    shared = read(recipe, ["data.who.cortex=shared"])
    check(shared)
    v1 = read(recipe, ["data.who.cortex=shared", "data.who.region=V1"])
    assert len({plain.digest, shared.digest, v1.digest}) == 3


def test_a_recipe_reads_the_region_that_it_names(tmp_path: Path) -> None:
    data = build(read("ridge", ["data.who.cortex=shared", "data.who.region=V1"]).tree)["data"]
    session = data.who.session(3, 4.0)
    assert session.cortex == "shared"
    v1 = session.head.voxels[regions()["V1"]]
    assert np.array_equal(data.who.projection().voxels, v1)
    assert data.manifest().fmri.voxels == len(v1)
    work = RunContext(None, 0, tmp_path)
    level = resting_level(work, data.who, 3, 4.0)
    assert np.allclose(level, session.vectors()[:, regions()["V1"]].mean(axis=0))
    # Where voxels are chosen, they are chosen from the region.
    chosen = Showing("3", "3", data.who, 3, 4.0).volumes().voxels
    assert len(chosen) > 0
    assert np.isin(chosen, v1).all()
    participant_words = data.provenance(work)["participant"]
    assert participant_words == "simulated, preset easy, subject 1, shared cortex, V1 alone"


def test_the_voxels_of_two_participants_come_in_the_order_of_the_same_vertices() -> None:
    first, second = (Participant(subject=number, cortex="shared") for number in (1, 2))
    assert not np.array_equal(first.projection().voxels, second.projection().voxels)
    assert len(first.projection().voxels) == len(regions()["V1"])
    assert np.flatnonzero(regions()["V1"])[-1] < np.flatnonzero(regions()["V2"])[0]


def test_several_regions_are_read_together() -> None:
    who = participant("easy", 1, cortex="shared", region="V1+V2")
    assert who.read.tolist() == (regions()["V1"] | regions()["V2"]).tolist()


def test_a_region_that_is_not_there_is_refused() -> None:
    with refused(UsageError, "participant-region-unknown", region="V1+A1", unknown=["'A1'"]):
        participant("easy", 1, cortex="shared", region="V1+A1")
    with refused(UsageError, "participant-region-unknown", region="V1", cortex="mixed", available=[]):
        participant("easy", 1, region="V1")
    with refused(UsageError, "participant-region-unknown", region="A1", cortex="shared"):
        participant("easy", 1, cortex="shared", region="A1")
    with refused(UsageError, "phantom-cortex-unknown", option="data.who.cortex", cortex="smooth"):
        participant("easy", 1, cortex="smooth")
