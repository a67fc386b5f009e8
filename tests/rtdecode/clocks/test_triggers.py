"""Which triggers mark volumes, in every way they come wrong."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

from rtdecode.clocks.lines import robust_line
from rtdecode.clocks.run_clock import RunClock
from rtdecode.clocks.triggers import Train
from rtdecode.types import Volume
from tests import small

ZERO = 2000.0


def volumes(
    count: int, tr: float, *, transfer: float = 0.1, first: int = 0, recon: bool = True
) -> list[Volume]:
    """Volumes of another TR; each is rebuilt 0.8 s after its end and takes `transfer` to the folder."""
    out = []
    for i in range(first, count):
        readable_at = ZERO + (i + 1) * tr + 0.8 + transfer
        volume = dataclasses.replace(small.volumes(1, 0.0)[0], index=i, tr_s=tr, acquired_s=i * tr)
        out.append(
            dataclasses.replace(
                volume,
                recon_s=tr + 0.8 if recon else None,
                readable_at=readable_at,
                arrived_at=readable_at,
                parsed_at=readable_at,
            )
        )
    return out


def run_clock(stamps: list[float], files: list[Volume], tr: float, nominal: str | None = None) -> RunClock:
    """A clock that was given everything in the order it arrived."""
    clock = RunClock(Fraction(nominal or repr(tr)), volumes_come=bool(files))
    items = [(s, s) for s in stamps] + [(v.arrived_at, v) for v in files]
    for _, item in sorted(items, key=lambda pair: pair[0]):
        if isinstance(item, Volume):
            clock.add_volume(item)
        else:
            clock.add_trigger(item)
    return clock


def zero_of(clock: RunClock) -> float:
    return float(clock.to_local(0.0, math.inf))


TRS = pytest.mark.parametrize("tr", [0.5, 0.8, 2.0])


@TRS
@pytest.mark.parametrize("lost", [1, 2, 5])
@pytest.mark.parametrize("recon", [True, False])
def test_first_triggers_that_were_lost_shift_nothing(tr: float, lost: int, recon: bool) -> None:
    if not recon and lost * tr <= 0.8:
        return  # nothing tells a trigger lost from a file that comes at once
    transfer = 0.1 if recon else 0.0
    clock = run_clock(
        [ZERO + i * tr for i in range(lost, 20)], volumes(18, tr, transfer=transfer, recon=recon), tr
    )
    assert clock.source == "trigger"
    assert zero_of(clock) == pytest.approx(ZERO, abs=1e-6)


@TRS
def test_triggers_of_preparation_scans_without_files_shift_nothing(tr: float) -> None:
    clock = run_clock([ZERO + i * tr for i in range(-6, 20)], volumes(15, tr), tr)
    assert zero_of(clock) == pytest.approx(ZERO, abs=1e-6)
    assert clock.newest_trigger == 19


@pytest.mark.parametrize("zero", [-5.0, 0.3, 1e6])
def test_a_clock_may_begin_anywhere(zero: float) -> None:
    clock = run_clock([zero + i * 0.8 for i in range(40)], [], 0.8)
    assert (clock.triggers, clock.newest_trigger, clock.extra_triggers) == (40, 39, 0)
    assert zero_of(clock) == pytest.approx(zero, abs=1e-6)


def test_triggers_of_a_preparation_scan_at_another_phase_are_left_behind() -> None:
    before = [ZERO - 20.3 + i * 0.8 for i in range(18)]
    clock = run_clock(before + [ZERO + i * 0.8 for i in range(10)], volumes(8, 0.8), 0.8)
    assert zero_of(clock) == pytest.approx(ZERO, abs=1e-6)
    assert clock.extra_triggers == 18


@TRS
@pytest.mark.parametrize("off", [-7.3, -0.31, -0.012, 0.004, 0.012, 0.21, 3.02, 8.399])
@pytest.mark.parametrize("files", [True, False])
def test_one_spurious_trigger_anywhere_shifts_nothing(tr: float, off: float, files: bool) -> None:
    stamps = [ZERO + i * tr for i in range(12)]
    clock = run_clock([*stamps, ZERO + off], volumes(10, tr) if files else [], tr)
    assert zero_of(clock) == pytest.approx(ZERO, abs=2e-3)
    assert (clock.triggers, clock.extra_triggers) in ((12, 1), (13, 0))


@pytest.mark.parametrize("shots", [2, 10, 36])
@pytest.mark.parametrize("pause", [0.0, 0.25])
@pytest.mark.parametrize("tr", [0.8, 2.0])
def test_slice_triggers_are_told_from_volume_triggers(tr: float, shots: int, pause: float) -> None:
    rng = np.random.default_rng(shots)
    pitch = tr * (1 - pause) / shots
    stamps = [ZERO + i * tr + s * pitch + rng.uniform(0, 5e-4) for i in range(12) for s in range(shots)]
    clock = run_clock([*stamps, ZERO - 0.4321], volumes(10, tr), tr)
    assert clock.source == "trigger"
    assert zero_of(clock) == pytest.approx(ZERO, abs=1.5e-3)
    assert clock.fit()["slices_per_volume"] == shots
    assert clock.triggers == 12
    assert clock.extra_triggers <= 1


def test_slice_triggers_of_which_the_first_volume_was_lost() -> None:
    stamps = [ZERO + i * 2 + s * 0.05 for i in range(1, 12) for s in range(36)]
    clock = run_clock(stamps, volumes(10, 2.0), 2.0)
    assert zero_of(clock) == pytest.approx(ZERO, abs=1e-6)


@pytest.mark.parametrize("period", [0.72, 0.3, 1.0, 1.6, 2.0, 2.4, 0.0585])
def test_triggers_of_another_tr_place_nothing(period: float) -> None:
    clock = run_clock([ZERO + 0.1 + i * period for i in range(int(40 / period))], volumes(40, 0.8), 0.8)
    assert (clock.source, clock.triggers) == ("header", 0)
    assert zero_of(clock) == pytest.approx(ZERO + 0.1, abs=1e-6)


def test_irregular_markers_place_nothing_and_do_not_hide_the_triggers() -> None:
    rng = np.random.default_rng(3)
    marks = (ZERO + np.cumsum(rng.uniform(0.4, 3, 30))).tolist()
    assert run_clock(marks, volumes(40, 0.8), 0.8).source == "header"
    clock = RunClock(small.TR, volumes_come=True)
    for stamp, label in sorted([(m, "S 1") for m in marks] + [(ZERO + i * 0.8, "R128") for i in range(60)]):
        clock.add_trigger(stamp, label)
    assert (clock.triggers, zero_of(clock)) == (60, pytest.approx(ZERO, abs=1e-6))


@pytest.mark.parametrize("seed", range(4))
def test_answers_a_tr_after_pictures_place_nothing(seed: int) -> None:
    """By chance some pairs lie whole TRs apart, but most of the marks do not."""
    pictures = ZERO + np.cumsum(np.random.default_rng(seed).uniform(3, 6, 30))
    clock = run_clock([*pictures, *(pictures + 0.8)], volumes(60, 0.8), 0.8)
    assert (clock.source, clock.triggers, clock.extra_triggers) == ("header", 0, 60)


def test_a_lone_trigger_counts_only_where_the_run_can_begin() -> None:
    files = volumes(10, 0.8)
    assert run_clock([ZERO], files, 0.8).source == "trigger"
    assert run_clock([ZERO + 3.1], files, 0.8).source == "header"
    assert not run_clock([ZERO], files[:0], 0.8).fit()["extra_triggers"]


@pytest.mark.parametrize("ppm", [0.0, 10.0, 30.0, 50.0, -50.0])
@pytest.mark.parametrize("outliers", [False, True])
def test_drift_is_recovered_within_2_ppm_after_100_volumes(ppm: float, outliers: bool) -> None:
    # 1 ms of jitter, as of a marker channel sampled at 1 kHz. One standard error: 0.5 ppm.
    for seed in range(5):
        rng = np.random.default_rng(seed)
        stamps = ZERO + np.arange(100) * 2.0 * (1 + ppm * 1e-6) + rng.uniform(-5e-4, 5e-4, 100)
        if outliers:
            stamps[rng.choice(100, 5, replace=False)] += rng.uniform(5e-3, 3e-2, 5)
        fit = run_clock(stamps.tolist(), [], 2.0).fit()
        assert fit["slope_ppm"] == pytest.approx(ppm, abs=2)
        assert fit["residual_ms"] == pytest.approx(0.29, abs=0.06)


def test_a_header_tr_that_is_not_quite_the_trained_one() -> None:
    stamps = [ZERO + i * 0.7995 for i in range(1200)]
    files = volumes(1190, 0.7995)
    for clock in (run_clock(stamps, files, 0.8, "4/5"), run_clock(stamps, [], 0.8, "4/5")):
        assert (clock.triggers, clock.newest_trigger) == (1200, 1199)
        assert clock.fit()["slope_ppm"] == pytest.approx(-625, abs=1)
        assert float(clock.to_local(1190 * 0.8, math.inf)) == pytest.approx(ZERO + 1190 * 0.7995, abs=1e-3)
    clock = run_clock([], files, 0.8, "4/5")
    assert clock.source == "header"
    assert clock.fit()["slope_ppm"] == pytest.approx(-625, abs=1)
    assert float(clock.to_local(1190 * 0.8, math.inf)) == pytest.approx(ZERO + 0.1 + 1190 * 0.7995, abs=2e-3)


def test_the_future_does_not_change_what_was_asked() -> None:
    rng = np.random.default_rng(0)
    stamps = [ZERO + i * 0.8 + rng.normal(0, 1e-3) for i in range(200)]
    for triggers, files in ((stamps, volumes(190, 0.8)), ([], volumes(190, 0.8)), (stamps, [])):
        cut = ZERO + 21.0
        early = run_clock([s for s in triggers if s < cut], [v for v in files if v.arrived_at < cut], 0.8)
        late = run_clock(triggers, files, 0.8)
        for clock in (early, late):
            clock.freeze()
        run_s = np.linspace(0, 20, 9)
        assert np.array_equal(early.to_local(run_s, 20.0), late.to_local(run_s, 20.0))


def test_the_zero_stands_once_windows_were_cut() -> None:
    slow = [dataclasses.replace(v, readable_at=v.readable_at + 0.2) for v in volumes(10, 0.8)]
    clock = run_clock([], slow, 0.8)
    before = zero_of(clock)
    clock.freeze()
    for volume in volumes(40, 0.8, first=10):
        clock.add_volume(volume)
    assert zero_of(clock) == before
    clock.add_trigger(ZERO + 32.1)
    assert (clock.source, zero_of(clock)) == ("header", before)


def test_triggers_that_come_late_take_over() -> None:
    clock = run_clock([], volumes(20, 0.8), 0.8)
    clock.freeze()
    for i in range(20, 30):
        clock.add_trigger(ZERO + i * 0.8)
    assert (clock.source, clock.newest_trigger) == ("trigger", 29)
    assert zero_of(clock) == pytest.approx(ZERO, abs=1e-6)


def test_triggers_among_strays_take_over_once_they_are_most_of_what_came() -> None:
    clock = run_clock([], volumes(20, 0.8), 0.8)
    clock.freeze()
    strays = [ZERO + 16.1 + 0.35 * i + 0.01 * i**2 for i in range(12)]
    counts = []
    for stamp in sorted([*strays, *(ZERO + i * 0.8 for i in range(20, 40))]):
        clock.add_trigger(stamp)
        counts.append(clock.triggers)
    assert min(count for count in counts if count) > 5
    assert (clock.source, clock.triggers, clock.newest_trigger) == ("trigger", 20, 39)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("recon", [True, False])
def test_header_times_place_a_run_over_midnight(rounded: bool, recon: bool) -> None:
    rng = np.random.default_rng(1)
    files = []
    for v in volumes(400, 0.8, transfer=0.0, recon=recon):
        seconds = v.index * 0.8 + (rng.uniform(-5e-4, 5e-4) if rounded else 0.0)
        seconds -= 86400.0 if v.index > 150 else 0.0
        late = float(rng.exponential(0.05))
        files.append(
            dataclasses.replace(
                v, acquired_s=seconds, readable_at=v.readable_at + late, arrived_at=v.arrived_at + late
            )
        )
    fit = (clock := run_clock([], files, 0.8)).fit()
    off = 0.0 if recon else 0.15
    assert clock.source == "header"
    assert zero_of(clock) == pytest.approx(ZERO + off, abs=2e-3)
    assert 10 < fit["residual_ms"] < 80
    assert abs(fit["slope_ppm"]) < 30


def test_a_header_that_copies_one_time_is_no_header() -> None:
    files = [dataclasses.replace(v, recon_s=0.0, acquired_s=0.0) for v in volumes(30, 0.8)]
    clock = run_clock([], files, 0.8)
    assert zero_of(clock) == pytest.approx(ZERO + 0.25, abs=1e-6)


def test_a_slow_first_file_does_not_move_the_run() -> None:
    files = volumes(10, 0.8, recon=False)
    files[0] = dataclasses.replace(files[0], readable_at=ZERO + 6.0, arrived_at=ZERO + 6.0)
    assert zero_of(run_clock([], files, 0.8)) == pytest.approx(ZERO + 0.25, abs=1e-6)


def test_triggers_can_be_given_to_the_next_run() -> None:
    clock = run_clock([ZERO + i * 0.8 for i in (0, 1, 2, 9, 10)], volumes(3, 0.8), 0.8)
    assert clock.take_back(ZERO + 5) == [(ZERO + 7.2, ""), (ZERO + 8.0, "")]
    assert (clock.triggers, clock.newest_trigger, clock.extra_triggers) == (3, 2, 0)


def test_triggers_that_were_given_away_say_nothing_of_their_chain() -> None:
    skipping = [ZERO + i * 0.8 for i in (0, 2, 4, 6)]
    drifted = [ZERO + i * 0.8 + 0.03 for i in range(7, 12)]
    without_drift = Train(0.8)
    reverted = Train(0.8)
    for stamp in skipping:
        without_drift.push(stamp)
        reverted.push(stamp)
    for stamp in drifted:
        reverted.push(stamp)
    assert reverted.chains[0].regular
    assert reverted.take_back(drifted[0]) == drifted
    (remaining,) = reverted.chains
    (chain,) = without_drift.chains
    assert (remaining.count, remaining.newest_at) == (chain.count, chain.newest_at)
    assert not chain.regular
    assert remaining.regular == chain.regular
    assert remaining.phase == chain.phase


def test_a_line_through_few_points_is_not_wild() -> None:
    x = np.array([0.0, 0.8, 1.6])
    line = robust_line(x, x + np.array([0, 2e-3, -2e-3]))
    assert abs(line.slope - 1) < 1e-4
