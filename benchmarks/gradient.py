"""The gradient artefact's residual, beside MNE's GradientRemover and a template that counts samples.

python -m benchmarks.gradient [--json]     # prints a table, writes results/gradient.json

MNE (`pip install "mne>=1.13"`) is used here and in tests only. All see the same recordings; all templates
are of the 30 epochs before. What counts begins with the 60th second. Errors are rms against the same run
without artefact. MNE takes a line out of every epoch, EEG and all: beside that error are
both errors after a line was taken out of the EEG and of our result alike.
"""

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import signal

from benchmarks.gradient_signals import (
    SFREQ,
    GradientSignals,
    corrected,
    down_db,
    error_uv,
    likeness,
    recorded,
)
from benchmarks.result_files import RESULTS, write
from rtdecode.signal.gradient.remover import Gradient, GradientRemover
from streaming.tools import bench

FROM_S = 60.0
SECONDS = 100.0
SHOTS = 11  # in a TR: 33 slices, 3 at once
CASES: dict[str, dict[str, Any]] = {
    "artefact alone, synchronised": {"drift_ppm": 0.0, "eeg_uv": 0.0},
    "artefact alone, 20 ppm": {"drift_ppm": 20.0, "eeg_uv": 0.0},
    "12 uV of EEG, synchronised": {"drift_ppm": 0.0},
    "12 uV of EEG, 20 ppm": {"drift_ppm": 20.0},
    "12 uV of EEG, 20 ppm, 1 % of motion": {"drift_ppm": 20.0, "motion": 0.01},
    "12 uV of EEG, 50 ppm, TR 1.2345 s": {"drift_ppm": 50.0, "tr_s": 1.2345},
}
_OUT = RESULTS / "gradient.json"


def with_mne(recording: GradientSignals, epochs: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """MNE's result with the causal window, where its epochs begin, and their length."""
    from mne.preprocessing import GradientRemover as Oracle

    places = np.round((recording.triggers - recording.times[0]) * SFREQ).astype(int)
    places = places[places + round(recording.tr_s * SFREQ) + 2 < len(recording.times)]
    oracle = Oracle(recording.data.astype(np.float64), places, window=(epochs, 0), tr_tol=1)
    return oracle.corrected, places, oracle.tr_spacing


def without_lines(data: NDArray[Any], places: NDArray[Any], length: int) -> NDArray[Any]:
    """The same with a line taken out of every epoch, as MNE does."""
    out = data.astype(np.float64)
    for place in places:
        out[:, place : place + length] = signal.detrend(out[:, place : place + length])
    return out


def counting_samples(recording: GradientSignals, epochs: int) -> NDArray[Any]:
    """The mean of the epochs before, a whole number of samples long, counted from the first trigger."""
    length = int(recording.tr_s * SFREQ)
    first = round((recording.triggers[0] - recording.times[0]) * SFREQ)
    count = (recording.data.shape[1] - first) // length
    data = recording.data[:, first : first + count * length].reshape(-1, count, length).astype(np.float64)
    clean = recording.data.astype(np.float64)
    for epoch in range(epochs, count):
        start = first + epoch * length
        clean[:, start : start + length] -= data[:, epoch - epochs : epoch].mean(axis=1)
    return clean


def compare(channels: int = 32, **case: Any) -> dict[str, float]:
    """One recording through all of them."""
    recording = recorded(SECONDS, channels, **case)
    part = slice(round(FROM_S * SFREQ), round((SECONDS - 2) * SFREQ))
    clean, _, remover = corrected(recording)
    epochs = Gradient().epochs
    mne, places, length = with_mne(recording, epochs)
    ours_detrended, detrended = (without_lines(x, places, length)[:, part] for x in (clean, recording.eeg))
    counted = counting_samples(recording, epochs)
    sections = signal.butter(4, 30, fs=SFREQ, output="sos")
    low, low_eeg = (np.asarray(signal.sosfilt(sections, x)) for x in (recording.data, recording.eeg))
    eeg = recording.eeg[:, part]
    harmonics = SHOTS / recording.tr_s / (1 + 1e-6 * case["drift_ppm"])
    figures = {
        "before_uv": error_uv(recording.data[:, part], eeg),
        "low_pass_alone_uv": error_uv(low[:, part], low_eeg[:, part]),
        "ours_uv": error_uv(clean[:, part], eeg),
        "mne_uv": error_uv(mne[:, part], eeg),
        "mne_detrended_uv": error_uv(mne[:, part], detrended),
        "ours_detrended_uv": error_uv(ours_detrended, detrended),
        "counted_uv": error_uv(counted[:, part], eeg),
        "slices_down_db": down_db(recording.data[:, part] - eeg, clean[:, part] - eeg, harmonics, SFREQ),
        "timing_us": remover.report()["timing_us"],
    }
    if case.get("eeg_uv", 12.0):
        late = slice(round((FROM_S - 10) * SFREQ), part.stop)
        for name, data in (("ours", clean), ("mne", mne), ("uncorrected", recording.data)):
            figures[f"{name}_correlation"] = likeness(data[:, late], recording.eeg[:, late], SFREQ, 10)
    return figures


def cost(channels: int = 64, seconds: float = 90.0) -> dict[str, float]:
    """Processor time with everything on, in chunks of 20 ms, after the template is full."""
    recording = recorded(seconds, channels, motion=0.01)
    remover = GradientRemover(SFREQ, channels, recording.tr_s)
    for trigger_s in recording.triggers:
        remover.trigger(float(trigger_s))
    chunk_s = []
    for start in range(0, len(recording.times), 100):
        part = slice(start, start + 100)
        before = time.process_time()
        remover.push(recording.data[:, part], recording.times[part])
        chunk_s.append(time.process_time() - before)
    late = np.array(chunk_s[50 * 45 :])
    return {
        "percent_of_a_core": float(100 * late.sum() / (0.02 * len(late))),
        "chunk_p50_ms": float(1e3 * np.percentile(late, 50)),
        "chunk_p99_ms": float(1e3 * np.percentile(late, 99)),
    }


def main(as_json: bool) -> None:
    """Run everything, print it, write it."""
    by_case = {name: compare(**case) for name, case in CASES.items()}
    result = {"machine": bench._machine(), "gradient": by_case, "cost_64_channels": cost()}
    write(_OUT, result)
    console = Console(width=150)
    if as_json:
        console.print_json(data=result)
        return
    table = Table("recording", title=f"residual from the {FROM_S:g}th second on", title_justify="left")
    sizes = ("before", "low_pass_alone", "ours", "mne", "ours_detrended", "mne_detrended", "counted")
    for column in (*sizes, "slices dB", "r", "r MNE", "r before"):
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in by_case.items():
        cells = [f"{row[f'{key}_uv']:.2f}" for key in sizes] + [f"{row['slices_down_db']:.0f}"]
        cells += [f"{row.get(f'{key}_correlation', np.nan):.3f}" for key in ("ours", "mne", "uncorrected")]
        table.add_row(name, *cells)
    console.print(table)
    console.print(result["cost_64_channels"])


if __name__ == "__main__":
    main("--json" in sys.argv[1:])
