"""Where runs end and begin, and what each says of itself."""

import dataclasses

import numpy as np
import pytest

from rtdecode.types import Volume
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.saturation import Onset, PendingVolume
from tests import small

ZERO = 900.0


def shifted(volumes: list[Volume], by_s: float = 0.0, **changes) -> list[Volume]:
    return [
        dataclasses.replace(
            v,
            readable_at=v.readable_at + by_s,
            arrived_at=v.arrived_at + by_s,
            parsed_at=v.parsed_at + by_s,
            **changes,
        )
        for v in volumes
    ]


def played(*streams: list, modalities: tuple[str, ...] = ("fmri",), end: float | None = None, scale=4.0):
    bundle = small.bundle()
    bundle = dataclasses.replace(bundle, stats=bundle.stats | {"fmri_scale": np.full(5, scale, np.float32)})
    assembler = Assembler(bundle, small.montage() if "eeg" in modalities else None, modalities)
    items = small.in_order(*streams)
    windows = list(assembler.play(items, items[-1].arrived_at if end is None else ZERO + end))
    clips = [(assembler.clip(w), w.run, w.index) for w in windows if w.revision == "final"]
    assert len({clip for clip, _, _ in clips}) == len(clips)
    return assembler, [w for w in windows if w.revision == "final"]


def full(windows: list, run: int) -> list[int]:
    return [w.index for w in windows if w.run == run and w.missing["fmri"] == 0]


@pytest.mark.parametrize("gap", [4.0, 30.0, 600.0])
@pytest.mark.parametrize("triggered", [True, False])
def test_an_aborted_run_of_three_volumes_and_a_new_one(gap: float, triggered: bool) -> None:
    begin = ZERO + 3 * 0.8 + gap
    triggers = [small.triggers(3, ZERO), small.triggers(30, begin)] if triggered else []
    assembler, windows = played(
        small.volumes(3, ZERO), small.volumes(30, begin, uid="2"), *triggers, end=gap + 30
    )
    assert full(windows, 1) == [0, 1, 2, 3, 4]
    first, second = assembler.counters()["runs"]
    assert (first["volumes"], first["missing"], second["volumes"], second["missing"]) == (3, 0, 30, 0)
    assert second["began_s"] == pytest.approx(3 * 0.8 + gap, abs=0.06)
    assert second["clock"]["source"] == ("trigger" if triggered else "header")
    if triggered:
        assert (second["clock"]["triggers"], second["clock"]["extra_triggers"]) == (30, 0)
    assert first["ended_s"] == pytest.approx(2.4, abs=1e-6)


@pytest.mark.parametrize("header", [True, False])
def test_a_scanner_started_again_with_the_same_series(header: bool) -> None:
    gap = 40.0
    again = small.volumes(20, ZERO + gap, seed=1)
    again = [dataclasses.replace(v, acquired_s=gap + v.index * 0.8 if header else None) for v in again]
    first = [v if header else dataclasses.replace(v, acquired_s=None) for v in small.volumes(20, ZERO)]
    assembler, windows = played(first, again, end=gap + 20)
    assert full(windows, 1) == [0, 1, 2]
    counts = assembler.counters()["fmri"]
    assert (counts["volumes"], counts["duplicate"], counts["missing"]) == (40, 0, 0)
    assert windows[-1].session_s == pytest.approx(gap + windows[-1].start_s, abs=0.1)


@pytest.mark.parametrize("header", [True, False])
def test_a_series_copied_into_the_folder_once_more_is_no_run(header: bool) -> None:
    first = [v if header else dataclasses.replace(v, acquired_s=None) for v in small.volumes(20, ZERO)]
    assembler, _ = played(first, shifted(first, 40.0), end=70)
    assert len(assembler.counters()["runs"]) == 1
    assert assembler.counters()["fmri"]["duplicate"] == 20


def test_a_stray_volume_enters_no_run_of_a_series_that_begins_again() -> None:
    gap = 40.0
    again = [dataclasses.replace(v, acquired_s=gap + v.index * 0.8) for v in small.volumes(20, ZERO + gap)]
    stray = small.volumes(1, ZERO + 16, uid="stray")
    assembler, windows = played(small.volumes(20, ZERO), stray, again, end=gap + 20)
    assert full(windows, 1) == [0, 1, 2]
    assert [run["volumes"] for run in assembler.counters()["runs"]] == [20, 20]
    assert len(assembler.refused) == 1


def test_a_stray_volume_enters_no_run_that_triggers_begin() -> None:
    gap = 40.0
    stray = small.volumes(1, ZERO + 16, uid="stray")
    triggers = [small.triggers(20, ZERO), small.triggers(20, ZERO + gap)]
    second = small.volumes(20, ZERO + gap, uid="2")
    assembler, windows = played(small.volumes(20, ZERO), stray, second, *triggers, end=gap + 20)
    assert full(windows, 1) == [0, 1, 2]
    assert [run["volumes"] for run in assembler.counters()["runs"]] == [20, 20]
    assert len(assembler.refused) == 1


