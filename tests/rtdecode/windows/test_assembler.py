import dataclasses
import functools
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdecode.bundle import Bundle
from rtdecode.errors import GeometryError
from rtdecode.types import EegChunk, Montage, Volume, Window
from rtdecode.windows.assembler import Assembler
from rtdecode.windows.head import Head
from rtdecode.windows.run import Run
from tests import small
from tests.refusals import refused

ZERO = 500.0


def run(items: list, seconds: float | None = None, *, end: float = 40.0, **kwargs) -> list[Window]:
    """Windows of items that arrive in order, with the deadlines between them kept."""
    kwargs.setdefault("modalities", ("eeg", "fmri"))
    assembler = Assembler(kwargs.pop("bundle", small.bundle()), small.montage(), seconds=seconds, **kwargs)
    out: list[Window] = []
    for item in items:
        out += assembler.advance(item.arrived_at) + assembler.push(item, item.arrived_at)
    return out + assembler.flush(ZERO + end)


def session(cuts: list[int] | None = None, seconds: float = 30.0, seed: int = 0) -> list:
    eeg = small.eeg(seconds + 10, ZERO - 10, seed)
    # A chunk of 0.4 s: the tests that vary the chunks say so.
    cuts = list(range(400, int(1000 * (seconds + 10)), 400)) if cuts is None else cuts
    count = int(seconds / 0.8)
    return small.in_order(
        small.chunks(eeg, cuts), small.triggers(count, ZERO), small.volumes(count, ZERO, seed)
    )


def same(a: Window, b: Window) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")
    )


def finals(windows: list[Window]) -> list[Window]:
    return [w for w in windows if w.revision == "final"]


def test_windows_come_out_in_order_previews_first() -> None:
    windows = undisturbed(16)
    assert [(w.revision, w.index) for w in windows] == [
        ("preview", 0),
        ("preview", 1),
        ("final", 0),
        ("preview", 2),
        ("final", 1),
        ("preview", 3),
        ("final", 2),
        ("final", 3),
    ]
    assert all(w.missing == {"eeg": 0.0, "fmri": 0.0} for w in finals(windows))


@functools.cache
def undisturbed(seconds: float) -> list[Window]:
    """Windows of the session as it is."""
    return run(session(), seconds=seconds)


def looking(before: int, after: int, lag: int = 4) -> Bundle:
    """The small bundle, with volumes before and after each window."""
    plain = small.bundle()
    grid = dataclasses.replace(plain.manifest.grid, before=before, after=after, lag=Fraction(lag))
    return dataclasses.replace(plain, manifest=dataclasses.replace(plain.manifest, grid=grid))


def test_a_window_with_look_ahead_waits_for_its_last_volume() -> None:
    near = finals(undisturbed(16))
    far = finals(run(session(), seconds=16, bundle=looking(2, 1)))
    assert [w.index for w in far] == [0, 1, 2, 3]
    for plain, ahead in zip(near, far, strict=True):
        assert ahead.fmri is not None
        assert ahead.fmri.shape == (8, 5)
        assert np.array_equal(ahead.fmri[2:7], plain.fmri)
        assert ahead.fmri_mask.all()
        assert ahead.missing == {"eeg": 0.0, "fmri": 0.0}
        assert ahead.floor_at == pytest.approx(plain.floor_at + 0.8)
    for window, following in itertools.pairwise(far):
        assert np.array_equal(window.fmri[7], following.fmri[2]), "one volume, read by two windows"


def test_without_its_last_volume_a_window_is_final_one_tr_later_than_without_look_ahead() -> None:
    """Volume 10, the one after window 0, is lost; 2.8 s later than volume 9 was due nothing is waited for."""
    items = [i for i in session() if not (isinstance(i, Volume) and i.index == 10)]
    near, far = (finals(run(items, seconds=16, bundle=looking(0, n)))[0] for n in (0, 1))
    assert far.fmri_mask.tolist() == [True] * 5 + [False]
    assert far.missing["fmri"] == pytest.approx(1 / 6)
    assert near.missing["fmri"] == 0
    assert near.floor_at + 0.8 < far.floor_at < near.floor_at + 0.8 + 1.5 * 0.8 + 0.1


