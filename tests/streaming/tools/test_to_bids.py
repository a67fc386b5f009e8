"""A recording is written as BIDS, MNE-Python and nibabel read it, and importing it gives it back."""

import json
from fractions import Fraction
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode.disk.derived import derived
from rtdecode.disk.recording import Recording, RecordingWriter
from rtdecode.disk.tsv import read_tsv
from rtdecode.errors import UsageError
from rtdecode.types import EegChunk, Montage, Trigger, Volume
from streaming.importing import command
from streaming.session import replay
from streaming.tools import to_bids
from tests.bids_validator import errors
from tests.streaming.bundles import make_bundle
from train.data.layouts.bids_sources import bids_sources

mne = pytest.importorskip("mne")

SFREQ = 200
TR = 0.8
CHANNELS = ("Fp1", "Cz", "Oz", "ECG")
MONTAGE = Montage(CHANNELS, SFREQ, "FCz", ("eeg", "eeg", "eeg", "ecg"))
RNG = np.random.default_rng(1)
SAMPLES = RNG.normal(0, 20, (4, 20 * SFREQ)).astype(np.float32)
VOXELS = RNG.integers(0, 2000, (15, 6, 5, 4)).astype(np.int16)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
BEGIN = 1003.1234


def volume(index: int, uid: str = "a") -> Volume:
    read_at = BEGIN + TR * (index + 1)
    return Volume(VOXELS[index], AFFINE, index, 4, TR, TR * index, TR, read_at, read_at, read_at, uid=uid)


def write(
    path: Path,
    *,
    lost_samples: bool = False,
    lost_volume: int | None = None,
    triggers: bool = True,
    **meta: object,
) -> Path:
    """A recording of 20 s with 15 volumes; half a second of samples and one volume may be missing."""
    items: list[EegChunk | Trigger | Volume] = [
        Trigger(BEGIN + TR * n, "R128", BEGIN + TR * n) for n in range(len(VOXELS) if triggers else 0)
    ]
    items += [volume(n) for n in range(len(VOXELS)) if n != lost_volume]
    for first in range(0, SAMPLES.shape[1], 40):
        stamps = 1000.0 + np.arange(first, first + 40) / SFREQ
        if not (lost_samples and 2000 <= first < 2120):
            items.append(EegChunk(SAMPLES[:, first : first + 40], stamps, float(stamps[-1])))
    with RecordingWriter(path, MONTAGE, {"simulated": True} | meta) as writer:
        for item in sorted(items, key=lambda item: item.arrived_at):
            writer.write(item)
    (path / "truth").mkdir()
    (path / "truth" / "events.tsv").write_text("onset\tduration\ttrial_type\n0\t4\tshot\n")
    return path


def imported(root: Path, out: Path) -> Recording:
    sources = bids_sources(root, "01", {"task": "film"})
    options = command.of_bids(
        command.ImportOptions([root], out),
        bold=sources.bold,
        eeg=sources.eeg,
        tr_s=sources.tr_s,
        sidecar=sources.sidecar,
        markers_beside=sources.markers,
        events=sources.events,
        film=sources.film,
        film_at_s=sources.film_at_s,
        prepared=False,
    )
    assert command.run(options) == 0
    return Recording(out)


def samples(recording: Recording) -> np.ndarray:
    return np.concatenate([item.data for item in recording.events() if isinstance(item, EegChunk)], axis=1)


def test_a_recording_comes_back(tmp_path: Path) -> None:
    source = write(tmp_path / "rec")
    assert to_bids.run(source, tmp_path / "bids") == 0
    again = imported(tmp_path / "bids", tmp_path / "again")
    assert again.montage is not None
    assert (again.montage.channels, again.montage.kinds) == (MONTAGE.channels, MONTAGE.kinds)
    assert np.array_equal(samples(again), SAMPLES)
    items = list(again.events())
    stamps = [item.stamp for item in items if isinstance(item, Trigger)]
    assert stamps == pytest.approx([BEGIN - 1000 + TR * n for n in range(15)], abs=1e-8)
    volumes = [item for item in items if isinstance(item, Volume)]
    assert all(np.array_equal(item.data, VOXELS[item.index]) for item in volumes)
    assert {item.tr_s for item in volumes} == {TR}
    assert again.meta["simulated"]
    assert not again.offline
    assert again.truth is not None
    assert derived(source) == [{"kind": "BIDS folder", "path": str(tmp_path / "bids")}]


