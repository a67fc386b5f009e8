"""What holds a participant's data is its owner's alone, after the real commands and under any umask."""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode.disk.derived import derived
from streaming.sinks.session_folder import prepare
from tests.modeless import MODE, mounted
from tests.modes import GROUP_READS, OWNER_ALONE, rtdecode, under, wrong_modes
from tests.streaming.bundles import make_bundle
from tests.streaming.sessions import TR, WINDOW, Ended, play
from tests.written import ELSEWHERE, faults, faults_of

ROOT = Path(__file__).parents[1]
PACKAGES = ("rtdecode", "streaming", "export", "train")
# The first takes nothing away, and the second everything.
UMASKS = ("000", "777")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("r") / "recording"
    rtdecode("000", "simulate", "--seconds", "8", "--record", folder)
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of a bright block, and a mask of it."""
    folder = tmp_path_factory.mktemp("scan")
    random = np.random.default_rng(0)
    block = np.zeros((16, 16, 8), np.int16)
    block[4:12, 4:12, 2:6] = 1000
    (folder / "volumes").mkdir()
    for n in range(3):
        image = nib.Nifti1Image(block + random.integers(0, 20, block.shape, np.int16), np.diag([4, 4, 4, 1]))
        image.header["pixdim"][4] = 0.8
        image.to_filename(folder / "volumes" / f"v_{n}.nii")
    nib.Nifti1Image((block > 0).astype(np.uint8), np.diag([4, 4, 4, 1])).to_filename(folder / "mask.nii")
    return folder


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """A live session under each umask; the last is for the group."""
    root = tmp_path_factory.mktemp("s")
    bundle = make_bundle(root / "bundle", tr=TR, window=WINDOW).path

    def run(umask: str) -> Ended:
        flags = ["--seconds", "1", "--record", str(root / umask / "recording"), "--twin"]
        flags += ["--group-readable"] if umask == UMASKS[-1] else []
        return play(root / umask, bundle, *flags, seconds=120, lead=0.5, before=under(umask))

    with ThreadPoolExecutor() as pool:
        return dict(zip(UMASKS, pool.map(run, UMASKS), strict=True))


@pytest.mark.parametrize("umask", UMASKS)
def test_a_session_and_its_recording(umask: str, sessions: dict[str, Ended]) -> None:
    ended = sessions[umask]
    assert ended.code == 0, ended.output
    assert ended.finals() != []
    modes = GROUP_READS if umask == UMASKS[-1] else OWNER_ALONE
    for folder in (ended.out, ended.out.with_name("recording")):
        assert wrong_modes(folder, modes) == {}
    # So `rtdecode forget` can say where the clips are.
    assert derived(ended.out.with_name("recording")) == [{"kind": "clips", "path": str(ended.out)}]
    # The export folder is the scanner's.
    assert stat.S_IMODE(ended.out.with_name("volumes").stat().st_mode) & 0o055 != 0


@pytest.mark.full
def test_a_simulated_recording_its_replay_and_their_page(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "out"
    rtdecode("000", "replay", recording, "--speed", "max", "--out", out, "--twin")
    rtdecode("000", "report", out)
    rtdecode("000", "report", out, "--out", tmp_path / "page.html")
    assert (out / "contact_sheet.png").is_file()
    assert wrong_modes(recording) == {}
    assert wrong_modes(tmp_path / "runs") == {}
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600


@pytest.mark.full
def test_head_volumes_and_a_calibration(scan: Path, tmp_path: Path) -> None:
    rtdecode("000", "volumes", scan / "volumes", "--once", "--nifti", tmp_path / "nifti")
    words = ("--fmri-dir", scan / "volumes", "--mask", scan / "mask.nii", "--volumes", 3, "--wait", 5)
    for _ in range(2):
        rtdecode("777", "calibrate", *words, "--out", tmp_path / "cal", "--overwrite", "--group-readable")
    assert wrong_modes(tmp_path / "nifti") == {}
    assert wrong_modes(tmp_path / "cal", GROUP_READS) == {}


@pytest.mark.full
def test_what_a_simulation_exports_is_as_the_umask_has_it(tmp_path: Path) -> None:
    folders = ("--fmri-dir", tmp_path / "scanner", "--truth", tmp_path / "truth")
    rtdecode("027", "simulate", "--seconds", "1", "--wait", "0", *folders)
    assert wrong_modes(tmp_path / "scanner", GROUP_READS) == {}
    assert wrong_modes(tmp_path / "truth", GROUP_READS) == {}


@pytest.mark.parametrize("name", ["clips.jsonl", "notes.txt"])
def test_overwriting_in_a_folder_that_all_may_read(name: str, tmp_path: Path) -> None:
    """It is closed, unless it holds what no session wrote: that may be somebody else's."""
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o755)
    (out / name).write_text("")
    prepare(out, overwrite=True)
    assert stat.S_IMODE(out.stat().st_mode) == (0o700 if name == "clips.jsonl" else 0o755)
    assert stat.S_IMODE((out / "clips").stat().st_mode) == 0o700


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.full), True], ids=["ignored", "refused"])
def modeless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where a file system is mounted that holds no modes."""
    with ExitStack() as running:
        try:
            place = running.enter_context(mounted(tmp_path / "modeless", refuses=request.param))
        except OSError as error:
            pytest.skip(f"no file system can be mounted through FUSE here: {error}")
        yield place


def test_a_file_system_that_holds_no_modes_is_named_once_and_the_session_goes_on(
    modeless: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW).path
    flags = ("--seconds", "1", "--record", str(modeless / "session" / "recording"))
    ended = play(modeless / "session", bundle, *flags, seconds=120, lead=0.5)
    assert ended.code == 0, ended.output
    assert ended.finals() != []
    assert wrong_modes(ended.out, {"file": MODE, "folder": MODE}) == {}
    sentences = [line for line in ended.output.splitlines() if "cannot be closed" in line]
    assert len(sentences) == 1, ended.output
    assert "its file system does not hold permissions" in sentences[0]
    assert str(ended.out) in sentences[0]


def test_every_writer_goes_through_the_same_functions() -> None:
    assert faults(ROOT, PACKAGES) == []


def test_no_exemption_outlives_its_reason() -> None:
    unused = []
    for name in ELSEWHERE:
        files = (ROOT / name).rglob("*.py") if name.endswith("/") else [ROOT / name]
        if not any(faults_of(file.read_text()) for file in files):
            unused.append(name)
    assert unused == []


@pytest.mark.parametrize(
    "line",
    [
        "path.open('w')",
        "open(path, mode='ab')",
        "path.write_text(text)",
        "path.mkdir(parents=True)",
        "np.save(path, array)",
        "shutil.copyfile(source, path)",
        "picture.save(path)",
        "av.open(str(path), 'w', format='mp4')",
        "os.open(path, os.O_CREAT)",
        "write_mp4(path, frames, 8)",
    ],
)
def test_a_writer_that_forgets_is_found(line: str) -> None:
    assert len(faults_of(line)) == 1
    assert faults_of(line.replace("path", "private.file(path)")) == [] or ".open(" in line or "mkdir" in line