def test_slots_before_a_run_are_empty_and_not_missed() -> None:
    window = finals(run(session(), seconds=16, bundle=looking(2, 0, lag=0)))[0]
    assert window.fmri_mask.tolist() == window.fmri_expected.tolist() == [False] * 2 + [True] * 5
    assert window.fmri is not None
    assert not window.fmri[:2].any()
    assert window.missing["fmri"] == 0


def test_a_session_ends_with_the_windows_whose_look_ahead_was_acquired() -> None:
    """Window 1 ends at 8 s, its volumes with lag at 12 s, with look-ahead at 12.8 s."""
    for seconds, count in ((12.4, 1), (13.2, 2)):
        assembler = Assembler(looking(0, 1), small.montage(), ("eeg", "fmri"))
        for item in session(seconds=40):
            if item.arrived_at < ZERO + seconds:
                assembler.push(item, item.arrived_at)
        assert assembler.reached(ZERO + seconds) == count


def test_a_run_that_ends_with_the_data_of_a_window_has_that_window() -> None:
    """Window 2 needs 16 s of the first run. The next one begins then, or a moment earlier."""
    for is_earlier, indices in ((False, [0, 1, 2]), (True, [0, 1])):
        assembler = Assembler(small.bundle(), None, ("fmri",))
        # None of the volumes of window 2 comes.
        windows = list(assembler.play(small.volumes(15, ZERO), ends=False))
        begun_at = moment_of(assembler, 16.0)
        if is_earlier:
            begun_at = math.nextafter(begun_at, 0.0)
        first = dataclasses.replace(small.volumes(1, ZERO, uid="2")[0], readable_at=begun_at)
        windows += assembler.push(first, begun_at) + assembler.advance(ZERO + 60.0)
        assert [window.index for window in windows if window.run == 0] == indices


def moment_of(assembler: Assembler, run_s: float) -> float:
    """Return the local time at which the run is exactly so old, s."""
    early_at = ZERO + run_s - 1.0
    late_at = ZERO + run_s + 1.0
    while math.nextafter(early_at, late_at) < late_at:
        middle_at = (early_at + late_at) / 2
        if assembler.elapsed(middle_at) < run_s:
            early_at = middle_at
        else:
            late_at = middle_at
    assert assembler.elapsed(late_at) == run_s
    return late_at


def test_a_window_holds_the_eeg_of_its_span_and_the_volumes_a_lag_later() -> None:
    window = finals(undisturbed(16))[2]
    volumes = small.volumes(37, ZERO)
    level = np.full(5, 100.0)
    vectors = []
    for volume in volumes[:20]:
        x = volume.data.reshape(-1)[[1, 5, 9, 14, 23]].astype(np.float64)
        level = level + 0.01 * (x - level)
        vectors.append((x - level) / 4)
    assert window.fmri == pytest.approx(np.array(vectors[15:20]), abs=1e-5)
    from rtdecode.signal.eeg.band import EegFilter

    eeg = small.eeg(40, ZERO - 10)
    spec = small.manifest().eeg
    assert spec is not None
    filtered = EegFilter(spec.band, 1000.0).push(eeg.data)
    assert window.eeg == pytest.approx(filtered[:, 18_000:22_000:8] / 2, abs=1e-4)


def test_the_floor_is_the_last_input_and_the_final_leaves_with_it() -> None:
    windows = finals(undisturbed(16))
    assert [w.floor_at - ZERO for w in windows] == pytest.approx([8.85, 12.85, 16.85, 20.85])
    assert windows[0].stamps["acquired"] - ZERO == pytest.approx(8.0)


