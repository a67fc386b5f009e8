"""Windows of a data set as training takes them: split by runs, with statistics of what teaches alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rtdecode.bundle import EegInput
from rtdecode.disk.clip_file import ComputedClip
from rtdecode.errors import UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.signal.volume.projection import Projection
from tests.refusals import refused
from tests.train.data import cinebrain_folder
from tests.train.data.held import MemoryDataSet, table
from tests.train.data.layouts import released
from train.data.chain import draft_bundle
from train.data.dataset import Acquired
from train.data.set_windows import SetWindows
from train.data.sets import set_node
from train.data.sets.set_node import DataSetWindows
from train.data.splits import by_runs, trials
from train.data.window_arrays import resampled
from train.metrics.pixels import NearestClips

NODE = DataSetWindows(EegBand(), Baseline(), sfreq=125, voxels=2000, subject="sub-0001")


def node(**changes: Any) -> DataSetWindows:
    return replace(NODE, **changes)


@pytest.fixture(scope="module")
def cinebrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    cinebrain_folder.write(folder)
    return folder


def random_data_set(*windows: tuple[str, str, str, bool], voxels: int = 3, seed: int = 0) -> MemoryDataSet:
    """Signals and clips that nothing drives; the clips of one name are the same."""
    rng = np.random.default_rng(seed)
    names = sorted({film for _, _, film, _ in windows})
    films = {name: rng.integers(0, 256, (6, 16, 24, 3)).astype(np.uint8) for name in names}
    values: Mapping[Any, Sequence[NDArray[Any]]] = {
        "fmri": [rng.normal(5, 2, (5, voxels)) for _ in windows],
        "eeg": [rng.normal(0, 20, (2, 400)) for _ in windows],
        "clips": [films[film] for _, _, film, _ in windows],
    }
    return MemoryDataSet(table(*windows), values, fps=1.5)


def opened(data: MemoryDataSet, test: Sequence[str], **changes: Any) -> SetWindows:
    """Open a data set in memory as the recipe's node does with a folder."""
    recipe_node = node(subject="", test=",".join(test), **changes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(set_node, "opened", lambda *_: data)
        return recipe_node.opened(Path("held"))


def test_what_is_held_out_leaves_no_trace_in_what_teaches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = rng.normal(3, 2, (5 * len(cinebrain_folder.PLACES), 7))
    # The last four places are of the runs that the release keeps for testing.
    altered = volumes.copy()
    altered[-20:] += 100
    variants = []
    for name, values in (("as it is", volumes), ("altered", altered)):
        folder = tmp_path / name
        cinebrain_folder.write(folder, ["sub-0001"], volumes={"sub-0001": values})
        variants.append(node().opened(folder))
    plain, changed = (windows.taught() for windows in variants)
    for name, values in plain.stats.items():
        np.testing.assert_array_equal(values, changed.stats[name], err_msg=name)
    for name, values in plain.signals.items():
        np.testing.assert_array_equal(values, changed.signals[name], err_msg=name)
    np.testing.assert_array_equal(plain.clips, changed.clips)
    assert len(plain.clips) == 6
    # What differs is there to be judged.
    before, after = (windows.test_runs()[0].arrays(taught_bundle(windows)) for windows in variants)
    assert np.abs(before["fmri"] - after["fmri"]).min() > 10


def taught_bundle(windows: SetWindows) -> Any:
    taught = windows.taught()
    return draft_bundle(taught.manifest, taught.stats, taught.projection)


def test_signals_are_standardised_by_what_teaches(cinebrain: Path) -> None:
    windows = node().opened(cinebrain)
    taught = windows.taught()
    volumes = taught.signals["fmri"][:].reshape(-1, 7)
    np.testing.assert_allclose(volumes.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(volumes.std(0), 1, atol=1e-5)
    # 1000 Hz became 125 Hz.
    assert taught.signals["eeg"].shape == (6, 64, 500)
    assert taught.signals["eeg_mask"][:].min() == taught.signals["fmri_mask"][:].min() == 1
    assert taught.manifest.chain == "offline"
    assert taught.manifest.provenance["taught"] == windows.digest
    assert taught.manifest.provenance["held_out"] == ["run-19", "run-20"]
    assert [run.windows for run in windows.test_runs()] == [2, 2]


def test_a_sine_keeps_its_course_at_another_rate() -> None:
    def sine(rate: int) -> NDArray[np.float64]:
        return np.sin(2 * np.pi * 10 * np.arange(4 * rate) / rate)[None, None]

    brought = resampled(sine(1000), 500)
    np.testing.assert_allclose(brought[..., 50:-50], sine(125)[..., 50:-50], atol=2e-3)
    assert resampled(brought, 500) is brought


def test_a_clip_of_another_rate_and_size_shows_the_same_at_every_instant() -> None:
    """Six frames at 3 Hz, twice as wide as they have to be."""
    levels = np.arange(0, 240, 40)
    clip = np.broadcast_to(levels[:, None, None, None], (6, 128, 384, 3)).astype(np.uint8)
    data = random_data_set(("A", "1", "a", False), ("A", "2", "b", False))
    wide_clips = {**data.values, "clips": [clip, clip]}
    windows = opened(replace(data, values=wide_clips, fps=3, window_s=2.0), [], fps=8, clip="64x96")
    (fitted,) = windows.clips(np.array([0]))
    assert fitted.shape == (17, 64, 96, 3)
    assert (fitted.reshape(17, -1).std(1) == 0).all()
    expected = [levels[min(n * 3 // 8, 5)] for n in range(17)]
    assert fitted[:, 0, 0, 0].tolist() == expected


def test_runs_that_show_the_same_are_left_out_together() -> None:
    runs = [
        ("A", run, film, False) for run, films in (("1", "ab"), ("2", "cd"), ("3", "bx")) for film in films
    ]
    windows = opened(random_data_set(*runs, ("A", "4", "z", False)), ["4"])
    folds = windows.folds()
    assert folds.tolist() == [folds[0]] * 2 + [folds[2]] * 2 + [folds[0]] * 2
    assert sorted(set(folds.tolist())) == [0, 1]


def test_where_all_runs_show_the_same_its_time_is_divided() -> None:
    film_names = [f"{n:02d}" for n in range(10)]
    taught = [("A", run, name, False) for run in ("1", "2") for name in film_names]
    folds = opened(random_data_set(*taught, ("A", "3", "z", False)), ["3"]).folds()
    assert folds[:10].tolist() == folds[10:].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_windows_that_look_like_what_teaches_are_named() -> None:
    data = random_data_set(
        ("A", "1", "a", False), ("A", "1", "b", False), ("A", "2", "c", False), ("A", "2", "d", False)
    )
    values = dict(data.values)
    clips = list(values["clips"])
    # Another name, and nearly the same picture.
    clips[2] = np.minimum(clips[0].astype(int) + 3, 255).astype(np.uint8)
    windows = opened(replace(data, values=values | {"clips": clips}), ["2"])
    assert windows.clear(windows.split.test).tolist() == [False, True]


def test_the_mean_of_repeats_is_one_window() -> None:
    rows = [("A", "1", "a", False), ("A", "1", "b", False), ("A", "2", "c", True), ("A", "3", "c", True)]
    data = random_data_set(*rows)
    windows = opened(data, ["2", "3"])
    assert [run.windows for run in windows.test_runs()] == [1, 1]
    (averaged,) = windows.test_runs("averaged")
    stats = {
        "fmri_mean": np.zeros(3),
        "fmri_scale": np.ones(3),
        "eeg_mean": np.zeros(2),
        "eeg_scale": np.ones(2),
    }
    signals = windows.signals(averaged.trials, stats, np.arange(3))
    np.testing.assert_allclose(signals["fmri"][0], np.mean(data.values["fmri"][2:], axis=0), rtol=1e-6)
    assert len(signals["eeg"]) == 1


def test_the_voxels_that_follow_what_is_shown_are_read() -> None:
    rows = [("A", f"{run}", f"{run}-{n}", False) for run in range(5) for n in range(12)]
    data = random_data_set(*rows, voxels=30)
    level = [clip[..., 0].mean() for clip in data.values["clips"]]
    driven = [4, 17, 25]
    volumes = [np.array(series) for series in data.values["fmri"]]
    for series, bright in zip(volumes, level, strict=True):
        series[:, driven] += 40 * bright
    data = replace(data, values={**data.values, "fmri": volumes})
    taught = opened(data, ["4"], voxels=3).taught()
    assert taught.projection.voxels.tolist() == driven
    assert taught.signals["fmri"].shape == (48, 5, 3)
    assert taught.stats["fmri_mean"].shape == (3,)
    assert taught.manifest.fmri is not None
    assert taught.manifest.fmri.voxels == 3
    assert taught.manifest.fmri.shape == [30, 1, 1]


def repeating(segments: int, showings: int) -> MemoryDataSet:
    """Segments of six windows, shown in runs of their own, and a run that is held out."""
    watched = [
        ("A", f"{segment}-{repeat}", f"{segment}-{n}", False)
        for segment in range(segments)
        for repeat in range(showings)
        for n in range(6)
    ]
    return random_data_set(*watched, ("A", "z", "z", False), voxels=30)


def test_voxels_that_respond_alike_to_showings_are_read() -> None:
    data = repeating(8, 2)
    rng = np.random.default_rng(4)
    # What the cells of a clip do not tell: a response of its own to each clip.
    responses = {name: rng.normal(0, 9, 4) for name in dict.fromkeys(data.windows.shown.tolist())}
    alike = [2, 9, 17, 28]
    volumes = [window.copy() for window in data.values["fmri"]]
    for window, name in zip(volumes, data.windows.shown.tolist(), strict=True):
        window[:, alike] += responses[name]
    # In the run that is held out another voxel varies more than any.
    volumes[-1][:, 5] += 1e4
    data = replace(data, values={**data.values, "fmri": volumes})
    windows = opened(data, ["z"], choose="reproducible")
    taught = windows.taught()
    chosen = taught.projection.voxels.tolist()
    assert {*chosen} <= {*alike}
    assert len(chosen) == 2
    assert taught.manifest.provenance["voxels_chosen"] == "reproducible"
    assert taught.stats["fmri_mean"].shape == (2,)
    assert "voxels_chosen" not in opened(data, ["z"], voxels=3).taught().manifest.provenance


@pytest.mark.parametrize(("segments", "showings"), [(8, 1), (2, 2)])
def test_without_repeats_nothing_is_read_for_the_choice(segments: int, showings: int) -> None:
    data = repeating(segments, showings)
    with refused(UsageError, "data-few-repeats"):
        opened(data, ["z"], choose="reproducible")
    # One window, for the shapes of volumes and of EEG.
    assert sum(data.reads) <= 2


class Parcelled(MemoryDataSet):
    """Three voxels, of which two regions share one."""

    def regions(self, subject: str) -> Mapping[str, NDArray[np.bool_]]:
        return {"front": np.array([True, True, False]), "back": np.array([False, True, False])}


@pytest.mark.parametrize(
    ("region", "voxels", "joined"),
    [("front+back", [0, 1], ["front", "back"]), ("back", [1], None), ("", [0, 1, 2], None)],
)
def test_the_voxels_of_joined_regions_are_read_and_the_bundle_says_so(
    region: str, voxels: list[int], joined: list[str] | None
) -> None:
    plain = random_data_set(("A", "1", "a", False), ("A", "1", "b", False), ("A", "2", "c", False))
    windows = opened(Parcelled(plain.windows, plain.values, fps=plain.fps), ["2"], region=region)
    assert windows.voxels.tolist() == voxels
    taught = windows.taught()
    assert taught.projection.voxels.tolist() == voxels
    assert taught.manifest.provenance.get("regions") == joined


def test_signals_may_be_read_as_released_and_that_is_said() -> None:
    rows = (("A", "1", "a", False), ("A", "1", "b", False), ("A", "2", "c", False))
    as_released = opened(random_data_set(*rows), ["2"], standardise=False).taught()
    standardised = opened(random_data_set(*rows), ["2"]).taught()
    windows = random_data_set(*rows)
    # Single precision is what is kept.
    assert np.array_equal(as_released.signals["fmri"][:], windows.read("fmri", [0, 1]).astype(np.float32))
    assert (as_released.stats["fmri_mean"] == 0).all()
    assert (as_released.stats["fmri_scale"] == 1).all()
    assert not np.allclose(standardised.signals["fmri"][:], windows.read("fmri", [0, 1]))
    sentences = as_released.manifest.provenance["told"]
    assert any("no figure of this run is free of that leak" in text for text in sentences)
    assert len(sentences) == len(standardised.manifest.provenance["told"]) + 1


def test_a_set_of_volumes_alone_is_read(tmp_path: Path) -> None:
    released.neuroclips(tmp_path)
    windows = node(subject="subj01").opened(tmp_path)
    assert windows.draft.eeg is None
    assert windows.draft.grid.slots == windows.data.read("fmri", [0]).shape[1]
    taught = windows.taught()
    assert {*taught.signals} == {"fmri", "fmri_mask"}
    # Two seconds at 8 frames a second, in latent frames of four, and the frame before them.
    assert taught.clips_in_memory().shape[1:] == (17, 64, 96, 3)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        (
            {"subject": ""},
            "data-several-subjects",
            {"subject_count": 2, "subjects": ["sub-0001", "sub-0003"]},
        ),
        ({"subject": "sub-0009"}, "cinebrain-unknown-subject", {"subjects": "sub-0009"}),
        (
            {"region": "visual"},
            "data-unknown-region",
            {"region": "visual", "available": "none, for want of an atlas"},
        ),
        (
            {"region": "visual+auditory_mmp"},
            "data-unknown-region",
            {"unknown": ["'visual'", "'auditory_mmp'"]},
        ),
        ({"test": "run-77"}, "split-unknown-run", {"runs": "run-77"}),
        ({"sfreq": 33.3}, "data-grid-invalid", {"error": re.compile("whole samples")}),
        ({"voxels": "lots"}, "data-voxels-invalid", {"voxels": "lots"}),
        ({"voxels": 2.5}, "data-voxels-invalid", {"voxels": 2.5}),
        ({"sfreq": 0}, "data-sfreq-invalid", {"sfreq": 0}),
        (
            {"choose": "best"},
            "data-choose-unknown",
            {"choose": "best", "available": ["driven", "reproducible"]},
        ),
        ({"layout": "betamax"}, "layout-unknown", {"layout": "betamax"}),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    cinebrain: Path, changes: dict[str, Any], code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        node(**changes).opened(cinebrain)


@pytest.mark.parametrize(
    ("subject", "participant"),
    [("sub-01", "held, sub-01"), ("anna", "held, a participant"), ("100610", "held, 100610")],
)
def test_a_name_that_may_be_a_persons_is_not_kept(subject: str, participant: str) -> None:
    windows = opened(random_data_set((subject, "1", "a", False), (subject, "2", "b", False)), [])
    assert windows.participant == participant
    assert windows.division.startswith(f"{participant}: 1 windows")


def test_one_run_cannot_be_judged_by_itself() -> None:
    with refused(UsageError, "data-single-run", subject="A", run="1"):
        opened(random_data_set(("A", "1", "a", False), ("A", "1", "b", False)), [])


@pytest.mark.parametrize(("tr_s", "slots", "after"), [(4 / 3, 3, 0), (0.8, 5, 0), (1.5, 3, 0), (0.8, 7, 2)])
def test_windows_hold_the_volumes_that_were_released(tr_s: float, slots: int, after: int) -> None:
    data = random_data_set(("A", "1", "a", False), ("A", "2", "b", False))
    volumes = [series[:1].repeat(slots, axis=0) for series in data.values["fmri"]]
    with_tr = replace(data, tr_s=tr_s, window_s=4.0, values={**data.values, "fmri": volumes})
    grid = opened(with_tr, []).draft.grid
    assert (grid.slots, grid.after) == (slots, after)


def responses() -> MemoryDataSet:
    """Two videos of a test that were shown three times, each showing a run of its own; six that teach."""
    taught = [("A", f"{video}_{n}", video, False) for video in "abcdef" for n in range(2)]
    tested = [("A", f"{video}_{n}", video, True) for video in "xy" for n in range(3)]
    data = random_data_set(*taught, *tested)
    values = {"fmri": [volumes[:1] for volumes in data.values["fmri"]], "clips": data.values["clips"]}
    return replace(data, tr_s=None, sfreq=None, values=values)


def test_responses_are_told_apart_among_all_that_was_held_out() -> None:
    windows = opened(responses(), [])
    runs = windows.test_runs()
    videos = windows.data.windows.shown
    # No run has more than one of them: the first showings of all videos, the second ones, and the third.
    assert [videos[run.rows].tolist() for run in runs] == [["x", "y"]] * 3
    assert len({row for run in runs for row in run.rows.tolist()}) == 6
    # None is taken to go on where another one ended.
    assert (np.diff(runs[0].run_s) > windows.data.window_s).all()
    (averaged,) = windows.test_runs("averaged")
    assert [len(trial) for trial in averaged.trials] == [3, 3]
    # A video is left out with all its showings.
    folds = windows.folds()
    assert (folds[::2] == folds[1::2]).all()
    assert len(set(folds.tolist())) == 5


def test_a_response_is_read_as_one_volume_that_lasts_as_long_as_its_window() -> None:
    grid = opened(responses(), []).draft.grid
    assert (grid.tr, grid.slots, grid.after) == (4, 1, 0)


def test_clips_have_the_rate_and_the_size_that_are_asked_for() -> None:
    data = random_data_set(("A", "1", "a", False), ("A", "2", "b", False))
    windows = opened(data, [], fps=1.5, clip="32x48")
    clip = windows.draft.clip
    assert (clip.frames, clip.height, clip.width, clip.fps) == (6, 32, 48, 1.5)
    assert windows.clips(np.array([0])).shape == (1, 6, 32, 48, 3)
    assert windows.test_runs()[0].watched().frames.shape == (6, 32, 48, 3)
    with refused(UsageError, "data-grid-invalid", error=re.compile("10.8 frames at 2.7 frames a second")):
        opened(data, [], fps=2.7)


def test_clips_that_are_too_many_to_be_kept_are_read_when_they_are_looked_at() -> None:
    data = random_data_set(*(("A", str(n), str(n), False) for n in range(6)), voxels=9)
    in_memory = opened(data, ["5"], voxels=3).taught()
    windows = replace(opened(data, ["5"], voxels=3), most_clip_bytes=0)
    assert {type(clip) for clip in windows.taught_clips} == {ComputedClip}
    taught = windows.taught()
    np.testing.assert_array_equal(taught.clips_in_memory(), in_memory.clips_in_memory())
    np.testing.assert_array_equal(taught.stats["mean_clip"], in_memory.stats["mean_clip"])
    np.testing.assert_array_equal(taught.projection.voxels, in_memory.projection.voxels)
    mean = taught.stats["mean_clip"]
    (nearest,) = NearestClips(windows.taught_clips, mean).to([in_memory.clips[2]])
    # What was chosen is looked at often, and kept in memory.
    assert isinstance(nearest, np.ndarray)
    np.testing.assert_array_equal(nearest, in_memory.clips[2])


def test_a_size_of_clips_that_is_none_is_refused() -> None:
    data = random_data_set(("A", "1", "a", False), ("A", "2", "b", False))
    with refused(UsageError, "frame-size-malformed", key="data.clip", size="480"):
        opened(data, [], clip=480)
    with refused(UsageError, "data-grid-invalid", error=re.compile("multiples of 8, found .60, 96.")):
        opened(data, [], clip="60x96")


def test_of_both_signals_the_volumes_alone_are_read() -> None:
    data = random_data_set(("A", "1", "a", False), ("A", "1", "c", False), ("A", "2", "b", False))
    windows = opened(data, [], modalities=["fmri"])
    assert windows.draft.modalities == ["fmri"]
    assert {*windows.taught().signals} == {"fmri", "fmri_mask"}
    with refused(UsageError, "data-modalities-unknown"):
        opened(data, [], modalities=["eeg"])


@pytest.mark.parametrize(("key", "length_s"), [("window", 2), ("lag", 5)])
def test_windows_that_were_released_are_not_cut_anew(cinebrain: Path, key: str, length_s: float) -> None:
    with refused(UsageError, "data-window-released", key=key, asked=length_s, window_s=4.0, lag_s=4.8):
        node(**{key: length_s}).opened(cinebrain)


@pytest.mark.parametrize("changes", [{"window": "long"}, {"fps": "fast"}])
def test_what_is_no_length_is_refused(cinebrain: Path, changes: dict[str, Any]) -> None:
    with refused(UsageError, "data-cut-invalid"):
        node(**changes).opened(cinebrain)


def test_a_set_without_clips_is_refused() -> None:
    data = random_data_set(("A", "1", "a", False), ("A", "2", "b", False))
    columns: Any = {name: data.values[name] for name in ("fmri", "eeg")}
    with refused(UsageError, "data-missing-column", column="clips", available=["fmri", "eeg"]):
        opened(replace(data, values=columns), ["2"])


def test_the_last_run_is_held_out_where_a_release_keeps_none() -> None:
    windows = opened(
        random_data_set(("A", "1", "a", False), ("A", "2", "b", False), ("A", "3", "c", False)), []
    )
    assert by_runs(windows.data.windows, ["3"]).test.tolist() == windows.split.test.tolist()
    assert [len(repeats) for repeats in trials(windows.data.windows, windows.split.test)] == [1]


def test_a_bundle_reads_voxels_where_a_session_acquires_them() -> None:
    """Values of the set are differences from a level, which the bundle follows from there on."""
    head = Projection(np.array([2, 5, 9]), (2, 3, 2), np.diag([3.0, 3.0, 3.0, 1.0]))
    level = np.array([900, 1000, 1100], np.float32)
    eeg = EegInput(["Cz", "Oz"], "FCz", "microvolts", EegBand())
    acquisition = Acquired(head, Baseline(rate=0.005), level, eeg)
    data = replace(
        random_data_set(*((("A", str(n), str(n), False)) for n in range(8))), acquisition=acquisition
    )
    windows = opened(data, ["7"], voxels=2)
    taught = windows.taught()
    assert taught.projection.shape == (2, 3, 2)
    assert {*taught.projection.voxels.tolist()} < {2, 5, 9}
    places = windows.places(taught.projection)
    np.testing.assert_array_equal(taught.stats["fmri_mean"], level[places])
    assert taught.manifest.fmri is not None
    assert (taught.manifest.fmri.shape, taught.manifest.fmri.baseline.rate) == ([2, 3, 2], 0.005)
    assert taught.manifest.eeg == eeg
    bundle = draft_bundle(taught.manifest, taught.stats, taught.projection)
    (run,) = windows.test_runs()
    values = data.values["fmri"][7][:, places] / taught.stats["fmri_scale"]
    np.testing.assert_allclose(run.arrays(bundle)["fmri"][0], values, rtol=1e-5)
    row = Projection(taught.projection.voxels, (12, 1, 1), np.eye(4))
    with refused(UsageError, "data-volumes-mismatch", shape=[2, 3, 2], expected=[12, 1, 1]):
        windows.places(row)
