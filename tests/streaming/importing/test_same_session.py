"""One simulated session in the files of other programs: imported and replayed beside its own recording.

Each test prints its line of the table, which ``pytest -s -m "full or not full"`` shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.disk.derived import derived
from rtdecode.disk.recording import Recording
from rtdecode.disk.tsv import read_tsv
from rtdecode.disk.video import iter_mp4
from rtdecode.phantom.body.amplifier import LEAD_IN_S
from rtdecode.phantom.live.names import write_run
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import EegChunk, Volume, Window
from rtdecode.windows.assembler import Assembler
from streaming.importing import command
from streaming.importing.command import ImportOptions
from streaming.session import replay
from streaming.tools import to_bids
from tests.recordings import record
from tests.streaming.importing import parrec_files, xdf_files
from tests.train.data.layouts.test_bids_eeg import brainvision, eeglab
from tests.train.data.layouts.test_eeg_units import edf
from train.data.layouts.bids_sources import bids_sources

SECONDS = 8.0
COLUMNS = (
    "source",
    "EEG, most µV apart",
    "volumes apart",
    "windows",
    "EEG of windows",
    "volumes of windows",
    "clips",
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load("phantom")


@pytest.fixture(scope="module")
def session() -> PhantomSession:
    return PhantomSession("easy", seconds=SECONDS)


@dataclass(frozen=True)
class Played:
    """A recording, what it holds, the windows of it, and its clips by name: latents and frames."""

    path: Path
    eeg: np.ndarray
    volumes: np.ndarray
    windows: list[Window]
    clips: dict[str, tuple[np.ndarray, np.ndarray]]


def played(path: Path, bundle: Bundle) -> Played:
    recording = Recording(path)
    items = list(recording.events())
    assembler = Assembler(bundle, recording.montage, ["eeg", "fmri"], recording.meta["seconds"])
    windows = list(assembler.play(items, rested_at=recording.meta.get("rested_at")))
    out = path.with_name(f"{path.name}-clips")
    assert replay.run(path, "phantom", "max", out, as_live=False) == 0
    clips = {
        # Files of other programs do not say that a participant is simulated.
        file.stem.removesuffix("_simulated"): (
            np.load(file),
            np.stack(list(iter_mp4(file.with_suffix(".mp4")))),
        )
        for file in sorted((out / "clips").glob("*.npy"))
    }
    volumes = sorted((item for item in items if isinstance(item, Volume)), key=lambda item: item.index)
    eeg = np.concatenate([item.data for item in items if isinstance(item, EegChunk)], axis=1)
    return Played(path, eeg, np.stack([volume.data for volume in volumes]), windows, clips)


@pytest.fixture(scope="module")
def live(session: PhantomSession, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What `--record` keeps of the session."""
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    return played(record(session, tmp_path_factory.mktemp("recorded") / "rec"), bundle)


def of_files(
    eeg: Callable[[Path, PhantomSession], Path],
    volumes: Callable[[Path, PhantomSession], Path],
    folder: Path,
    session: PhantomSession,
    live: Path,
) -> ImportOptions:
    sources = [eeg(folder, session), volumes(folder, session)]
    return ImportOptions(sources, folder / "rec", seconds=SECONDS)


def of_bids(folder: Path, session: PhantomSession, live: Path) -> ImportOptions:
    assert to_bids.run(live, folder / "bids", subject="07") == 0
    return bids_options(folder / "bids", folder / "rec")


