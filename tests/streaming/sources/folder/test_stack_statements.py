"""Slices whose headers say the truth, nothing, or something wrong, in all combinations."""

import itertools
import random
from datetime import datetime, timedelta

import numpy as np
import pytest

from streaming.sources.folder.volume_assembler import Stacked, VolumeAssembler
from streaming.sources.formats.image import Counters, Plane
from tests.streaming.sources.planes import moments_at

SLICES = 5
TR_S = 2.0
START = datetime(2026, 1, 1, 12)
INSTANCES = {
    "instances": lambda volume, k: volume * SLICES + k + 1,
    "instances from 0": lambda volume, k: volume * SLICES + k,
    "instances anew": lambda volume, k: k + 1,
    "one instance": lambda volume, k: 9,
    "no instance": lambda volume, k: None,
}
ACQUISITIONS = {
    "acquisitions": lambda volume: volume + 1,
    "acquisitions of two": lambda volume: volume // 2 + 1,
    "one acquisition": lambda volume: 1,
    "no acquisition": lambda volume: None,
}
TIMES = {
    "times": lambda volume, k: TR_S * volume,
    "times of slices": lambda volume, k: TR_S * volume + 0.3 * k,
    "one time": lambda volume, k: 0.0,
    "no time": lambda volume, k: None,
}
TELLING = [
    (instances, acquisitions, times)
    for instances, acquisitions, times in itertools.product(INSTANCES, ACQUISITIONS, TIMES)
    if instances in ("instances", "instances from 0")
    or acquisitions == "acquisitions"
    or times in ("times", "times of slices")
]
SILENT = [header for header in itertools.product(INSTANCES, ACQUISITIONS, TIMES) if header not in TELLING]


def plane(volume: int, k: int, header: tuple[str, str, str], slices: int | None, numbered: bool) -> Plane:
    """Slice k of a volume, filled with 1000 * volume + k, with what its header says.

    With `numbered`, the vendor's number of the volume is the acquisition's, as Siemens' is.
    """
    instance = INSTANCES[header[0]](volume, k)
    acquisition = ACQUISITIONS[header[1]](volume)
    acquired_s = TIMES[header[2]](volume, k)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[2, 3] = 3 * k
    return Plane(
        data=np.full((4, 3), 1000 * volume + k, np.int16),
        affine=affine,
        normal_mm=3.0 * k,
        uid="1.2.3",
        series=4,
        number=acquisition - 1 if numbered and acquisition else None,
        instance=None if instance is None else instance - 1,
        slices=slices,
        tr_s=TR_S,
        acquired=None if acquired_s is None else START + timedelta(seconds=acquired_s),
        counters=Counters(instance, acquisition),
    )


def stacked(
    header: tuple[str, str, str], slices: int | None, numbered: bool, lost: tuple[int, int] | None = None
) -> tuple[list[Stacked], int]:
    """What four volumes give whose slices come in any order, and how many slices were refused."""
    chance = random.Random(str((header, slices, numbered)))
    stacks = VolumeAssembler()
    volumes: list[Stacked] = []
    pushed = 0
    for volume in range(4):
        volumes += stacks.overdue(TR_S * volume)
        for k in chance.sample(range(SLICES), SLICES):
            if (volume, k) == lost:
                continue
            pushed += 1
            volumes += stacks.push(
                plane(volume, k, header, slices, numbered), f"{volume}_{k}", moments_at(TR_S * volume)
            )
    volumes += stacks.drain()
    refused = [name for name, _ in stacks.refused()]
    names = refused + [name for stacked_volume in volumes for name in stacked_volume.names]
    assert len(names) == len(set(names)) == pushed, "a slice went twice, or without a word"
    return volumes, len(refused)


def is_one_volume(volume: Stacked) -> bool:
    places = volume.image.data[0, 0].astype(int)
    return len({place // 1000 for place in places[places % 1000 < SLICES]}) == 1


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("slices", [SLICES, None])
def test_what_tells_the_volumes_apart_is_found_among_what_does_not(slices, numbered):
    for header in TELLING:
        volumes, _ = stacked(header, slices, numbered)
        complete = [volume for volume in volumes if not volume.missing_slices]
        assert all(is_one_volume(volume) for volume in complete), header
        assert len(complete) == 4, header


@pytest.mark.parametrize("slices", [SLICES, None])
def test_where_nothing_tells_the_volumes_apart_no_two_are_mixed(slices):
    for header in SILENT:
        volumes, refused = stacked(header, slices, numbered=False)
        assert all(is_one_volume(volume) for volume in volumes), header
        if header[0] == "no instance":
            # Without any number they are taken in order.
            assert len(volumes) == 4
        else:
            assert len(volumes) <= 1
            assert refused >= 3 * SLICES


@pytest.mark.parametrize("lost", [(0, 2), (1, 0), (2, 4)])
def test_a_lost_slice_mixes_no_volumes(lost):
    for header in TELLING:
        if lost[0] == 0 and header[0] not in ("instances", "instances from 0"):
            # In a first volume nothing shows yet that the instances do not tell a slice of the next one.
            continue
        volumes, _ = stacked(header, SLICES, numbered=False, lost=lost)
        assert all(is_one_volume(volume) for volume in volumes if not volume.missing_slices), header
