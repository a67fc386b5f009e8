"""Programs that a shell script starts with `&`: they are born with SIGINT ignored, and stop all the same."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pydicom
import pytest

from rtdecode.disk.video import read_mp4
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import LIMIT, gone, play, text, until

# What `program & wait` is in a script: the shell ends as the program does.
SCRIPT = ("sh", "-c", '"$@" & wait $!', "sh")


def program_of(shell: subprocess.Popen[str]) -> psutil.Process:
    """The one program that the shell runs, once it is there."""
    script = psutil.Process(shell.pid)
    until(lambda: bool(script.children()))
    (program,) = script.children()
    return program


@contextlib.contextmanager
def script(
    *words: object, python: tuple[str, ...] = ("-m", "rtdecode.cli")
) -> Iterator[subprocess.Popen[str]]:
    command = [*SCRIPT, sys.executable, *python, *map(str, words)]
    shell = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield shell
    finally:
        gone(shell)


def stopped(shell: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a program said that ended well after a signal."""
    program_of(shell).send_signal(number)
    output, _ = shell.communicate(timeout=LIMIT)
    assert shell.returncode == 0, output
    assert "Traceback" not in output
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_session_ends_with_everything_written(tmp_path: Path, number: signal.Signals) -> None:
    def stop(shell: subprocess.Popen[str], out: Path) -> None:
        until(lambda: '"final"' in text(out / "clips.jsonl"))
        program_of(shell).send_signal(number)

    bundle = make_bundle(tmp_path / "bundle", eeg=False, tr=Fraction(1, 2), window=Fraction(1)).path
    ended = play(
        tmp_path / "s", bundle, "--existing", "read", eeg=False, seconds=60, during=stop, before=SCRIPT
    )
    assert ended.code == 0, ended.output
    assert ended.report["ended"] == f"stopped by {number.name}"
    windows = ended.report["windows"]
    assert windows["final"] == len(ended.finals()) >= 1
    assert windows["expected"] == windows["final"] + windows["skipped"]
    assert len(read_mp4(ended.out / "film.mp4")) == 8 * (windows["final"] + windows["skipped"])


# That SIGTERM ends it too is tried in `tests/rtdecode/phantom/live/test_simulate.py`.
@pytest.mark.full
def test_a_simulated_session_ends_between_two_files(tmp_path: Path) -> None:
    with script("simulate", "--fmri-dir", tmp_path / "scanner", "--seconds", 60) as shell:
        until(lambda: len(list((tmp_path / "scanner").glob("*.dcm"))) >= 2)
        output = stopped(shell, signal.SIGINT)
    assert output.rstrip().endswith("stopped")
    for path in (tmp_path / "scanner").iterdir():
        assert pydicom.dcmread(path).pixel_array.size


def test_a_folder_that_is_followed_is_summed_up(tmp_path: Path) -> None:
    write_run(tmp_path / "bold.nii", volumes=1)
    with script("volumes", tmp_path, "--json") as shell:
        assert shell.stdout is not None
        assert json.loads(shell.stdout.readline())["index"] == 0
        output = stopped(shell, signal.SIGINT)
    assert json.loads(output.splitlines()[-1]) == {"ignored": [], "volumes": 1}


def test_a_run_that_is_played_ends_between_two_volumes(tmp_path: Path) -> None:
    write_run(tmp_path / "bold.nii", volumes=100)
    folder = tmp_path / "out"
    with script("play-volumes", tmp_path / "bold.nii", "--fmri-dir", folder, "--speed", 10) as shell:
        until(lambda: (folder / "vol_00001.nii").exists())
        output = stopped(shell, signal.SIGTERM)
    written = sorted(path.name for path in folder.iterdir())
    assert written == [f"vol_{n:05d}.nii" for n in range(len(written))]
    assert f"stopped after {len(written)} of 100 volumes" in output


def write_run(path: Path, volumes: int) -> None:
    image = nib.Nifti1Image(np.ones((5, 6, 4, volumes), np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 1.0
    image.to_filename(path)


def test_a_calibration_goes_on_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "scanner").mkdir()
    nib.Nifti1Image(np.ones((5, 6, 4), np.uint8), np.eye(4)).to_filename(tmp_path / "mask.nii")
    words = ("calibrate", "--fmri-dir", tmp_path / "scanner", "--mask", tmp_path / "mask.nii", "--wait", 0)
    # It says that it waits at once, and not after some seconds.
    patched = (
        "from streaming.calibrate import gather; gather._SAY_EVERY = 0; from rtdecode.cli import main; main()"
    )
    with script(*words, "--out", tmp_path / "cal", python=("-c", patched)) as shell:
        assert shell.stdout is not None
        assert "waiting for volumes" in shell.stdout.readline()
        program_of(shell).send_signal(signal.SIGINT)
        output, _ = shell.communicate(timeout=LIMIT)
    assert "stopped: continuing with the volumes so far" in output
    assert shell.returncode == 1