def bids_options(bids: Path, out: Path) -> ImportOptions:
    sources = bids_sources(bids, "07", {"ses": None, "task": "film", "run": None})
    return command.of_bids(
        ImportOptions([bids], out, seconds=SECONDS),
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


def write_xdf(folder: Path, session: PhantomSession) -> Path:
    return xdf_files.write_session(folder / "session.xdf", session)


def write_eeg(kind: str, folder: Path, session: PhantomSession) -> Path:
    names = session.montage.channels
    # Seconds after the first sample.
    triggers = [LEAD_IN_S + start_s for start_s in session.trigger_times()]
    path = folder / f"session.{kind}"
    if kind == "vhdr":
        return brainvision(path, session.eeg(), names, session.sfreq, triggers)
    if kind == "set":
        return eeglab(path, session.eeg(), names, session.sfreq, triggers)
    return edf(path, b"uV", 1.0, names, session.eeg(), triggers, session.sfreq)


def write_dicom(folder: Path, session: PhantomSession) -> Path:
    (folder / "dicom").mkdir()
    write_run(folder / "dicom", session, "siemens-mosaic", range(session.volumes))
    return folder / "dicom"


def scanned(session: PhantomSession) -> np.ndarray:
    """The volumes, (volume, x, y, z)."""
    return np.stack([session.scanner.volume(index) for index in range(session.volumes)])


def write_nifti(name: str, folder: Path, session: PhantomSession) -> Path:
    image = nib.Nifti1Image(np.moveaxis(scanned(session), 0, 3), session.head.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = session.tr_s
    image.to_filename(folder / name)
    return folder / name


def write_parrec(folder: Path, session: PhantomSession) -> Path:
    return parrec_files.write(folder / "bold.par", scanned(session), session.head.affine, session.tr_s)


SOURCES = {
    "XDF + DICOM": partial(of_files, write_xdf, write_dicom),
    "BrainVision + NIfTI": partial(of_files, partial(write_eeg, "vhdr"), partial(write_nifti, "bold.nii.gz")),
    "EDF + NIfTI": partial(of_files, partial(write_eeg, "edf"), partial(write_nifti, "bold.nii")),
    "EEGLAB .set + PAR/REC": partial(of_files, partial(write_eeg, "set"), write_parrec),
    "BIDS": of_bids,
}


@pytest.mark.parametrize(
    "source",
    [pytest.param(name, marks=() if name.startswith("XDF") else pytest.mark.full) for name in SOURCES],
)
def test_a_source_gives_the_windows_and_clips_of_the_session(
    tmp_path: Path, session: PhantomSession, live: Played, bundle: Bundle, source: str
) -> None:
    options = SOURCES[source](tmp_path, session, live.path)
    assert command.run(options) == 0
    imported = played(options.out, bundle)
    step_uv = 0.0
    if source.startswith("EDF"):
        # 16 bits between the largest values, or 200 µV, on both sides.
        step_uv = 2 * max(200.0, float(np.ceil(np.abs(live.eeg).max()))) / 65535
    apart_uv = float(np.abs(imported.eeg - live.eeg).max())
    pairs = list(zip(imported.windows, live.windows, strict=True))
    eeg = agreement([(a.eeg, b.eeg) for a, b in pairs])
    fmri = agreement([(a.fmri, b.fmri) for a, b in pairs])
    of_clips = [zip(imported.clips[name], live.clips[name], strict=True) for name in live.clips]
    clips = agreement([pair for latents_and_frames in of_clips for pair in latents_and_frames])
    volumes_apart = float(np.abs(imported.volumes.astype(float) - live.volumes).max())
    words = (f"{apart_uv:.3g}", f"{volumes_apart:g}", len(pairs), *map(worded, (eeg, fmri, clips)))
    print(f"| {source} | {' | '.join(map(str, words))} |")
    assert [(a.revision, a.index) for a, _ in pairs] == [(b.revision, b.index) for _, b in pairs]
    assert {window.revision for window in live.windows} == {"preview", "final"}
    assert imported.clips.keys() == live.clips.keys() != set()
    assert all(np.array_equal(a.eeg_mask, b.eeg_mask) for a, b in pairs)
    assert all(np.array_equal(a.fmri_mask, b.fmri_mask) for a, b in pairs)
    assert apart_uv <= step_uv
    assert volumes_apart == 0
    assert fmri == 1
    assert eeg == 1 if step_uv == 0 else eeg > 0.9999
    assert clips == 1 if step_uv == 0 else clips > 0.99
    assert Recording(options.out).offline is (source == "EEGLAB .set + PAR/REC")
    assert (derived(live.path)[-1]["kind"] == "BIDS folder") is (source == "BIDS")


def agreement(pairs: list[tuple[np.ndarray | None, np.ndarray | None]]) -> float:
    """1 where all are equal to the bit; else the least correlation, which is below 1."""
    least = 1.0
    for values, expected in pairs:
        assert (values is None) == (expected is None)
        if values is None or expected is None or np.array_equal(values, expected):
            continue
        shared = np.corrcoef(values.ravel().astype(float), expected.ravel().astype(float))[0, 1]
        least = min(least, float(shared), np.nextafter(1, 0))
    return least


def worded(value: float) -> str:
    return "equal to the bit" if value == 1 else f"correlated {value:.6f}"


@pytest.mark.full
def test_holes_and_late_triggers_are_told(
    tmp_path: Path,
    session: PhantomSession,
    live: Played,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dicom = write_dicom(tmp_path, session)
    sorted(dicom.iterdir())[12].unlink()
    triggers = [LEAD_IN_S + start_s + 0.03 * (n == 9) for n, start_s in enumerate(session.trigger_times())]
    eeg = brainvision(
        tmp_path / "session.vhdr", session.eeg(), session.montage.channels, session.sfreq, triggers
    )
    assert command.run(ImportOptions([eeg, dicom], tmp_path / "rec", seconds=SECONDS)) == 0
    words = capsys.readouterr().err
    assert "dicom lacks 1 of 20 volumes, counted from 0: 12." in words
    assert "the farthest lies 30.00 ms from its place" in words
    finals = [window for window in played(tmp_path / "rec", bundle).windows if window.revision == "final"]
    expected = [window for window in live.windows if window.revision == "final"]
    # Volume 12 is acquired from 9.6 s on, and the second window reads those of 8 to 12 s.
    assert [window.missing["fmri"] for window in finals] == pytest.approx([0, 0.2])
    assert all(np.array_equal(a.eeg_mask, b.eeg_mask) for a, b in zip(finals, expected, strict=True))


@pytest.mark.full
def test_dummy_volumes_come_back_from_bids(tmp_path: Path, session: PhantomSession, bundle: Bundle) -> None:
    source = record(session, tmp_path / "source")
    head = source / "recording.json"
    head.write_text(head.read_text().replace('"meta": {', '"meta": {"dummies": 3,', 1))
    assert to_bids.run(source, tmp_path / "bids", subject="07") == 0
    assert command.run(bids_options(tmp_path / "bids", tmp_path / "rec")) == 0
    assert (tmp_path / "rec/truth/film.mp4").is_file()
    assert events_of(tmp_path / "rec") == pytest.approx(events_of(source))
    windows = []
    for path in (source, tmp_path / "rec"):
        recording = Recording(path)
        assembler = replay.assembler(recording, bundle, None, recording.montage)
        windows.append(list(assembler.play(recording.events(), rested_at=recording.meta.get("rested_at"))))
    for again, first in zip(*windows, strict=True):
        assert again.revision == first.revision
        assert np.array_equal(again.eeg, first.eeg)
        assert (again.fmri is None) == (first.fmri is None)
        assert again.fmri is None or np.array_equal(again.fmri, first.fmri)


def events_of(recording: Path) -> list[float]:
    return [float(row["onset"]) for row in read_tsv(recording / "truth/events.tsv")]
