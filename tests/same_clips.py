"""Recordings whose replay must give the same clips, whatever is moved about in the code.

``python -m tests.same_clips FOLDER`` makes them, replays them, and prints what `tests/test_same_clips.py`
keeps: a hash of the latents, and one of the report without its times.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
# What of a report differs from replay to replay, from version to version, or from machine to machine.
_PASSING = ("session", "version", "bundle", "latency_ms", "memory_mb", "runs_on")


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
        made = fit.run([recording], None, None, "phantom", folder / "bundle")
    return Case(recording, made)


def replayed(case: Case, out: Path) -> tuple[str, str]:
    """Replay a recording as fast as possible: hashes of all its latents in order, and of its report."""
    replay.run(case.recording, bundle=str(case.bundle.path), speed="max", out=out)
    clips = sorted((out / "clips").glob("*.npy"))
    assert clips, "no clip was made"
    latents = hashlib.sha256()
    for clip in clips:
        latents.update(np.load(clip).tobytes())
    report = json.loads((out / "report.json").read_text())
    lasting = {name: value for name, value in report.items() if name not in _PASSING}
    # A replay drops no preview.
    assert lasting["windows"]["dropped_previews"] == 0
    return latents.hexdigest()[:16], _hash(json.dumps(lasting, sort_keys=True).encode())


def rounding(name: str) -> str:
    """Hash of what a shipped bundle's first golden window gives here: processors differ in the last bits."""
    bundle = bundles.load(name)
    kept = {port: values[:1] for port, values in bundle.golden().items()}
    found = decode(engine.load(bundle), kept, bundle.manifest.steps, "golden.npz")
    return _hash(found["latent"].tobytes())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main(folder: Path) -> None:
    """Make every recording and print what its replay gives."""
    sys.stdout.write(f"rounding {rounding('phantom')}\n")
    for make in (easy, magnet, recorded, fitted):
        case = make(folder / make.__name__)
        latents, report = replayed(case, folder / f"{make.__name__}-replayed")
        sys.stdout.write(f"{make.__name__} {latents} {report}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
