"""Estimate how much a session writes, and whether it fits on the disks: a part of ``rtdecode doctor``."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rtdecode.bundle import Bundle, golden
from rtdecode.disk.folders import existing, is_in_use
from rtdecode.disk.video import write_mp4
from rtdecode.types import Montage, Volume
from streaming.checks import table
from streaming.checks.finding import BAD, Finding
from streaming.decode.decoder import Decoder

# Size of the running film over that of the clips: it shows every clip enlarged beside the truth.
# In a demo the factor was 5.
_FILM = 5.0
# Bytes of a line of clips.jsonl.
_LINE = 1500
# Bytes of the stamp that a recording holds for each sample.
_STAMP = 8
# Channels and sampling rate (Hz) assumed if no amplifier was heard: those usual inside a magnet.
_CHANNELS = 64
_SFREQ = 5000.0
# Bytes per voxel of the bundle's grid, assumed if no volume was seen.
_VOXEL = 2
_OTHER = "give another folder"


@dataclass(frozen=True, slots=True)
class DiskFolder:
    """A folder that a session is to write into, and the subject of the finding on it."""

    subject: str
    folder: Path
    bytes_a_minute: float


def clips_a_minute(bundle: Bundle) -> float:
    """Estimate the bytes that ``--out`` takes per minute.

    The golden window's clip is written as a session writes it, and counts for all clips.
    """
    manifest = bundle.manifest
    decoded = Decoder(bundle).decode(golden.window(bundle)).clip
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "clip.mp4"
        write_mp4(file, decoded.frames, manifest.clip.fps)
        clip = file.stat().st_size
    # With two modalities a window has two clips: a preview and the final one.
    revisions = len(manifest.modalities)
    a_window = revisions * (clip + decoded.latent.nbytes + _LINE) + _FILM * clip
    return 60 / float(manifest.grid.hop) * a_window


def recording_a_minute(bundle: Bundle, eeg: Montage | None, fmri: Volume | None) -> float:
    """Estimate the bytes that ``--record`` takes per minute, by the stream and a volume if they are known."""
    manifest = bundle.manifest
    rate = 0.0
    if eeg is not None:
        # A recording keeps values as float32.
        rate += eeg.sfreq * (len(eeg.channels) * 4 + _STAMP)
    elif manifest.eeg is not None:
        rate += _SFREQ * (_CHANNELS * 4 + _STAMP)
    tr_s = (fmri and fmri.tr_s) or float(manifest.grid.tr or 0)
    if fmri is not None and tr_s:
        rate += fmri.data.nbytes / tr_s
    elif manifest.fmri is not None:
        i, j, k = manifest.fmri.shape
        rate += i * j * k * _VOXEL / tr_s
    return 60 * rate


def judge(places: list[DiskFolder], minutes: float) -> list[Finding]:
    """Judge whether a session of some minutes fits; folders on one disk share its free space."""
    above = {place.subject: existing(place.folder.resolve()) for place in places}
    disks = {subject: folder.stat().st_dev for subject, folder in above.items()}
    # Folders on one disk fill it together: add up what they need.
    needed: dict[int, float] = {}
    for place in places:
        disk = disks[place.subject]
        needed[disk] = needed.get(disk, 0.0) + place.bytes_a_minute
    return [_judged(place, above[place.subject], needed[disks[place.subject]], minutes) for place in places]


def _judged(place: DiskFolder, above: Path, disk_bytes_a_minute: float, minutes: float) -> Finding:
    if is_in_use(place.folder):
        return Finding(place.subject, BAD, f"{place.folder} is in use", "give a new or empty folder")
    if not above.is_dir():
        return Finding(place.subject, BAD, f"{above} is a file, and no folder can be made in it", _OTHER)
    if not os.access(above, os.W_OK):
        return Finding(place.subject, BAD, f"{above} cannot be written into", _OTHER)
    free = shutil.disk_usage(above).free
    room_minutes = free / disk_bytes_a_minute
    return table.DISK.find(
        spare_minutes=room_minutes - minutes,
        place=place.subject,
        free_gb=free / 1e9,
        folder=place.folder,
        mb_a_minute=place.bytes_a_minute / 1e6,
        room_minutes=room_minutes,
        minutes=minutes,
    )
