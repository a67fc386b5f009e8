"""How many times faster than real time `rtdecode import` is: 64 channels at 5 kHz, volumes of 64 x 64 x 36.

    python -m benchmarks.importing [--seconds 120] [--repeats 3] [--json] [--write]

A simulated session is written as other programs write it, and imported into an empty folder, each time in a
new process as a user's command is. The time is the whole command's, from its start to its end.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, write
from rtdecode import strict_json
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.live.names import write_run
from rtdecode.phantom.session import PhantomSession
from tests.streaming.importing import xdf_files
from tests.train.data.layouts.test_bids_eeg import brainvision, eeglab
from tests.train.data.layouts.test_eeg_units import edf

_OUT = RESULTS / "importing.json"
_SFREQ = 5000
# How many times faster than real time an import is at least.
LEAST_SPEED = 20.0


def measure(seconds: float, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Import a session from every pair of formats.

    Parameters
    ----------
    seconds : float
        Length of the film, s.
    repeats : int
        The fastest of so many counts: others may work on the machine.
    folder : Path
        An empty folder.

    Returns
    -------
    list of dict
        ``eeg``, ``volumes``; ``recorded_s``: length of the EEG; ``import_s``; and ``speed``: how many times
        faster than real time it is.
    """
    session = PhantomSession("easy", seconds=seconds, sfreq=_SFREQ)
    rows = []
    for eeg, volumes in ((_xdf, _dicom), (_brainvision, _nifti), (_edf, _nifti), (_eeglab, _nifti)):
        sources = [eeg(folder, session), volumes(folder, session)]
        import_s = min(_imported(sources, folder / f"rec-{n}") for n in range(repeats))
        recorded_s = session.samples / session.sfreq
        rows.append(
            {
                "eeg": sources[0].suffix,
                "volumes": "DICOM" if sources[1].is_dir() else "NIfTI",
                "recorded_s": recorded_s,
                "import_s": round(import_s, 3),
                "speed": round(recorded_s / import_s, 1),
            }
        )
        for n in range(repeats):
            subprocess.run(
                [sys.executable, "-m", "rtdecode.cli", "forget", folder / f"rec-{n}", "--json"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
    return rows


def _imported(sources: list[Path], out: Path) -> float:
    """Import once; return how long the command took, s."""
    # A user's Python keeps what it has compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rtdecode.cli", "import", *sources, "--out", out],
        check=True,
        capture_output=True,
        env=environment,
    )
    return time.perf_counter() - began


def _xdf(folder: Path, session: PhantomSession) -> Path:
    return xdf_files.write_session(folder / "session.xdf", session)


def _brainvision(folder: Path, session: PhantomSession) -> Path:
    return brainvision(folder / "session.vhdr", *_signals(session))


def _eeglab(folder: Path, session: PhantomSession) -> Path:
    return eeglab(folder / "session.set", *_signals(session))


def _edf(folder: Path, session: PhantomSession) -> Path:
    data, names, sfreq, triggers = _signals(session)
    # Its records are whole seconds.
    data = data[:, : data.shape[1] // sfreq * sfreq]
    return edf(folder / "session.edf", b"uV", 1.0, names, data, np.array(triggers), sfreq)


def _signals(session: PhantomSession) -> tuple[np.ndarray, tuple[str, ...], int, list[float]]:
    triggers = [LEAD_IN_S + start_s for start_s in session.trigger_times()]
    return session.eeg(), session.montage.channels, _SFREQ, triggers


def _dicom(folder: Path, session: PhantomSession) -> Path:
    (folder / "dicom").mkdir()
    write_run(folder / "dicom", session, "siemens-mosaic", range(session.volumes))
    return folder / "dicom"


def _nifti(folder: Path, session: PhantomSession) -> Path:
    path = folder / "bold.nii.gz"
    if not path.exists():
        volumes = np.stack([session.scanner.volume(index) for index in range(session.volumes)], axis=3)
        image = nib.Nifti1Image(volumes, session.head.affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = session.tr_s
        image.to_filename(path)
    return path


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the figures."""
    laid = Table("EEG", "volumes", "recorded, s", "import, s", "times real time")
    for row in rows:
        laid.add_row(*map(str, row.values()))
    return laid


def misses(rows: list[dict[str, Any]]) -> list[str]:
    """Say of each pair that misses the bar by how much."""
    return [
        f"{row['eeg']} + {row['volumes']}: {row['speed']} times real time, and {LEAST_SPEED:g} were asked for"
        for row in rows
        if row["speed"] < LEAST_SPEED
    ]


def main() -> int:
    """Measure, print, and write where that is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.importing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the film")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {_OUT.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.seconds, arguments.repeats, Path(folder))
    if arguments.write:
        write(_OUT, {"importing": rows})
    if arguments.json:
        Console().print_json(strict_json.dumps({"importing": rows, "missed": misses(rows)}))
    else:
        Console().print(table(rows))
    for sentence in misses(rows):
        Console(stderr=True).print(sentence, highlight=False)
    return int(bool(misses(rows)))


if __name__ == "__main__":
    raise SystemExit(main())
