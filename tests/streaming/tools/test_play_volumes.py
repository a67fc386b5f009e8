import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from rtdecode.errors import UsageError
from streaming.sources.folder.source import FolderSource
from streaming.tools import play_volumes
from tests.refusals import refused
from tests.streaming.sessions import LIMIT, until
from tests.streaming.sources.polling import polled_until

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 2.5, 0.3, 80], [0, -0.3, 4.0, -50], [0, 0, 0, 1]])


def bold(path, volumes=5, tr=2.5, unit="sec", kind=np.int16):
    data = np.random.default_rng(0).integers(0, 900, (5, 6, 4, volumes)).astype(kind)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = tr
    image.to_filename(path)
    return data


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz"])
def test_plays_a_run_as_a_scanner_writes_it(tmp_path, name, kind):
    data = bold(tmp_path / name, tr=2500, unit="msec", kind=kind)
    folder = tmp_path / "export"
    source = FolderSource(folder)
    with ThreadPoolExecutor() as reader:
        reading = reader.submit(polled_until, source, lambda volumes: len(volumes) == 5, live=True)
        assert play_volumes.run(tmp_path / name, folder, None, 100.0) == 0
        played = reading.result()
    assert [volume.index for volume in played] == list(range(5))
    for n, volume in enumerate(played):
        np.testing.assert_array_equal(volume.data, data[..., n])
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        assert volume.tr_s == 2.5
    assert sorted(path.name for path in folder.iterdir()) == [f"vol_{n:05d}.nii" for n in range(5)]
    written = nib.load(folder / "vol_00003.nii")
    assert written.header.get_xyzt_units() == ("mm", "sec")


def test_lateness_does_not_add_up(tmp_path, monkeypatch):
    """On a virtual clock: the second volume takes four times as long to write as there is time for it."""
    bold(tmp_path / "bold.nii")
    now = 100.0
    written = []

    class Stop:
        def wait(self, seconds):
            nonlocal now
            now += seconds

    rename = Path.rename

    def placed(path, target):
        nonlocal now
        written.append(now)
        now += 0.5 if len(written) == 2 else 0.01
        return rename(path, target)

    monkeypatch.setattr(play_volumes, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(play_volumes, "threading", SimpleNamespace(Event=Stop))
    monkeypatch.setattr(Path, "rename", placed)
    assert play_volumes.run(tmp_path / "bold.nii", tmp_path / "out", 2.5, 20.0) == 0
    assert written == pytest.approx([100.125, 100.25, 100.75, 100.76, 100.77])


def test_a_given_tr_wins(tmp_path):
    bold(tmp_path / "bold.nii", volumes=2, tr=0.0)
    assert play_volumes.run(tmp_path / "bold.nii", tmp_path / "out", 1.5, 1000.0) == 0
    assert nib.load(tmp_path / "out" / "vol_00001.nii").header["pixdim"][4] == 1.5


def test_refuses_with_a_reason(tmp_path):
    bold(tmp_path / "bold.nii", tr=0.0)
    nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), AFFINE).to_filename(tmp_path / "one.nii")
    (tmp_path / "text.nii").write_text("no image")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "vol_00000.nii").touch()
    content = (tmp_path / "bold.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[:-10])
    cases = [
        ("missing.nii", "out", 1.0, 1.0, "bold-missing", {"path": tmp_path / "missing.nii"}),
        ("text.nii", "out", 1.0, 1.0, "bold-unreadable", {"path": tmp_path / "text.nii"}),
        ("cut.nii", "out", 1.0, 1.0, "bold-unreadable", {"path": tmp_path / "cut.nii"}),
        ("one.nii", "out", 1.0, 1.0, "bold-not-4d", {"shape": (3, 3, 3)}),
        ("bold.nii", "out", None, 1.0, "bold-tr-invalid", {"tr_s": None}),
        ("bold.nii", "out", 1.0, 0.0, "play-volumes-speed-invalid", {"speed": 0.0}),
        ("bold.nii", "full", 1.0, 1.0, "fmri-dir-not-empty", {"folder": tmp_path / "full"}),
        ("bold.nii", "no/out", 1.0, 1.0, "fmri-dir-parent-missing", {"parent": tmp_path / "no"}),
    ]
    for name, folder, tr, speed, code, values in cases:
        with refused(UsageError, code, **values):
            play_volumes.run(tmp_path / name, tmp_path / folder, tr, speed)
    assert not (tmp_path / "out").exists()


def test_ends_cleanly_when_interrupted(tmp_path):
    bold(tmp_path / "bold.nii", volumes=100)
    code = "import sys; from pathlib import Path; from streaming.tools.play_volumes import run; "
    code += "sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), 1.0, 20.0))"
    folder = tmp_path / "out"
    command = [sys.executable, "-c", code, str(tmp_path / "bold.nii"), str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: (folder / "vol_00002.nii").exists())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "of 100 volumes" in errors
    assert "Traceback" not in errors
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