def test_triggers_that_fail_for_a_while_do_not_end_a_run() -> None:
    triggers = [t for t in small.triggers(60, ZERO) if not 10 < t.stamp - ZERO < 25]
    assembler, windows = played(small.volumes(60, ZERO), triggers)
    assert {w.run for w in windows} == {0}
    assert assembler.counters()["runs"][0]["missing"] == 0


@pytest.mark.parametrize(("pause", "runs"), [(8.2, 1), (8.6, 2)])
def test_triggers_that_failed_go_on_until_two_tr_less_than_a_pause_after_the_last_volume(
    pause: float, runs: int
) -> None:
    items = small.in_order(small.volumes(20, ZERO), small.triggers(5, ZERO))
    assembler = Assembler(small.bundle(), None, ("fmri",))
    list(assembler.play([*items, *small.triggers(2, ZERO + 20 * 0.8 + pause)]))
    assert len(assembler.counters()["runs"]) == runs


@pytest.mark.parametrize("modalities", [("fmri",), ("eeg", "fmri")])
def test_a_stray_trigger_in_a_break_begins_no_run(modalities: tuple[str, ...]) -> None:
    stray = dataclasses.replace(small.triggers(1, ZERO)[0], stamp=ZERO + 40, arrived_at=ZERO + 40)
    early = dataclasses.replace(stray, stamp=ZERO - 60, arrived_at=ZERO - 60)
    eeg = (
        small.chunks(small.eeg(100, ZERO - 5), list(range(500, 100_000, 500))) if len(modalities) > 1 else []
    )
    runs = [(ZERO, "1"), (ZERO + 60, "2")]
    items = [
        x
        for began_at, uid in runs
        for x in (small.volumes(20, began_at, uid=uid), small.triggers(20, began_at))
    ]
    assembler, windows = played([early, stray], eeg, *items, modalities=modalities, end=80)
    first, second = assembler.counters()["runs"]
    assert (first["began_s"], second["began_s"]) == (0.0, pytest.approx(60, abs=1e-6))
    assert full(windows, 1)[:2] == [0, 1]


def test_someone_taken_out_and_brought_back_starts_from_the_training_level() -> None:
    away = [
        dataclasses.replace(v, data=np.add(v.data, np.float32(8)), affine=v.affine.copy())
        for v in small.volumes(20, ZERO + 600, uid="2", seed=5)
    ]
    assembler, windows = played(small.volumes(20, ZERO), away, end=620)
    alone, expected = played(shifted(away), end=620)
    second_run = [w for w in windows if w.run == 1]
    for a, b in zip(second_run, [w for w in expected if w.run == 0], strict=True):
        assert a.fmri is not None
        assert b.fmri is not None
        assert np.array_equal(a.fmri, b.fmri)
    assert alone.counters()["fmri"]["volumes"] == 20
    assert assembler.counters()["runs"][1]["check"] == {"moved_mm": 0.0, "turned_deg": 0.0}


def test_a_recording_rests_where_its_session_did() -> None:
    assembler = Assembler(small.bundle(), None, ("fmri",))
    old = small.volumes(12, ZERO)
    new = small.volumes(12, ZERO + 100, uid="2")
    items = small.in_order(old, new, small.triggers(12, ZERO + 100))
    list(assembler.play(items, rested_at=ZERO + 50))
    assert [run["volumes"] for run in assembler.counters()["runs"]] == [12, 12]
    # Files that were old when they were read tell no delay; those that came afterwards do.
    delay_s = assembler.counters()["fmri"]["delay_s"]
    assert delay_s["p50"] == delay_s["max"] == pytest.approx(small.DELAY)


def test_the_time_of_a_session_is_that_of_its_newest_run() -> None:
    assembler = Assembler(small.bundle(), None, ("fmri",))
    assert assembler.elapsed(ZERO) is None
    for number in range(3):
        zero = ZERO + 60 * number
        for volume in small.volumes(4, zero, uid=str(number)):
            assembler.push(volume, volume.arrived_at)
        # By its header the run began 0.05 s later, which is the way of the files.
        assert assembler.elapsed(zero + 5.0) == pytest.approx(4.95)
    assembler.end_newest_run(zero + 6.0)
    assert assembler.elapsed(zero + 90.0) == pytest.approx(3.2)


@pytest.mark.parametrize(("early_s", "extra"), [(9.0, 1), (9.3, 0)])
@pytest.mark.parametrize("first", [0, 2])
def test_a_trigger_from_more_than_a_pause_before_the_run_is_none_of_it(
    early_s: float, extra: int, first: int
) -> None:
    """The pause of 10 s is counted from the latest begin that the first file allows, here 0.85 s."""
    assembler, _ = played(small.triggers(1, ZERO - early_s), small.volumes(12, ZERO)[first:])
    (run,) = assembler.counters()["runs"]
    assert (run["clock"]["source"], run["clock"]["extra_triggers"]) == ("header", extra)


def test_a_grid_that_is_stored_the_other_way_round_has_not_moved() -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = small.SHAPE[0] - 1
    files = [
        dataclasses.replace(v, data=v.data[::-1], affine=v.affine @ flip) for v in small.volumes(8, ZERO)
    ]
    assembler, windows = played(files)
    expected = played(small.volumes(8, ZERO))[1]
    assert assembler.counters()["runs"][0]["check"] == {"moved_mm": 0.0, "turned_deg": 0.0}
    for flipped, plain in zip(windows, expected, strict=True):
        assert np.array_equal(flipped.fmri, plain.fmri)


