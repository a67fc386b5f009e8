"""Volumes that are no measurement: marked, filled in, and never remembered."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from rtdecode.errors import GeometryError
from rtdecode.types import EegChunk, Montage, Trigger, Volume, Window
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.run import Run
from tests import small
from tests.refusals import refused
from tests.rtdecode.windows.test_assembler import ZERO, finals, looking, same, session

# Of TR 0.8 s; window 1 (4 to 8 s) reads volumes 10 to 14, window 2 volumes 15 to 19.
HIT = 12
READ = [1, 5, 9, 14, 23]


def changed(items: list, make, indices: tuple[int, ...] = (HIT,)) -> list:
    """The same items with the pixels of some volumes made anew from the old ones."""
    return [
        replace(item, data=make(item.data.copy()))
        if isinstance(item, Volume) and item.index in indices
        else item
        for item in items
    ]


def played(items: list, seconds: float = 16) -> tuple[list[Window], Assembler]:
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), seconds)
    return finals(list(assembler.play(items))), assembler


@cache
def undisturbed() -> list[Window]:
    return played(session())[0]


def with_voxels(places: list[int], value: float):
    def make(data: np.ndarray) -> np.ndarray:
        data.reshape(-1)[places] = value
        return data

    return make


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 1e6])
def test_voxels_that_are_no_measurement_lie_at_their_resting_level(value: float) -> None:
    clean = undisturbed()
    windows, assembler = played(changed(session(), with_voxels(READ[:2], value)))
    assert windows[1].missing["fmri"] == pytest.approx(2 / 5 / 5)
    assert [w.missing["fmri"] for w in (windows[0], *windows[2:])] == [0, 0, 0]
    assert windows[1].fmri is not None
    assert clean[1].fmri is not None
    # 10 is the window's first volume; the others of the hit volume are as they were.
    assert (windows[1].fmri[HIT - 10, :2] == 0).all()
    assert np.array_equal(windows[1].fmri[HIT - 10, 2:], clean[1].fmri[HIT - 10, 2:])
    assert np.array_equal(windows[1].fmri[:2], clean[1].fmri[:2])
    assert windows[2].fmri == pytest.approx(clean[2].fmri, abs=0.1)
    (note,) = assembler.notes()
    assert "volume 12" in note
    assert assembler.counters()["fmri"]["nonfinite_voxels"] == (0 if value == 1e6 else 2)


BAD_VOLUMES = {
    "zero": lambda data: np.zeros_like(data),
    "constant": lambda data: np.full_like(data, 517.0),
    "nan": lambda data: np.full_like(data, np.nan),
    "most of it nan": with_voxels(READ[:3], np.nan),
    "another unit": lambda data: data * 1e-3,
    "integers": lambda data: np.zeros(data.shape, np.int16),
}


@pytest.mark.parametrize("kind", BAD_VOLUMES)
def test_a_volume_that_is_none_is_a_hole_that_no_window_waits_for(kind: str) -> None:
    clean = undisturbed()
    windows, assembler = played(changed(session(), BAD_VOLUMES[kind], (HIT, HIT + 1)))
    assert windows[1].missing["fmri"] == pytest.approx(2 / 5)
    assert windows[1].floor_at == clean[1].floor_at
    assert windows[1].fmri_mask.tolist() == [True, True, False, False, True]
    assert same(windows[0], clean[0])
    assert windows[2].missing["fmri"] == 0
    assert windows[2].fmri == pytest.approx(clean[2].fmri, abs=0.2)
    (note,) = assembler.notes()
    assert "volume 12 counts as missing" in note
    assert assembler.counters()["fmri"]["implausible"] == 2


@pytest.mark.parametrize("level", [0.0024, -0.0024])
def test_z_scores_pass_whatever_the_sign_of_their_mean(level: float) -> None:
    windows, assembler = played_centred(session_of_z_scores(), level)
    assert [window.missing["fmri"] for window in windows] == [0, 0, 0, 0]
    assert assembler.notes() == []
    values = assembler.counters()["fmri"]["values"]
    assert values.endswith("their standard deviation was 1.1")


def test_a_voxel_beyond_all_z_scores_is_a_hole_of_its_volume() -> None:
    windows, assembler = played_centred(changed(session_of_z_scores(), with_voxels(READ[:1], 40.0)), 0.0024)
    assert windows[1].missing["fmri"] == pytest.approx(1 / 5 / 5)
    assert [w.missing["fmri"] for w in (windows[0], *windows[2:])] == [0, 0, 0]
    (note,) = assembler.notes()
    assert "volume 12" in note


def test_raw_volumes_are_none_where_training_had_z_scores() -> None:
    windows, assembler = played_centred(session(), -0.0024)
    assert [window.missing["fmri"] for window in windows] == [1, 1, 1, 1]
    (note,) = assembler.notes()
    assert "prepare the volumes as those of the training were" in note
    assert assembler.counters()["fmri"]["implausible"] == assembler.counters()["fmri"]["volumes"]


def session_of_z_scores() -> list:
    return [
        replace(item, data=np.float32((np.asarray(item.data) - 100) / 4))
        if isinstance(item, Volume)
        else item
        for item in session()
    ]


def played_centred(items: list, level: float) -> tuple[list[Window], Assembler]:
    """Play a session to a bundle that was trained on z-scores."""
    bundle = small.bundle()
    bundle.stats["fmri_mean"][:] = level
    bundle.stats["fmri_scale"][:] = 1.1
    assembler = Assembler(bundle, small.montage(), ("eeg", "fmri"), 16)
    return finals(list(assembler.play(items))), assembler


def test_voxels_that_no_feature_reads_cost_nothing() -> None:
    clean = undisturbed()
    windows, assembler = played(changed(session(), with_voxels([0, 2], np.nan), tuple(range(37))))
    assert all(same(a, b) for a, b in zip(windows, clean, strict=True))
    assert assembler.notes() == []
    assert assembler.counters()["fmri"]["nonfinite_voxels"] == 74


def test_a_hole_in_the_first_volume_does_not_become_the_resting_level() -> None:
    run = Run(0, looking(0, 0, lag=0), 0, 0, fmri=True)
    for volume in changed(small.volumes(3, ZERO), with_voxels(READ[:1], np.nan), (0,)):
        run.add(volume, None)
    features = run.volumes_of(0)
    assert features[0][0][0] == 0
    assert abs(features[1][0][0]) < 5


@pytest.mark.parametrize("name", ["tr_s", "acquired_s", "recon_s"])
def test_header_times_that_are_no_numbers_are_none(name: str) -> None:
    def with_time(value: float | None) -> list[Window]:
        items = [replace(item, **{name: value}) if isinstance(item, Volume) else item for item in session()]
        return played(items)[0]

    none = with_time(None)
    for value in (np.nan, np.inf):
        assert all(same(a, b) for a, b in zip(with_time(value), none, strict=True))


def test_a_trigger_without_a_time_is_ignored_and_said() -> None:
    items = session()
    windows, assembler = played([Trigger(np.nan, "R128", items[0].arrived_at), *items])
    clean, _ = played(items)
    assert all(same(a, b) for a, b in zip(windows, clean, strict=True))
    assert any("trigger" in note for note in assembler.notes())


def test_a_stream_slower_than_the_bundle_is_refused_before_anything_is_decoded() -> None:
    with refused(GeometryError, "eeg-sfreq-too-low", sfreq=100.0, bundle_sfreq=125.0):
        Assembler(small.bundle(), Montage(small.CHANNELS, 100.0), ("eeg",))


def test_a_run_goes_on_without_the_eeg_of_a_stream_that_begins_to_send_too_much() -> None:
    items = []
    for item in session():
        if isinstance(item, EegChunk) and item.stamps[-1] > ZERO + 10:
            item = replace(item, data=item.data.repeat(2, 1), stamps=item.stamps.repeat(2))
        items.append(item)
    windows, assembler = played(items)
    assert [w.missing["fmri"] for w in windows] == [0, 0, 0, 0]
    assert windows[0].missing["eeg"] == 0
    assert windows[3].eeg is None
    assert any("no longer decoded" in note for note in assembler.notes())