def test_the_floor_is_when_a_volume_could_be_read_not_when_it_was() -> None:
    """A program that looks late must not look fast."""
    slow = [
        dataclasses.replace(item, arrived_at=item.arrived_at + 0.3, parsed_at=item.parsed_at + 0.4)
        if isinstance(item, Volume)
        else item
        for item in session()
    ]
    windows = finals(run(small.in_order(slow), seconds=16))
    assert [w.floor_at - ZERO for w in windows] == pytest.approx([8.85, 12.85, 16.85, 20.85])
    assert [w.stamps["arrived"] - w.floor_at for w in windows] == pytest.approx([0.3] * 4)
    assert [w.stamps["parsed"] - w.floor_at for w in windows] == pytest.approx([0.4] * 4)


@pytest.mark.parametrize("cut_s", [4.0, 12.0])
def test_triggers_that_come_after_a_window_do_not_move_its_eeg(cut_s: float) -> None:
    """They come before its volumes do, and so before its final is cut."""
    items = session()
    late = [
        dataclasses.replace(item, stamp=item.stamp + 0.006)
        if hasattr(item, "label") and item.stamp > ZERO + cut_s - 0.5
        else item
        for item in items
    ]
    plain = finals(undisturbed(20))
    moved = finals(run(late, seconds=20))
    before = [w.stop_s <= cut_s for w in plain]
    assert [np.array_equal(a.eeg, b.eeg) for a, b in zip(plain, moved, strict=True)] == before
    for plain_window, moved_window, same_before in zip(plain, moved, before, strict=True):
        if same_before:
            assert plain_window.stamps["stop"] == moved_window.stamps["stop"]


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_what_a_window_holds_does_not_depend_on_the_chunks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(1, rng.integers(20, 800), 10_000)).tolist()
    a = undisturbed(20)
    b = run(session(cuts), seconds=20)
    assert len(finals(a)) == 5
    for x, y in zip(finals(a), finals(b), strict=True):
        assert same(x, y)


@settings(max_examples=8)
@given(at_s=st.floats(2, 24), seed=st.integers(1, 9))
def test_the_future_cannot_change_the_past(at_s: float, seed: int) -> None:
    items = session()
    other = session(seed=seed)
    swapped = [a if a.arrived_at < ZERO + at_s else b for a, b in zip(items, other, strict=True)]
    before = undisturbed(24)
    after = run(swapped, seconds=24)
    for x, y in zip(before, after, strict=True):
        if x.floor_at < ZERO + at_s:
            assert same(x, y)
    assert not same(finals(before)[-1], finals(after)[-1])


@settings(max_examples=8)
@given(drop=st.integers(0, 29))
def test_a_lost_volume_is_a_hole_and_the_final_goes_out_in_time(drop: int) -> None:
    items = [i for i in session() if getattr(i, "index", None) != drop]
    windows = finals(run(items, seconds=20))
    assert [w.index for w in windows] == [0, 1, 2, 3, 4]
    for window in windows:
        volumes = small.grid().volumes(window.index)
        assert window.fmri_mask.tolist() == [i != drop for i in volumes]
        late = window.floor_at - ZERO - (volumes.stop * 0.8 + small.DELAY)
        assert late == pytest.approx(1.2 if drop in volumes else 0.0, abs=1e-6)


def test_lost_samples_are_masked_and_counted() -> None:
    complete = small.eeg(40, ZERO - 10)
    received = np.r_[0:15_000, 15_500:40_000]
    holed = EegChunk(complete.data[:, received], complete.stamps[received], complete.arrived_at)
    items = small.in_order(
        small.chunks(holed, list(range(100, 39_500, 100))),
        small.triggers(37, ZERO),
        small.volumes(37, ZERO),
    )
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 16)
    windows = finals([w for item in items for w in assembler.push(item, item.arrived_at)])
    eeg = assembler.counters()["eeg"]
    assert (eeg["lost_samples"], eeg["gaps"]) == (500, 1)
    assert windows[1].missing["eeg"] == pytest.approx(0.125, abs=0.005)
    assert windows[1].eeg_quality["gap"] == windows[1].missing["eeg"]
    assert windows[1].eeg_quality["learning"] == pytest.approx(1.654 / 4, abs=0.01)
    assert sum(windows[1].eeg_quality.values()) == pytest.approx(1.0)
    assert windows[0].eeg_quality["corrected"] == 1.0
    assert windows[1].eeg is not None
    assert np.all(windows[1].eeg[:, ~windows[1].eeg_mask] == 0)
    clean = finals(undisturbed(16))
    assert same(windows[0], clean[0])
    assert windows[3].eeg == pytest.approx(clean[3].eeg, abs=0.5)


