"""A small amplifier and a small scanner in real time, over the real interfaces."""

import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pylsl

from tests.streaming.bundles import AFFINE, CHANNELS, scan

SFREQ = 500


def outlet(
    name: str,
    channels: tuple[str, ...] = CHANNELS,
    *,
    types: tuple[str, ...] | None = None,
    unit: str = "microvolts",
    source_id: str = "",
    kind: str = "EEG",
    sfreq: float = SFREQ,
    about: dict[str, str] | None = None,
) -> pylsl.StreamOutlet:
    """An EEG outlet with its description, and with what else its description is to say."""
    types = types or ("EEG",) * len(channels)
    info = pylsl.StreamInfo(name, kind, len(channels), sfreq, pylsl.cf_float32, source_id)
    described = info.desc().append_child("channels")
    for label, of in zip(channels, types, strict=True):
        channel = described.append_child("channel")
        for key, value in (("label", label), ("unit", unit), ("type", of)):
            channel.append_child_value(key, value)
    info.desc().append_child("reference").append_child_value("label", "FCz")
    for key, value in (about or {}).items():
        info.desc().append_child_value(key, value)
    return pylsl.StreamOutlet(info)


def markers(name: str) -> pylsl.StreamOutlet:
    """The outlet of the volume triggers."""
    return pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-markers", "Markers", 1, 0, pylsl.cf_string, ""))


class Player(threading.Thread):
    """Amplifier from the start, scanner `lead` seconds later for `seconds`.

    Parameters
    ----------
    name : str or None
        LSL stream; None without EEG.
    folder : Path or None
        Where the volumes go; None without fMRI.
    eeg_away : tuple of float
        When the EEG's outlet goes away, and when another one takes its place, s.
    """

    def __init__(
        self,
        name: str | None,
        folder: Path | None,
        seconds: float,
        *,
        tr: float = 0.5,
        lead: float = 1.5,
        delay: float = 0.1,
        dropped: tuple[int, ...] = (),
        eeg_stops: float = np.inf,
        eeg_away: tuple[float, float] = (np.inf, np.inf),
        affine: np.ndarray = AFFINE,
        marked: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self.name_ = name
        self.folder = folder
        self.seconds = seconds
        self.tr = tr
        self.lead = lead
        self.delay = delay
        self.dropped = dropped
        self.eeg_stops = eeg_stops
        self.eeg_away = eeg_away
        self.affine = affine
        self.marked = marked
        self.cancel = threading.Event()
        self._rng = np.random.default_rng(3)

    def run(self) -> None:
        eeg = outlet(self.name_) if self.name_ else None
        marks = markers(self.name_) if self.name_ and self.marked else None
        if eeg is not None:
            self._wait(lambda: eeg.have_consumers() and (marks is None or marks.have_consumers()))
        began = pylsl.local_clock()
        sent = volume = trigger = 0
        while not self.cancel.is_set():
            now = pylsl.local_clock() - began - self.lead
            if now > self.seconds:
                break
            if self.eeg_away[0] <= now < self.eeg_away[1]:
                # Nobody else holds the outlet: the stream is gone from the network.
                eeg = None
            elif eeg is None and self.name_ and now >= self.eeg_away[1]:
                eeg = outlet(self.name_)
                sent = int((now + self.lead) * SFREQ)
            if eeg is not None:
                sent = self._send(eeg, sent, min(now, self.eeg_stops), began)
            if marks is not None and now >= trigger * self.tr:
                marks.push_sample(["R128"], began + self.lead + trigger * self.tr)
                trigger += 1
            if self.folder is not None and now >= (volume + 1) * self.tr + self.delay:
                self._write(volume)
                volume += 1
            time.sleep(0.005)

    def _send(self, eeg: pylsl.StreamOutlet, sent: int, now: float, began: float) -> int:
        due = int((now + self.lead) * SFREQ)
        if due - sent < SFREQ // 50:
            return sent
        data = self._rng.normal(0, 20, (due - sent, len(CHANNELS))).astype(np.float32)
        eeg.push_chunk(data, began + (due - 1) / SFREQ)
        return due

    def _write(self, index: int) -> None:
        if index in self.dropped:
            return
        image = nib.Nifti1Image(scan(self._rng), self.affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = self.tr
        part = self.folder.parent / f"part_{index}.nii"
        nib.save(image, part)
        part.rename(self.folder / f"vol_{index:05d}.nii")

    def _wait(self, condition) -> None:
        until = time.monotonic() + 120
        while not condition() and time.monotonic() < until and not self.cancel.is_set():
            time.sleep(0.02)
