"""Recordings whose replay must give the same clips, whatever is moved about in the code.

``python -m tests.same_clips FOLDER`` makes them, replays them, and prints what `tests/test_same_clips.py`
keeps: a hash of the latents, and one of what the report says of windows, sources, clock and runs.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft, signal
from threadpoolctl import threadpool_limits

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, engine
from rtdecode.bundle.golden import decode
from rtdecode.disk.recording import RecordingWriter
from rtdecode.phantom.live import simulate
from streaming.session import replay
from train.data import haxby

_FAULTS = "volume-drop@12,volume-late@20,volume-dup@26,eeg-drop@16:0.5,eeg-clip@30:1,trigger-drop@24"
_PARTICIPANT = 2
# What of a report is compared, at any depth below these keys; a key that comes later changes no hash.
_SECTIONS = ("windows", "eeg", "fmri", "clock", "runs")
_KEYS = frozenset(
    [
        "expected",
        "final",
        "preview",
        "refined",
        "skipped",
        "degraded",
        "dropped_previews",
        "samples",
        "lost_samples",
        "gaps",
        "rate_hz",
        "drift_ppm",
        "triggers",
        "artifact_residual_db",
        "epochs",
        "bad_channels",
        "age_ms",
        "nonfinite_samples",
        "volumes",
        "missing",
        "late",
        "duplicate",
        "out_of_order",
        "rejected_files",
        "max_fd_mm",
        "saturated",
        "implausible",
        "nonfinite_voxels",
        "burst",
        "delay_s",
        "p50",
        "p95",
        "max",
        "source",
        "slope_ppm",
        "offset_s",
        "residual_ms",
        "run",
        "series",
        "began_s",
        "ended_s",
        "clock",
        "extra_triggers",
        "slices_per_volume",
        "check",
        "moved_mm",
        "turned_deg",
        "motion",
        "mean_fd_mm",
        "moved_share",
        "unaligned_share",
        "dvars_percent",
        "jump_share",
        "tsnr",
        "moved",
        "jumps",
        "corrected",
        "outside",
        "parameters",
        "verdict",
        "reasons",
        "first_minute",
    ]
)


@dataclass(frozen=True)
class Case:
    """A recording with the bundle that decodes it."""

    recording: Path
    bundle: Bundle


def easy(folder: Path) -> Case:
    """The participant that the shipped bundle knows, outside the magnet."""
    simulate.run(preset="easy", seed=1000, seconds=60, record=folder)
    return Case(folder, bundles.load("phantom"))


def magnet(folder: Path) -> Case:
    """The same participant in the magnet, with faults on both sides."""
    simulate.run(
        preset="easy", seed=1001, seconds=40, record=folder, in_magnet=True, motion="typical", faults=_FAULTS
    )
    return Case(folder, bundles.load("phantom"))


def recorded(folder: Path) -> Case:
    """A run of recorded human fMRI."""
    run = haxby.load(haxby.folder(None), 9)
    with RecordingWriter(folder, None, {"bundle": "haxby"}) as writer:
        for volume in run.volumes():
            writer.write(volume)
    return Case(folder, bundles.load("haxby"))


def fitted(folder: Path) -> Case:
    """Another participant, whom the shipped bundle is fitted to."""
    # onnx, which training does without.
    from export import fit

    recording = folder / "recording"
    simulate.run(preset="easy", subject=_PARTICIPANT, seed=5, seconds=256, record=recording, sfreq=250)
    # The last bits of a fit depend on how many threads share a sum.
    with threadpool_limits(1):
        bundle = fit.run([recording], None, None, "phantom", folder / "bundle")
    return Case(recording, bundle)


def replayed(case: Case, out: Path) -> tuple[str, str]:
    """Replay a recording as fast as possible: hashes of all its latents in order, and of its report."""
    replay.run(case.recording, bundle=str(case.bundle.path), speed="max", out=out)
    clips = sorted((out / "clips").glob("*.npy"))
    assert clips, "no clip was made"
    latents = hashlib.sha256()
    for clip in clips:
        latents.update(np.load(clip).tobytes())
    report = json.loads((out / "report.json").read_text())
    # A replay drops no preview.
    assert report["windows"]["dropped_previews"] == 0
    compared = {name: _compared(report[name]) for name in _SECTIONS}
    return latents.hexdigest()[:16], _hash(json.dumps(compared, sort_keys=True).encode())


def _compared(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _compared(value) for name, value in tree.items() if name in _KEYS}
    if isinstance(tree, list):
        return [_compared(value) for value in tree]
    return tree


def rounding() -> str:
    """Hash of what the libraries compute from fixed numbers here: processors differ in the last bits.

    No code of this project takes part, apart from the graphs of the shipped bundle.
    """
    bundle = bundles.load("phantom")
    windows = {port: values[:1] for port, values in bundle.golden().items()}
    golden = decode(engine.load(bundle), windows, bundle.manifest.steps, "golden.npz")
    noise = np.random.default_rng(0).standard_normal((64, 4096))
    single = noise.astype(np.float32)
    # The last bits of a sum depend on how many threads share it.
    with threadpool_limits(1):
        results = [
            golden["latent"],
            noise @ noise.T,
            single @ single.T,
            np.exp(noise) + np.sin(noise) + np.log(np.abs(noise)),
            np.exp(single) + np.sin(single) + np.log(np.abs(single)),
            fft.rfft(noise),
            signal.sosfilt(signal.butter(4, 0.2, output="sos"), noise),
            np.linalg.eigh(noise @ noise.T)[1],
        ]
    return _hash(b"".join(values.tobytes() for values in results))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main(folder: Path) -> None:
    """Make every recording and print what its replay gives."""
    sys.stdout.write(f"rounding {rounding()}\n")
    for make in (easy, magnet, recorded, fitted):
        case = make(folder / make.__name__)
        latents, report = replayed(case, folder / f"{make.__name__}-replayed")
        sys.stdout.write(f"{make.__name__} {latents} {report}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