def test_eeg_alone_has_finals_only_as_soon_as_the_window_ends() -> None:
    items = [i for i in session() if not hasattr(i, "affine")]
    windows = run(items, seconds=16, modalities=("eeg",))
    assert [(w.revision, w.modalities) for w in windows] == [("final", ["eeg"])] * 4
    assert all(w.floor_at <= ZERO + w.stop_s for w in windows)


def test_eeg_alone_without_triggers_starts_at_its_first_sample() -> None:
    items = small.chunks(small.eeg(13, ZERO), list(range(100, 13_000, 100)))
    windows = run(items, modalities=("eeg",), triggers_expected=False, end=13)
    assert len(windows) == 3
    assert windows[0].stamps["acquired"] == pytest.approx(ZERO + 3.992)


def test_volumes_alone_without_triggers_or_header_times() -> None:
    items = [dataclasses.replace(v, recon_s=None, acquired_s=None) for v in small.volumes(30, ZERO)]
    windows = run(items, modalities=("fmri",), end=24)
    assert [w.missing["fmri"] for w in windows] == [0.0] * 5
    assert all(w.eeg is None and w.missing["eeg"] == 1.0 for w in windows)


def test_when_the_eeg_dies_finals_go_on_with_volumes() -> None:
    items = [
        i for i in session() if not (hasattr(i, "data") and hasattr(i, "stamps") and i.arrived_at > ZERO + 9)
    ]
    windows = finals(run(items, seconds=20))
    assert [w.modalities for w in windows[3:]] == [["fmri"]] * 2
    assert len(windows) == 5


def test_when_the_scanner_dies_finals_go_on_with_eeg() -> None:
    items = [i for i in session() if not (hasattr(i, "affine") and i.arrived_at > ZERO + 9)]
    windows = finals(run(items, seconds=20))
    assert [w.modalities for w in windows[2:]] == [["eeg"]] * 3


def test_a_second_run_has_its_own_time_line_and_clips() -> None:
    gap = 60.0
    count = 20
    first = small.in_order(small.triggers(count, ZERO), small.volumes(count, ZERO))
    second = small.in_order(small.triggers(count, ZERO + gap), small.volumes(count, ZERO + gap, uid="2"))
    eeg = small.chunks(small.eeg(100, ZERO - 10), list(range(100, 100_000, 100)))
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"))
    windows = [w for i in small.in_order(first, second, eeg) for w in assembler.push(i, i.arrived_at)]
    later = [w for w in finals(windows) if w.run == 1]
    assert [w.index for w in later[:2]] == [0, 1]
    assert later[0].start_s == 0
    assert later[0].session_s == pytest.approx(gap, abs=1e-6)
    clips = [assembler.clip(w) for w in finals(windows)]
    assert len(set(clips)) == len(clips)


def test_a_run_that_is_over_frees_its_volumes_and_its_report_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    items = []
    for number in range(4):
        begin = ZERO + 40.0 * number
        items += [*small.triggers(20, begin), *small.volumes(20, begin, uid=str(number))]
    items = small.in_order(items, small.chunks(small.eeg(180, ZERO - 10), list(range(400, 180_000, 400))))

    def session_of(seconds: float | None) -> tuple[Assembler, list[Window]]:
        assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), seconds)
        return assembler, [window for item in items for window in assembler.push(item, item.arrived_at)]

    release = Run.release
    released: list[Run] = []

    def noted(run: Run) -> None:
        release(run)
        released.append(run)

    monkeypatch.setattr(Run, "release", noted)
    assembler, windows = session_of(None)
    assert [run.number for run in released] == [0, 1]
    assert all(run.released for run in released)
    assert all(run.head is not None and run.head.volume is None for run in released)
    counters = assembler.counters()
    # One that comes after all is counted, and no more.
    late = next(item for item in items if isinstance(item, Volume))
    assembler.push(dataclasses.replace(late, index=20, uid="0"), ZERO + 200)
    assert assembler.counters()["fmri"]["volumes"] == counters["fmri"]["volumes"] + 1
    monkeypatch.setattr(Run, "release", lambda run: None)
    unreleased, undisturbed_windows = session_of(None)
    assert unreleased.counters() == counters
    assert len(windows) == len(undisturbed_windows)
    assert all(same(*pair) for pair in zip(windows, undisturbed_windows, strict=True))


