"""Small folders in published layouts whose volumes follow what was shown, and recordings of their values."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.recording import RecordingWriter
from rtdecode.disk.video import write_mp4
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import EegChunk, Montage, Volume
from tests.recordings import record
from tests.train.data.layouts.laboratory import write_bold, write_events
from tests.train.data.layouts.released import SIDE, rng
from train.data.dataset import DataSet

# Colours of a picture of 2 x 2.
COLOURS = 12
VOXELS = 30
# An amplifier runs so long before the first volume, s.
SETTLING_S = 10


def looks(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Draw pictures of 2 x 2 colours (picture, 2, 2, 3), and what drives voxels (picture, colour)."""
    colours = rng(seed).integers(30, 225, (count, 2, 2, 3))
    return colours.astype(np.uint8), colours.reshape(count, COLOURS) / 60 - 2


def neuroclips(folder: Path, length: int = 4) -> Path:
    """Write cc2017 as NeuroClips released it: 18 and 5 films of so many windows, each shown twice."""
    folder.mkdir()
    weights = rng(1).normal(0, 1, (COLOURS, VOXELS))
    for part, segments in (("train", 18), ("test", 5)):
        pictures, drive = looks(segments * length, segments)
        half = SIDE // 2
        frames = pictures.repeat(half, 1).repeat(half, 2).transpose(0, 3, 1, 2)
        clips = np.repeat(frames[:, None], 6, 1).astype(np.float32) / 255
        torch.save(torch.from_numpy(clips), folder / f"GT_{part}_3fps.pt")
        evoked = (drive @ weights)[:, None]
        values = evoked + rng(segments).normal(0, evoked.std() / 2, (len(drive), 2, VOXELS))
        torch.save(torch.from_numpy(values.astype(np.float32)), folder / f"subj01_{part}_fmri.pt")
    return folder


def bids(folder: Path, *, runs: int = 4, windows: int = 16, tr_s: float = 2.0, lag: int = 2) -> Path:
    """Write a subject whose volumes follow films of pictures that change with each volume.

    Parameters
    ----------
    folder : Path
    runs : int
    windows : int
        Pictures of a film, each shown for a TR.
    tr_s : float
    lag : int
        Volumes by which they follow.
    """
    folder.mkdir()
    (folder / "dataset_description.json").write_text('{"Name": "own", "BIDSVersion": "1.9.0"}')
    (folder / "task-film_bold.json").write_text(json.dumps({"RepetitionTime": tr_s}))
    weights = rng(2).normal(0, 1, (COLOURS, VOXELS))
    rate = 10
    for run in range(1, runs + 1):
        pictures, drive = looks(windows, 50 + run)
        frames = pictures.repeat(16, 1).repeat(24, 2).repeat(round(tr_s * rate), 0)
        film = folder / "stimuli" / f"film-{run}.mp4"
        film.parent.mkdir(exist_ok=True)
        write_mp4(film, frames, rate)
        evoked = drive @ weights
        values = rng(run).normal(0, evoked.std() / 2, (windows + lag, VOXELS))
        values[lag:] += evoked
        # In the units of a scanner, every voxel lies in the head.
        volumes = (1000 + 10 * values.T).reshape(VOXELS // 5, 5, 1, -1)
        place = folder / "sub-01" / "func"
        name = f"sub-01_task-film_run-{run}"
        write_bold(place / f"{name}_bold.nii.gz", volumes.astype(np.float32), None, tr_s)
        write_events(place / f"{name}_events.tsv", [("0", f"{windows * tr_s}", "film", film.name)])
    return folder


def sessions(folder: Path, *, seeds: Sequence[int], seconds: int, tr_s: float) -> Path:
    """Record simulated sessions, one a seed, of a film of their own."""
    for seed in seeds:
        session = PhantomSession("easy", 1, seed, seconds, sfreq=250, tr_s=tr_s)
        record(session, folder / f"session-{seed}")
    return folder


def replayable(bundle: Bundle, data: DataSet, rows: NDArray[np.int64], folder: Path) -> Path:
    """Write windows of a data set as a recording of the acquisition that a bundle of it reads.

    Values of volumes are those of the set, in the volumes that the bundle reads, and its EEG comes as it was
    released. The volumes before those of the first window repeat its first.

    Parameters
    ----------
    bundle : Bundle
    data : DataSet
    rows : (window,)
        Windows of one run in their order, without a gap.
    folder : Path
    """
    montage = None
    eeg = None
    if bundle.manifest.eeg is not None:
        eeg = np.concatenate(list(data.read("eeg", rows)), axis=1)
        assert data.sfreq is not None
        # Filters have settled before the first window, and the last one is whole once a sample after it came.
        before = eeg[:, : round(SETTLING_S * data.sfreq)][:, ::-1]
        eeg = np.concatenate([before, eeg, eeg[:, -round(data.sfreq) :]], axis=1)
        montage = Montage(tuple(bundle.manifest.eeg.channels), data.sfreq)
    volumes = series(bundle, data, rows)
    assert bundle.projection is not None
    affine = bundle.projection.affine
    tr_s = float(bundle.manifest.grid.tr or 0)
    with RecordingWriter(folder, montage, {"triggers_expected": False}) as writer:
        items: list[EegChunk | Volume] = []
        if eeg is not None and data.sfreq is not None:
            step = round(data.sfreq * 0.2)
            for first in range(0, eeg.shape[1], step):
                part = np.ascontiguousarray(eeg[:, first : first + step], np.float32)
                stamps = (first + np.arange(part.shape[1])) / data.sfreq - SETTLING_S
                items.append(EegChunk(part, stamps, float(stamps[-1])))
        for index, values in enumerate(volumes):
            end_at = tr_s * (index + 1)
            times = (tr_s, tr_s * index, None, end_at, end_at, end_at)
            volume = values.reshape(bundle.projection.shape)
            items.append(Volume(volume, affine, index, 1, *times, f"{index}", "1"))
        for item in sorted(items, key=lambda item: item.arrived_at):
            writer.write(item)
    return folder


def series(bundle: Bundle, data: DataSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the volumes from the start of the first of some windows to those that the last one reads."""
    grid = bundle.manifest.grid
    assert grid.tr is not None
    windows = data.read("fmri", rows)
    own_slots = grid.slots - grid.after
    volumes = [*windows[:, :own_slots].reshape(-1, windows.shape[2]), *windows[-1, own_slots:]]
    before = [volumes[0]] * round(grid.lag / grid.tr)
    return np.stack([*before, *volumes])
