"""The heartbeat artefact removed, against EEG that never had it.

python -m benchmarks.heartbeat    # prints a table, writes results/heartbeat.json

The recordings are those of `benchmarks.heartbeat_signals`: 64 channels, 1000 Hz, 150 microvolts at the peak,
5 % jitter of the intervals, 20 % of the sizes, each channel with its own topography and delays. Figures are
from the 40th second on, between 0.5 and 30 Hz; cost is processor time on one thread over recorded time.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import signal

from benchmarks.heartbeat_signals import HeartbeatSettings, HeartbeatSignals, record
from benchmarks.result_files import RESULTS, write
from rtdecode.signal.eeg.quality import CORRECTED, Quality
from rtdecode.signal.heartbeat.remover import HeartbeatRemover

_OUT = RESULTS / "heartbeat.json"
_BAND_HZ = (0.5, 30.0)
_ALPHA_HZ = (8.0, 12.0)
_CHUNK_S = 0.02
_FROM_S = 40.0


def cleaned(
    recording: HeartbeatSignals, ecg: bool = True, references: int = 0, quality: Quality | None = None
) -> tuple[HeartbeatRemover, NDArray[Any], Quality]:
    """Push a recording in small chunks: the remover, (channel, sample) and (sample,)."""
    data = recording.data if ecg else recording.data[:-1]
    data = data.astype(np.float32)
    eeg = len(recording.eeg)
    marks = np.full(data.shape[1], CORRECTED, np.uint8) if quality is None else quality
    remover = HeartbeatRemover(
        recording.sfreq, len(data), len(data) - 1 if ecg else None, tuple(range(eeg, eeg + references))
    )
    step = round(_CHUNK_S * recording.sfreq)
    parts = [
        remover.push(data[:, start : start + step], marks[start : start + step])
        for start in range(0, data.shape[1], step)
    ]
    parts.append(remover.flush())
    return remover, np.concatenate([p[0] for p in parts], axis=1), np.concatenate([p[1] for p in parts])


def judged(
    recording: HeartbeatSignals,
    from_s: float = _FROM_S,
    ecg: bool = True,
    references: int = 0,
    quality: Quality | None = None,
) -> dict[str, float]:
    """What is left of the artefact, what of the EEG, and what it cost."""
    began = time.process_time()
    _, clean, sample_quality = cleaned(recording, ecg, references, quality)
    cost = (time.process_time() - began) / (clean.shape[1] / recording.sfreq)
    return judged_signals(recording, clean, sample_quality, from_s) | {"core": cost}


def judged_signals(
    recording: HeartbeatSignals, clean: NDArray[Any], quality: Quality, from_s: float = _FROM_S
) -> dict[str, float]:
    """What is left of the artefact in signals that were cleaned, and what of the EEG."""
    section = slice(int(from_s * recording.sfreq), -int(recording.sfreq))
    count = len(recording.eeg)
    before = _narrow(recording.data[:count], recording.sfreq)[:, section]
    after = _narrow(clean[:count], recording.sfreq)[:, section]
    truth = _narrow(recording.eeg, recording.sfreq)[:, section]
    residual = float(((after - truth) ** 2).mean())
    added = float(((before - truth) ** 2).mean())
    return {
        "uncorrected_uv": float(np.sqrt(added)),
        "left_uv": float(np.sqrt(residual)),
        "down_db": float(10 * np.log10(max(added, 1e-12) / max(residual, 1e-12))),
        "uncorrected_correlation": _correlation(truth, before),
        "correlation": _correlation(truth, after),
        "uncorrected_alpha": _alpha(before, recording.sfreq) / _alpha(truth, recording.sfreq),
        "alpha": _alpha(after, recording.sfreq) / _alpha(truth, recording.sfreq),
        "corrected_share": float((quality[section] == CORRECTED).mean()),
        "corrected_from_s": float(np.argmax(quality == CORRECTED) / recording.sfreq),
    }


def _narrow(values: NDArray[Any], sfreq: float) -> NDArray[np.float64]:
    band = signal.butter(2, _BAND_HZ, "bandpass", fs=sfreq, output="sos")
    return np.asarray(signal.sosfiltfilt(band, values.astype(np.float64), axis=1))


def _correlation(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(reference, other, strict=True)]))


def _alpha(values: NDArray[np.float64], sfreq: float) -> float:
    hz, power = signal.welch(values, sfreq, nperseg=int(2 * sfreq))
    return float(power[:, (hz >= _ALPHA_HZ[0]) & (hz <= _ALPHA_HZ[1])].mean())


def _lost(recording: HeartbeatSignals, from_s: float) -> HeartbeatSignals:
    """The same without a lead from a moment on."""
    data = recording.data.copy()
    data[-1, int(from_s * recording.sfreq) :] = 0
    return replace(recording, data=data)


def measure() -> dict[str, dict[str, float]]:
    """All cases, by name."""
    usual = record(HeartbeatSettings())
    early = record(HeartbeatSettings(ectopic=(50, 62, 75, 90)))
    return {
        "electrocardiogram": judged(usual),
        "electrocardiogram lost at 50 s": judged(_lost(usual, 50), 50),
        "no electrocardiogram": judged(usual, ecg=False),
        "early beats": judged(early),
        "4 references": judged(record(HeartbeatSettings(references=4)), references=4),
        "6 references": judged(record(HeartbeatSettings(references=6)), references=6),
        "no artefact": judged(record(HeartbeatSettings(artefact=False))),
    }


def main() -> None:
    """Print and write the figures."""
    figures = measure()
    names = list(next(iter(figures.values())))
    table = Table("case", *names)
    for case, row in figures.items():
        table.add_row(case, *(f"{row[name]:.3f}" for name in names))
    Console(width=200).print(table)
    write(_OUT, figures)


if __name__ == "__main__":
    main()