def test_mne_and_nibabel_read_it(tmp_path: Path) -> None:
    to_bids.run(write(tmp_path / "rec"), tmp_path / "bids", subject="07", task="rest")
    folder = tmp_path / "bids" / "sub-07"
    raw = mne.io.read_raw(folder / "eeg" / "sub-07_task-rest_eeg.vhdr", verbose="error")
    assert raw.ch_names == list(CHANNELS)
    assert raw.info["sfreq"] == SFREQ
    assert list(raw.annotations.description) == ["Response/R128"] * 15
    bold = nib.load(folder / "func" / "sub-07_task-rest_bold.nii.gz")
    assert np.array_equal(np.asarray(bold.dataobj), np.moveaxis(VOXELS, 0, 3))
    assert np.array_equal(bold.affine, AFFINE)
    assert bold.header.get_zooms()[3] == pytest.approx(TR)
    assert bold.header.get_xyzt_units() == ("mm", "sec")
    for path in (tmp_path / "bids").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_what_was_lost_is_a_hole_and_is_listed(tmp_path: Path) -> None:
    source = write(tmp_path / "rec", lost_samples=True, lost_volume=6)
    to_bids.run(source, tmp_path / "bids")
    folder = tmp_path / "bids" / "sub-01"
    assert json.loads((folder / "func/sub-01_task-film_bold.json").read_text())["LostVolumes"] == [6]
    assert json.loads((folder / "eeg/sub-01_task-film_eeg.json").read_text())["LostSamples"] == 120
    again = imported(tmp_path / "bids", tmp_path / "again")
    read = samples(again)
    assert np.isnan(read[:, 2000:2120]).all()
    assert np.array_equal(read[:, 2120:], SAMPLES[:, 2120:])
    indices = [item.index for item in again.events() if isinstance(item, Volume)]
    assert indices == [n for n in range(15) if n != 6]


def test_offline_signals_stay_offline(tmp_path: Path) -> None:
    to_bids.run(write(tmp_path / "rec", chain="offline"), tmp_path / "bids")
    assert imported(tmp_path / "bids", tmp_path / "again").offline


def test_what_makes_no_data_set_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "rec")
    with pytest.raises(UsageError) as caught:
        to_bids.run(source, tmp_path / "bids", subject="sub-1")
    assert caught.value.code == "bids-label-invalid"
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        to_bids.run(source, tmp_path / "bids")
    assert caught.value.code == "bids-folder-not-empty"
    with RecordingWriter(tmp_path / "two", None, {}) as writer:
        for item in (volume(0), volume(1), volume(0, "b")):
            writer.write(item)
    with pytest.raises(UsageError) as caught:
        to_bids.run(tmp_path / "two", tmp_path / "new")
    assert caught.value.code == "bids-several-runs"
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    to_bids.run(write(tmp_path / "rec"), tmp_path / "bids")
    with pytest.raises(UsageError) as caught:
        bids_sources(tmp_path / "bids", "02", {"task": None})
    assert caught.value.code == "import-bids-run-unclear"
    assert "sub-01 task-film" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        bids_sources(tmp_path, "01", {})
    assert caught.value.code == "import-bids-folder"


def replayed(source: Path, out: Path) -> Path:
    """A replay of a recording by a bundle that reads its EEG."""
    bundle = make_bundle(out.with_name("bundle"), fmri=False, channels=CHANNELS[:3], window=Fraction(2))
    assert replay.run(source, str(bundle.path), "max", out) == 0
    return out


