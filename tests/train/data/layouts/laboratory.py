"""A small BIDS folder, as a laboratory has it."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import nibabel
import numpy as np
from numpy.typing import NDArray

from rtdecode.disk.video import write_mp4

SHAPE = (3, 4, 2)
# The voxels that are bright, flat in C order.
HEAD = (5, 6, 13, 22)


def volumes(count: int, seed: int) -> NDArray[np.float32]:
    """Make volumes (i, j, k, volume) with a head of four voxels."""
    values = np.random.default_rng(seed).uniform(0, 5, (*SHAPE, count))
    values.reshape(-1, count)[list(HEAD)] += 100
    return values.astype(np.float32)


def write_bold(path: Path, values: NDArray[np.float32], sidecar: dict | None, tr_s: float = 0.8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.diag([3, 3, 3, 1]))
    if values.ndim == 4:
        image.header.set_zooms((3, 3, 3, tr_s))
    nibabel.save(image, path)
    if sidecar is not None:
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def write_events(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [("onset", "duration", "trial_type", "stim_file"), *rows]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def write_film(path: Path, seconds: float, first: int = 0) -> Path:
    """Write a film of 10 frames a second, each 2 brighter than the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = first + 2 * np.arange(round(seconds * 10))
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 48, 3))
    write_mp4(path, frames.astype(np.uint8), 10)
    return path


def bids(folder: Path) -> Path:
    """Write two subjects who saw a film of 10 s, from 1.6 s on, in 24 volumes of 0.8 s; one saw it twice."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "own", "BIDSVersion": "1.9.0"}')
    (folder / "task-film_bold.json").write_text('{"RepetitionTime": 0.8}')
    write_film(folder / "stimuli" / "own" / "film.mp4", 10)
    rows = [("1.6", "10", "film", "own/film.mp4"), ("12", "0.5", "press", "n/a")]
    for seed, name in enumerate(("sub-01_task-film_run-1", "sub-01_task-film_run-2", "sub-02_task-film")):
        place = folder / name[:6] / "func"
        write_bold(place / f"{name}_bold.nii.gz", volumes(24, seed), None)
        write_events(place / f"{name}_events.tsv", rows)
    return folder


def add_sound(path: Path, sound: NDArray[np.float32], rate: int = 44_100) -> Path:
    """Give a film a sound track, AAC: (channel, sample), one channel or two, full scale 1."""
    silent = path.with_name(f"silent-{path.name}")
    path.rename(silent)
    layout = {1: "mono", 2: "stereo"}[len(sound)]
    with av.open(str(silent)) as source, av.open(str(path), "w", format="mp4") as target:
        pictures = source.streams.video[0]
        copied = target.add_stream_from_template(pictures)
        spoken = target.add_stream("aac", rate=rate, layout=layout)
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), "fltp", layout)
        frame.sample_rate = rate
        # From here on the file counts: the codec's first samples lie before it.
        frame.pts = 0
        frame.time_base = Fraction(1, rate)
        target.mux(spoken.encode(frame))
        target.mux(spoken.encode(None))
    silent.unlink()
    return path


def tone(hz: float, seconds: float, rate: int = 44_100) -> NDArray[np.float32]:
    """Half as loud as full scale, (sample,)."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def heard_hz(sound: NDArray[np.float32], rate: int = 16_000) -> float:
    """The loudest frequency of some sound, Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * rate / len(sound))
