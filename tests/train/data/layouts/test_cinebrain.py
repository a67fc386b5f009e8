"""CineBrain is read as it was released, from its archives or unpacked, and what is wrong with it is named."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.layouts.laboratory import heard_hz
from train.data.cinebrain_clips import place_of
from train.data.layouts import cinebrain
from train.data.sets.opening import opened, recognised


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, release.Written]:
    folder = tmp_path_factory.mktemp("cinebrain")
    return folder, release.write(folder)


def small(folder: Path, **options: Any) -> release.Written:
    """Two windows of fMRI of one subject, unless told otherwise."""
    defaults: dict[str, Any] = {
        "subjects": ["sub-0001"],
        "places": [0, 1],
        "films": False,
        "eeg": False,
        "unpacked": True,
    }
    return release.write(folder, **(defaults | options))


def test_the_table_says_who_saw_what_and_when(packed: tuple[Path, release.Written]) -> None:
    data = opened(packed[0])
    table = data.windows
    assert data.layout == "cinebrain"
    assert list(data.columns) == ["eeg", "fmri", "clips", "captions"]
    assert (data.window_s, data.lag_s, data.tr_s, data.sfreq, data.fps) == (4, 4.8, 0.8, 1000, 8)
    assert data.chain == "offline"
    assert not data.missing
    assert table.subjects == ["sub-0001", "sub-0003"]
    first = table.subject == "sub-0001"
    runs = [
        "run-01",
        "run-01",
        "run-02",
        "run-02",
        "run-11",
        "run-11",
        "run-19",
        "run-19",
        "run-20",
        "run-20",
    ]
    assert table.run[first].tolist() == runs
    assert table.start_s[first].tolist() == [0, 4] * 5
    assert table.held_out[first].tolist() == [False] * 6 + [True] * 4
    assert table.shown[first][4:].tolist() == ["002700", "002701", "004860", "004861", "005130", "005131"]
    # The published test numbers begin with 7560; they are season 11 alone.
    assert table.shown[~first][4:].tolist() == ["005400", "005401", "007560", "007561", "007830", "007831"]
    assert table.shown[first][:4].tolist() == table.shown[~first][:4].tolist()


def test_a_clip_of_season_11_is_read_from_its_place_in_the_recording(
    packed: tuple[Path, release.Written],
) -> None:
    folder, written = packed
    data = opened(folder)
    [row] = np.flatnonzero((data.windows.subject == "sub-0003") & (data.windows.shown == "007560"))
    # 5 (7560 - 2700) = 24300.
    expected = np.stack([written.fmri["sub-0003", n] for n in range(24300, 24305)])
    np.testing.assert_array_equal(data.read("fmri", [row])[0], expected.astype(np.float32))


@pytest.mark.parametrize("unpacked", [False, True])
def test_what_is_read_is_what_was_written(tmp_path: Path, unpacked: bool) -> None:
    written = release.write(tmp_path, ["sub-0002"], [3, 4860], unpacked=unpacked)
    data = opened(tmp_path)
    rows = [1, 0]
    eeg = data.read("eeg", rows)
    assert eeg.shape == (2, 64, 4000)
    assert eeg.dtype == np.float32
    for n, place in enumerate([4860, 3]):
        numbers = range(5 * place, 5 * place + 5)
        segments = [written.eeg["sub-0002", k][:64] for k in numbers]
        np.testing.assert_array_equal(eeg[n], np.concatenate(segments, axis=1))
        volumes = np.stack([written.fmri["sub-0002", k] for k in numbers]).astype(np.float32)
        np.testing.assert_array_equal(data.read("fmri", rows)[n], volumes)
        clip = data.read("clips", rows)[n]
        assert clip.shape == (33, 48, 64, 3)
        assert np.abs(clip.astype(int) - written.films[place]).mean() < 12
        assert data.read("captions", rows)[n] == written.captions[place]


def test_places_and_clips_are_the_inverse_of_each_other() -> None:
    for subject in cinebrain.clips.SECOND:
        places = np.arange(5400)
        clips = cinebrain.clips.clips_at(subject, places)
        assert [place_of(subject, clip) for clip in clips.tolist()] == places.tolist()
        assert place_of(subject, 8100) is None
    assert place_of("sub-0001", 5400) is None
    assert place_of("sub-0003", 5399) is None


def test_a_subject_whose_bytes_are_anothers_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(10, 4))
    volumes = {"sub-0001": values, "sub-0005": values, "sub-0006": values + 1}
    small(tmp_path, subjects=volumes, places=[0, 2700], volumes=volumes)
    with refused(
        UsageError,
        "cinebrain-duplicate-subject",
        explanation=re.compile(r"^sub-0001 and sub-0005 .* 2 runs \(run-01, run-11\)"),
    ):
        opened(tmp_path)
    data = opened(tmp_path, subjects=["1", "sub-0006"])
    assert data.windows.subjects == ["sub-0001", "sub-0006"]
    assert not any("sub-0005" in note for note in data.notes)
    assert any("copy of that of sub-0001" in note for note in opened(tmp_path, subjects=["5"]).notes)


def test_holes_that_everybody_has_are_no_sign_of_a_copy(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    volumes = {subject: draws.normal(size=(10, 4)) for subject in ("sub-0001", "sub-0002")}
    for values in volumes.values():
        values[:5] = 0
    small(tmp_path, subjects=volumes, places=[0, 2700], volumes=volumes)
    assert len(opened(tmp_path).windows) == 4


@pytest.mark.parametrize("cut", ["in a file", "in a header", "between two files", "empty"])
def test_an_archive_that_is_cut_short_is_named_when_the_folder_is_opened(tmp_path: Path, cut: str) -> None:
    small(tmp_path, unpacked=False)
    path = tmp_path / "sub-0001" / "fMRI_preprocessed_data.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    ends = {
        "in a file": last.offset_data + 10,
        "in a header": last.offset + 100,
        "between two files": last.offset,
        "empty": 0,
    }
    with path.open("r+b") as file:
        file.truncate(ends[cut])
    with refused(UsageError, "archive-truncated", path=path):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        (
            release.npy(np.zeros(6)),
            "cinebrain-shape-mismatch",
            {"shape": (6,), "dtype": "float64", "expected": (7,)},
        ),
        (
            release.npy(np.array([1.0, np.nan, np.inf, 0, 0, 0, 0])),
            "cinebrain-nonfinite-values",
            {"nonfinite_values": 2},
        ),
        (release.npy(np.array(["a"] * 7)), "cinebrain-shape-mismatch", {"dtype": "<U1"}),
        (b"no array", "member-not-array", {}),
        (release.npy(np.zeros(7))[:-8], "member-not-array", {}),
    ],
)
def test_a_file_that_is_wrong_is_named_when_it_is_read(
    tmp_path: Path, content: bytes, code: str, values: dict[str, Any]
) -> None:
    small(tmp_path)
    path = tmp_path / "sub-0001" / "visual_audio" / "7.npy"
    path.write_bytes(content)
    data = opened(tmp_path)
    assert data.read("fmri", [0]).shape == (1, 5, 7)
    with refused(UsageError, code, member=path, **values):
        data.read("fmri", [0, 1])


def test_segments_of_another_length_are_named(tmp_path: Path) -> None:
    small(tmp_path, eeg=True)
    path = tmp_path / "sub-0001" / "eeg_02" / "2.npy"
    path.write_bytes(release.npy(np.zeros((69, 400), np.float32)))
    with refused(UsageError, "cinebrain-shape-mismatch", member=path, shape=(69, 400)):
        opened(tmp_path).read("eeg", [0])
    path.write_bytes(release.npy(np.ones((63, 800), np.float32)))
    with refused(
        UsageError, "cinebrain-shape-mismatch", shape=(63, 800), dtype="float32", expected=(64, 800)
    ):
        opened(tmp_path).read("eeg", [0])


def test_a_window_whose_signals_are_not_whole_is_left_out_and_its_hole_is_named(tmp_path: Path) -> None:
    release.write(tmp_path, ["sub-0001"], [0, 1, 2], unpacked=True)
    (tmp_path / "sub-0001" / "eeg_02" / "6.npy").unlink()
    (tmp_path / "videos" / "000002.mp4").unlink()
    data = opened(tmp_path)
    assert data.windows.shown.tolist() == ["000000", "000002"]
    assert list(data.missing) == ["sub-0001/eeg_02/6.npy", "videos/000002.mp4"]
    with refused(UsageError, "cinebrain-video-missing", clip=2):
        data.read("clips", [1])
    path = tmp_path / "sub-0001" / "visual_audio" / "1.npy"
    path.unlink()
    with refused(UsageError, "member-unreadable", member=path, error="No such file or directory"):
        data.read("fmri", [0])


def test_a_part_of_the_release_is_enough(tmp_path: Path) -> None:
    small(tmp_path)
    data = opened(tmp_path)
    assert list(data.columns) == ["fmri"]
    assert (data.sfreq, data.fps) == (None, None)
    assert list(data.missing) == [
        "sub-0001/EEG_preprocessed_data.tar",
        "videos.tar",
        "captions-qwen-2.5-vl-7b.json",
    ]
    with refused(UsageError, "data-missing-column", column="eeg", available=["fmri"]):
        data.read("eeg", [0])
    assert not data.regions("sub-0001")


def test_windows_of_several_subjects_are_not_read_together(packed: tuple[Path, release.Written]) -> None:
    with pytest.raises(ValueError, match=r"windows of one subject were expected"):
        opened(packed[0]).read("fmri", [0, 10])


def test_a_clip_that_is_too_short_or_no_film_is_named(tmp_path: Path) -> None:
    release.write(tmp_path, ["sub-0001"], [0, 1], unpacked=True, eeg=False)
    release.write_mp4(tmp_path / "videos" / "000000.mp4", release.film(0)[:30], 8)
    (tmp_path / "videos" / "000001.mp4").write_bytes(b"no film")
    data = opened(tmp_path)
    with refused(
        UsageError,
        "cinebrain-video-truncated",
        member=tmp_path / "videos" / "000000.mp4",
        frames=30,
        expected=33,
    ):
        data.read("clips", [0])
    with refused(UsageError, "film-unreadable", path=tmp_path / "videos" / "000001.mp4"):
        data.read("clips", [1])


def test_captions_that_are_no_list_or_lack_a_clip_are_named(tmp_path: Path) -> None:
    release.write(tmp_path, ["sub-0001"], [0, 1], unpacked=True, eeg=False)
    path = tmp_path / "captions-qwen-2.5-vl-7b.json"
    path.write_text(json.dumps([{"video": "videos/000000.mp4", "text": "One."}]))
    data = opened(tmp_path)
    assert data.read("captions", [0]).tolist() == ["One."]
    with refused(UsageError, "cinebrain-caption-missing", clip=1):
        data.read("captions", [1])
    path.write_text('{"a": 1}')
    with refused(UsageError, "cinebrain-list-invalid"):
        opened(tmp_path)
    path.write_text("[")
    with refused(UsageError, "cinebrain-list-unreadable"):
        opened(tmp_path)


def test_folders_and_subjects_that_are_not_there_are_named(tmp_path: Path) -> None:
    with refused(UsageError, "data-not-folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with refused(UsageError, "layout-unrecognised", entries="other"):
        opened(tmp_path)
    small(tmp_path)
    assert recognised(tmp_path) == "cinebrain"
    with refused(UsageError, "layout-unknown", layout="tars", available=re.compile("cinebrain.*neuroclips")):
        opened(tmp_path, "tars")
    with refused(UsageError, "data-no-subjects"):
        opened(tmp_path, "bids")
    with refused(UsageError, "cinebrain-unknown-subject", subjects="sub-0004", available="sub-0001"):
        opened(tmp_path, subjects=["4"])
    small(tmp_path, subjects=["sub-0012"])
    with refused(UsageError, "cinebrain-unknown-subject", subjects="sub-0012"):
        opened(tmp_path)


def test_the_sound_of_each_clip_is_read_where_the_videos_have_it(tmp_path: Path) -> None:
    small(tmp_path, films=True, sound=True)
    data = opened(tmp_path)
    assert "sound" in data.columns
    sounds = data.read("sound", [1, 0])
    assert sounds.shape == (2, 4 * 16_000)
    assert [heard_hz(sound) for sound in sounds] == pytest.approx([301, 300], abs=0.3)