def test_the_validator_passes_and_clips_are_derivatives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "rec", lost_samples=True, lost_volume=6)
    out = replayed(source, tmp_path / "out")
    assert to_bids.run(source, tmp_path / "bids") == 0
    assert f"The clips in it are those of {out}." in capsys.readouterr().err
    assert errors(tmp_path / "bids") == []
    home = tmp_path / "bids/derivatives/rtdecode"
    table = read_tsv(home / "sub-01/func/sub-01_task-film_events.tsv")
    clips = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    clips.sort(key=lambda clip: clip["window_s"])
    assert len(table) == len(clips) > 2
    for row, clip in zip(table, clips, strict=True):
        assert (tmp_path / "bids" / row["clip_file"]).read_bytes() == (out / clip["file"]).read_bytes()
        assert float(row["onset"]) == clip["window_s"][0]
        assert float(row["missing_eeg"]) == clip["missing"]["eeg"]
        assert "simulated" in row["clip_file"]
    assert "SIMULATED PARTICIPANT" in (home / "README").read_text()
    assert {entry["kind"] for entry in derived(source)} == {"clips", "BIDS folder"}
    for path in (tmp_path / "bids").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    # What is no data set of BIDS is found.
    (home / "sub-01/func/sub-01_task-film_clips.tsv").write_text("a\n")
    assert len(errors(tmp_path / "bids")) == 1


def test_clips_of_another_recording_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "rec")
    out = replayed(source, tmp_path / "out")
    with RecordingWriter(tmp_path / "short", None, {"simulated": True}) as writer:
        writer.write(volume(0))
    for recording, fault in (
        (tmp_path / "short", "its last window ends at"),
        (write(tmp_path / "real", simulated=False), "of a simulated participant"),
    ):
        with pytest.raises(UsageError) as caught:
            to_bids.run(recording, tmp_path / "bids", clips=out)
        assert caught.value.code == "bids-clips-elsewhere"
        assert fault in str(caught.value)
    next((out / "clips").glob("*.mp4")).unlink()
    with pytest.raises(UsageError) as caught:
        to_bids.run(source, tmp_path / "bids")
    assert caught.value.code == "bids-clip-missing"
    (out / "clips.jsonl").write_text("")
    with pytest.raises(UsageError) as caught:
        to_bids.run(source, tmp_path / "bids", clips=out)
    assert caught.value.code == "bids-no-clips"
    assert not (tmp_path / "bids").exists()


def test_without_triggers_the_sidecar_places_the_volumes(tmp_path: Path) -> None:
    to_bids.run(write(tmp_path / "rec", triggers=False), tmp_path / "bids")
    sidecar = tmp_path / "bids/sub-01/func/sub-01_task-film_bold.json"
    assert json.loads(sidecar.read_text())["FirstVolumeAfterFirstSample"] == pytest.approx(BEGIN - 1000)
    volumes = [
        item for item in imported(tmp_path / "bids", tmp_path / "again").events() if isinstance(item, Volume)
    ]
    assert volumes[0].readable_at == pytest.approx(BEGIN - 1000 + TR)
    sidecar.write_text(
        sidecar.read_text().replace(
            '"FirstVolumeAfterFirstSample": 3', '"FirstVolumeAfterFirstSample": "x", "a": 3'
        )
    )
    with pytest.raises(UsageError) as caught:
        imported(tmp_path / "bids", tmp_path / "no")
    assert caught.value.code == "import-first-volume-invalid"


def test_a_film_that_was_played_is_an_event(tmp_path: Path) -> None:
    source = write(tmp_path / "rec")
    (source / "truth" / "events.tsv").unlink()
    with (source / "film.jsonl").open("w") as file:
        for film_s, label in ((0.0, "film start 0123456789abcdef 8 80"), (0.0, "frame 0"), (1.0, "frame 8")):
            stamp = BEGIN + 2.4 + film_s
            file.write(json.dumps({"stamp": stamp, "label": label, "arrived_at": stamp}) + "\n")
    assert len(Recording(source).films()) == 1
    to_bids.run(source, tmp_path / "bids")
    (row,) = read_tsv(tmp_path / "bids/sub-01/func/sub-01_task-film_events.tsv")
    assert float(row["onset"]) == pytest.approx(2.4, abs=1e-3)
    assert (row["duration"], row["trial_type"]) == ("10", "film")
    assert errors(tmp_path / "bids") == []