def test_a_lost_first_trigger_shifts_no_window() -> None:
    complete = finals(undisturbed(16))
    items = session()
    items.remove(next(i for i in items if getattr(i, "label", "") == "R128"))
    for a, b in zip(complete, finals(run(items, seconds=16)), strict=True):
        assert np.array_equal(a.fmri, b.fmri)
        assert b.eeg == pytest.approx(a.eeg, abs=1e-3)


def test_duplicates_are_counted_and_change_nothing() -> None:
    items = session()
    again = [i for i in items if getattr(i, "index", None) == 7]
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 16)
    windows = finals(
        [w for i in [*items[:900], *again, *items[900:]] for w in assembler.push(i, i.arrived_at)]
    )
    assert assembler.counters()["fmri"]["duplicate"] == 1
    assert all(same(a, b) for a, b in zip(windows, finals(undisturbed(16)), strict=True))


def test_another_tr_or_cap_is_refused_in_words() -> None:
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"))
    volume = dataclasses.replace(small.volumes(1, ZERO)[0], tr_s=2.0)
    with refused(GeometryError, "tr-mismatch", bundle_tr_s=0.8, series="v0", tr_s=2.0):
        assembler.push(volume, ZERO)
    with refused(GeometryError, "montage-missing-channels", missing_channels="Oz"):
        Assembler(small.bundle(), Montage(("Fz", "Cz", "Pz"), 1000.0), ("eeg", "fmri"))


@pytest.mark.parametrize(("at_s", "count"), [(27.9, 5), (28.1, 6)])
def test_expected_counts_what_has_passed(at_s: float, count: int) -> None:
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"))
    for item in session(seconds=30):
        if item.arrived_at <= ZERO + at_s:
            assembler.push(item, item.arrived_at)
    assert assembler.expected(ZERO + at_s) == count


def test_a_window_that_went_out_is_expected_although_its_samples_are_ahead_of_the_clock() -> None:
    items = small.chunks(small.eeg(13, ZERO), list(range(100, 13_000, 100)))
    assembler = Assembler(small.bundle(), small.montage(), ("eeg",), triggers_expected=False)
    early = [dataclasses.replace(item, arrived_at=item.arrived_at - 0.1) for item in items]
    out = [window for item in early for window in assembler.push(item, item.arrived_at)]
    assert assembler.expected(ZERO + 11.95) == len(out) == 3


def test_a_silence_of_the_acquisition_is_no_pause_though_the_next_sample_has_no_stamp() -> None:
    """Triggers every 0.8 s; from 8 s to 28 s nobody listened."""
    restarted_at = ZERO + 28
    triggers = [t for t in small.triggers(60, ZERO) if not ZERO + 8 < t.stamp < restarted_at + 0.5]
    eeg = small.eeg(50, ZERO)
    chunks = small.chunks(eeg, list(range(100, 50_000, 100)))
    chunks = [chunk for chunk in chunks if not ZERO + 8 < chunk.arrived_at < restarted_at]
    first = next(i for i, chunk in enumerate(chunks) if chunk.arrived_at >= restarted_at)
    stamps = chunks[first].stamps.copy()
    stamps[0] = np.nan
    chunks[first] = dataclasses.replace(chunks[first], stamps=stamps)
    bundle = small.bundle(modalities=("eeg",))
    assembler = Assembler(bundle, small.montage(), ("eeg",), restarted_at=[restarted_at])
    list(assembler.play(small.in_order(chunks, triggers)))
    assert len(assembler.counters()["runs"]) == 1