def saturated(count: int, uid: str = "1", zero: float = ZERO, gain: float = 1.0) -> list[Volume]:
    """Volumes whose first are brighter: a flip of 52 degrees, T1 1.3 s, TR 0.8 s."""
    excess = 0.45 * 0.333 ** np.arange(count)
    return [
        dataclasses.replace(v, data=(np.asarray(v.data, np.float32) * 0.1 + 90) * np.float32(gain * (1 + e)))
        for v, e in zip(small.volumes(count, zero, uid=uid), excess, strict=True)
    ]


@pytest.mark.parametrize("gain", [1.0, 0.8, 1.3])
def test_saturated_volumes_become_holes_and_move_nothing(gain: float) -> None:
    files = saturated(30, gain=gain)
    assembler, windows = played(files, small.triggers(30, ZERO), scale=1.5)
    run = assembler.counters()["runs"][0]
    assert assembler.counters()["fmri"]["saturated"] == run["saturated"] in (2, 3)
    assert (run["volumes"], run["missing"], run["began_s"]) == (30, 0, 0.0)
    assert full(windows, 0)[0] == 0
    assert windows[0].floor_at == pytest.approx(files[9].readable_at, abs=1e-6)
    unsaturated, _ = played(files[2:], small.triggers(30, ZERO))
    assert unsaturated.counters()["fmri"]["saturated"] == 0


def test_dropped_volumes_hold_no_window_up() -> None:
    files = [dataclasses.replace(v, index=v.index + 4) for v in saturated(26)]
    files = shifted(files, 4 * 0.8)
    assembler, windows = played(files, small.triggers(30, ZERO), scale=1.5)
    assert assembler.counters()["fmri"]["saturated"] == 2
    assert windows[0].fmri_mask.tolist() == [False, True, True, True, True]
    assert windows[0].floor_at == pytest.approx(files[5].readable_at, abs=1e-6)


@pytest.mark.parametrize(
    ("levels", "dropped"),
    [
        ([100.0] * 9, set()),
        ([100.0, 99, 98.5, 98] + [98.0] * 5, set()),
        ([130.0, 101] + [100.0] * 7, {0}),
        ([145.0, 115, 105, 101.6, 100.5] + [100.0] * 4, {0, 1, 2}),
        ([100 * 1.1**i for i in range(9, 0, -1)], {0, 1, 2, 3, 4, 5}),
        ([100.0, 130.0, 100] + [100.0] * 6, set()),
        ([-1.0, -2, 0, 1, 2, 0, 0, 1, 1], set()),
    ],
)
def test_what_counts_as_saturated(levels: list[float], dropped: set[int]) -> None:
    onset = Onset(np.ones(50))
    out = []
    for index, level in enumerate(levels):
        out += onset.push(PendingVolume(index, np.full(50, level, np.float32), {}))
    assert onset.dropped == dropped
    assert [volume.index for volume in out] == [i for i in range(9) if i not in dropped]


def test_saturation_is_decided_without_the_future() -> None:
    assembler, _ = played(saturated(12), scale=1.5)
    other = saturated(12)[:4] + small.volumes(12, ZERO, seed=9)[4:]
    again, _ = played(other, scale=1.5)
    assert assembler.counters()["fmri"]["saturated"] == again.counters()["fmri"]["saturated"]


def test_strangers_held_at_the_end_are_refused() -> None:
    strangers = [dataclasses.replace(v, series=99) for v in small.volumes(2, ZERO + 14.5, uid="x")]
    assembler, _ = played(small.volumes(20, ZERO), strangers)
    assert assembler.counters()["fmri"]["rejected_files"] == 2
    assert assembler.counters()["fmri"]["volumes"] == 20


def test_a_first_volume_five_seconds_late_spoils_no_deadline() -> None:
    files = small.volumes(30, ZERO)
    files[0] = shifted(files[:1], 5.0)[0]
    delivered = [v for v in files if v.index != 8]
    for header in (True, False):
        sent = [v if header else dataclasses.replace(v, recon_s=None, acquired_s=None) for v in delivered]
        _, windows = played(sent, small.triggers(30, ZERO), end=24)
        assert windows[0].fmri_mask.tolist() == [True, True, True, False, True]
        assert windows[0].floor_at - ZERO == pytest.approx(10 * 0.8 + small.DELAY + 1.2, abs=0.01)
        assert windows[1].floor_at - ZERO == pytest.approx(15 * 0.8 + small.DELAY, abs=0.01)


def test_runs_that_follow_each_other_at_once_share_no_clip_number() -> None:
    lost = [v for v in small.volumes(20, ZERO) if v.index not in (13, 14, 15, 19)]
    assembler, windows = played(lost, small.volumes(20, ZERO + 18, uid="2"), end=40)
    assert {w.run for w in windows} == {0, 1}
    assert assembler.counters()["runs"][0]["missing"] == 3