def test_a_limited_session_is_done_with_its_last_window() -> None:
    assembler = Assembler(small.bundle(modalities=("fmri",)), None, ("fmri",), 8)
    assert not assembler.done()
    progress = [
        (len(assembler.push(volume, volume.arrived_at)), assembler.done())
        for volume in small.volumes(16, ZERO)
    ]
    # Window 0 ends with volume 9, window 1 with volume 14.
    assert progress == [(0, False)] * 9 + [(1, False)] + [(0, False)] * 4 + [(1, True), (0, True)]


def test_of_the_windows_that_were_asked_for_those_are_reached_that_have_passed() -> None:
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 400)
    for item in session(seconds=30):
        if item.arrived_at <= ZERO + 27.9:
            assembler.push(item, item.arrived_at)
    assert assembler.expected(ZERO + 27.9) == 100
    assert assembler.reached(ZERO + 27.9) == 5
    assert assembler.reached(ZERO + 28.1) == 6
    assert assembler.reached(ZERO + 4000) == 100


def stranger(at_s: float, uid: str = "other", index: int = 0) -> Volume:
    """A volume of another series of the same geometry."""
    arrived_at = ZERO + at_s
    return dataclasses.replace(
        small.volumes(1, ZERO)[0],
        uid=uid,
        series=99,
        index=index,
        readable_at=arrived_at,
        arrived_at=arrived_at,
        parsed_at=arrived_at,
    )


def test_a_stray_volume_of_another_series_harms_nothing() -> None:
    items = session()
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 20)
    strays = [stranger(5.3), stranger(9.1, "third"), stranger(9.2, "third", 1)]
    windows = finals([w for i in small.in_order(items, strays) for w in assembler.push(i, i.arrived_at)])
    assert all(same(a, b) for a, b in zip(windows, finals(undisturbed(20)), strict=True))
    assert len(assembler.refused) == 3
    assert "series 99 arrived in the middle of another series" in assembler.refused[0]
    assert assembler.counters()["fmri"]["rejected_files"] == 3


def test_a_second_series_without_a_trigger_begins_a_run_when_the_first_has_fallen_silent() -> None:
    count = 15
    gap = 30.0
    items = small.in_order(small.volumes(count, ZERO), small.volumes(count, ZERO + gap, uid="2"))
    assembler = Assembler(small.bundle(), None, ("fmri",))
    windows = [w for i in items for w in [*assembler.tick(i.arrived_at), *assembler.push(i, i.arrived_at)]]
    windows += assembler.flush(ZERO + gap + 12.1)
    late = [w for w in windows if w.run == 1]
    assert [w.missing["fmri"] for w in late] == [0.0, 0.0]
    assert late[0].session_s == pytest.approx(gap, abs=0.1)
    full = [w for w in windows if w.fmri is not None or w.eeg is not None]
    assert assembler.expected(ZERO + gap + 12.1) == len(windows) >= len(full)


def test_two_series_that_arrive_at_once_are_two_runs() -> None:
    items = [dataclasses.replace(v, readable_at=ZERO, arrived_at=ZERO) for v in small.volumes(20, 0.0)]
    items += [
        dataclasses.replace(v, readable_at=ZERO, arrived_at=ZERO, uid="2") for v in small.volumes(20, 0.0)
    ]
    assembler = Assembler(small.bundle(), None, ("fmri",))
    windows = [w for i in items for w in assembler.push(i, ZERO)]
    assert {w.run for w in windows if w.fmri is not None} == {0, 1}
    assert assembler.counters()["fmri"]["rejected_files"] == 0


def test_volumes_lost_at_the_end_are_counted_where_triggers_prove_them() -> None:
    items = small.in_order(small.triggers(20, ZERO), small.volumes(18, ZERO))
    assembler = Assembler(small.bundle(), None, ("fmri",))
    for item in items:
        assembler.push(item, item.arrived_at)
    assert assembler.counters()["fmri"]["missing"] == 0
    assembler.tick(ZERO + 30)
    assert assembler.counters()["fmri"]["missing"] == 2


def test_volumes_that_the_bundle_cannot_read_keep_the_time_and_give_nothing() -> None:
    other = np.diag([2.0, 2.0, 2.0, 1.0])
    assembler = Assembler(small.bundle(), small.montage(), ("eeg", "fmri"), 8)
    items = [
        dataclasses.replace(item, affine=other, live=False) if isinstance(item, Volume) else item
        for item in session()
        if not hasattr(item, "label")
    ]
    assert "the bundle reads volumes of" in (assembler.unread(small.SHAPE, other) or "")
    assert assembler.unread(small.SHAPE, small.AFFINE) is None
    windows = finals(list(assembler.play(items)))
    assert [(w.modalities, w.missing) for w in windows] == [(["eeg"], {"eeg": 0.0, "fmri": 1.0})] * 2
    assert assembler.counters()["clock"]["source"] == "header"
    assert assembler.counters()["fmri"]["volumes"] == 37


def test_what_was_taken_on_another_clock_than_its_arrival_is_played_on_it() -> None:
    """Files that lay there before: all of them arrive at once, long after the run."""
    volumes = small.volumes(20, ZERO)
    late = [
        dataclasses.replace(v, arrived_at=ZERO + 900 + n, clock_at=v.readable_at)
        for n, v in enumerate(volumes)
    ]
    bundle = small.bundle(modalities=("fmri",))
    played = [list(Assembler(bundle, None, ("fmri",), 8).play(items)) for items in (volumes, late)]
    assert [window.missing["fmri"] for window in played[0]] == [0, 0]
    assert all(same(a, b) for a, b in zip(*played, strict=True))


def test_a_volume_counts_as_corrected_once_its_features_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [ZERO]
    read = Head.read

    def slowly(self: Head, volume: Volume) -> np.ndarray:
        clock[0] += 1.0
        return read(self, volume)

    monkeypatch.setattr(Head, "read", slowly)
    assembler = Assembler(small.bundle(modalities=("fmri",)), None, ("fmri",), 4, now=lambda: clock[0])
    (window,) = assembler.play(small.volumes(10, ZERO))
    assert window.stamps["corrected"] == ZERO + 10


def joined(at_s: float, seconds: float | None) -> tuple[Assembler, list[Window]]:
    """Windows of a session that begins to listen so long after its run began."""
    listening_since = ZERO + at_s
    items = [item for item in session(seconds=60) if item.arrived_at >= listening_since]
    assembler = Assembler(
        small.bundle(), small.montage(), ("eeg", "fmri"), seconds, listening_since=listening_since
    )
    return assembler, finals(list(assembler.play(items, ZERO + 70)))


def test_the_seconds_of_a_session_that_joins_a_run_late_count_from_there() -> None:
    hop = float(small.bundle().manifest.grid.hop)
    assembler, windows = joined(20.5, 16)
    count = small.bundle().manifest.grid.count(16)
    first = math.ceil(20.5 / hop)
    assert [window.index for window in windows] == list(range(first, first + count))
    assert all(window.eeg is not None and window.fmri is not None for window in windows)
    assert (assembler.expected(ZERO + 70), assembler.reached(ZERO + 70), assembler.done()) == (
        count,
        count,
        True,
    )
    assert [assembler.clip(window) for window in windows] == list(range(first, first + count))
    # On the time line of the whole run.
    assert [window.session_s for window in windows] == pytest.approx(
        [window.index * hop for window in windows]
    )


def test_a_session_that_was_there_before_its_run_begins_with_the_first_window() -> None:
    _, windows = joined(-3.0, 16)
    assert windows[0].index == 0
    # The first volume still came: nothing of the run was missed but samples.
    _, windows = joined(1.0, 16)
    assert windows[0].index == 0


def test_without_seconds_the_windows_before_a_session_joined_count_too() -> None:
    assembler, windows = joined(20.5, None)
    assert windows[0].index == 0
    assert assembler.expected(ZERO + 70) == len(windows)
