"""Whether captions describe the clips that they are paired with, or those of the window before or after.

Embeddings of clips and captions in one space (`train.targets`) tell: each clip is compared with its own
caption, with all others of its run, which is what permuted captions are on average, and with those of
neighbouring windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from rtdecode.errors import UsageError
from train.data.dataset import DataSet
from train.data.shifts import stretches_of
from train.data.target_cache import Cached, pooled_text, read

Reals = NDArray[np.float64]

# Windows by which captions are taken later than they are paired.
STEPS = (-2, -1, 1, 2)
# With fewer windows nothing is told.
_LEAST = 40
# Neighbouring clips are alike. Where there are fewer runs than this, so many neighbouring windows are counted
# as one in place of a run.
_RUNS = 8
_TOGETHER = 6
# Chance of a false alarm, over all steps.
_ALPHA = 0.01
# Captions fit no better than permuted ones where even the upper end of the gain is below this, in standard
# deviations of the similarity of clips and permuted captions. Some captions may only be vague.
_VAGUE = 0.5
# Titles whose embeddings of frames are read at a time.
_AT_A_TIME = 64


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much captions fit clips better than others do, and its interval.

    In standard deviations of the similarity of clips and permuted captions of the same run.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class CaptionShift:
    """How captions fit their clips.

    Attributes
    ----------
    windows : int
        How many are compared with permuted captions.
    over_permuted : Gain or None
        Of captions over permuted ones; None where windows are too few.
    neighbours : int
        How many windows are compared with the captions of neighbouring windows, which are those that have two
        windows before and two after them.
    step : int
        Windows by which the captions that fit best come later than those that are paired; 0 where windows are
        too few.
    over_own : Gain or None
        Of these over the captions that are paired.
    """

    windows: int
    over_permuted: Gain | None = None
    neighbours: int = 0
    step: int = 0
    over_own: Gain | None = None

    @property
    def is_shifted(self) -> bool:
        """Whether captions of neighbouring windows fit better by more than chance."""
        return self.over_own is not None and self.over_own.low > 0

    @property
    def is_permuted(self) -> bool:
        """Whether captions fit their clips no better than permuted ones."""
        gain = self.over_permuted
        return not self.is_shifted and gain is not None and gain.low <= 0 and gain.high < _VAGUE

    @property
    def says(self) -> str:
        """The finding in a sentence or two."""
        if self.is_shifted:
            side = "later" if self.step > 0 else "earlier"
            count = abs(self.step)
            return (
                f"The captions of {count} window{'s' * (count > 1)} {side} fit clips better than those that "
                f"are paired with them, by {self.over_own} standard deviations ({self.neighbours} windows). "
                "See whether pairs are off by a window, or whether a line of the list is missing."
            )
        if self.is_permuted:
            return (
                "Captions fit their clips no better than captions of other windows of the same run: the gain "
                f"is {self.over_permuted} standard deviations ({self.windows} windows). See whether they are "
                "in the order of the clips."
            )
        if self.over_permuted is None or self.over_permuted.low <= 0:
            return f"Whether captions fit their clips cannot be told from {self.windows} windows."
        fits = (
            "Captions fit their clips better than captions of other windows of the same run, by "
            f"{self.over_permuted} standard deviations ({self.windows} windows)"
        )
        if self.over_own is None:
            return f"{fits}. Whether they are shifted cannot be told from {self.neighbours} windows."
        return f"{fits}, and those of neighbouring windows do not fit better ({self.neighbours} windows)."


def caption_shift(data: DataSet, targets: Path) -> CaptionShift:
    """Look for captions that were shifted against their clips.

    A clip that was shown several times counts once, where it was shown first.

    Parameters
    ----------
    data : DataSet
        Says when each clip was shown. Its arrays are not read.
    targets : Path
        Where `train.targets` has put ``image`` and ``text``.

    Raises
    ------
    UsageError
        If one of them is missing, lacks a title, or they are not of one model and one width.
    """
    pictures = read(targets, "image")
    texts = pooled_text(read(targets, "text"))
    _check_space(pictures, texts, targets)
    stretches = _first_showings(data)
    rows = np.concatenate(stretches)
    titles = data.windows.shown[rows]
    clips = _centred(_pictures(pictures, pictures.rows(titles)))
    captions = _centred(_units(texts.read(texts.rows(titles))))
    # Stretches of one subject and run.
    names = list(zip(data.windows.subject[rows].tolist(), data.windows.run[rows].tolist(), strict=True))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    runs = np.array([numbers[name] for name in names])
    ends = np.cumsum([len(stretch) for stretch in stretches])
    places = np.split(np.arange(len(rows)), ends[:-1])
    return _compared(clips, captions, runs, places)


def _check_space(pictures: Cached, texts: Cached, folder: Path) -> None:
    widths = [cached.values.shape[-1] for cached in (pictures, texts)]
    if widths[0] != widths[1]:
        raise UsageError(
            "caption-shift-width-mismatch",
            "the embeddings of frames in {folder} have {image_width} numbers, and those of captions "
            "{text_width}: they are not of one space. Compute both with image=DIR and text=DIR of one CLIP "
            "or SigLIP.",
            folder=folder,
            image_width=widths[0],
            text_width=widths[1],
        )
    digests = [cached.index["model"]["sha256"] for cached in (pictures, texts)]
    if digests[0] != digests[1]:
        raise UsageError(
            "caption-shift-two-models",
            "the embeddings of frames and captions in {folder} are of two models (SHA-256 {image_model} and "
            "{text_model}): they are not of one space. Compute both with image=DIR and text=DIR of one CLIP "
            "or SigLIP.",
            folder=folder,
            image_model=digests[0][:12],
            text_model=digests[1][:12],
        )


def _first_showings(data: DataSet) -> list[NDArray[np.int64]]:
    """Return the windows that show something first, in stretches that follow each other without a gap."""
    table = data.windows
    _, first = np.unique(table.shown, return_index=True)
    stretches = []
    for subject in table.subjects:
        of_subject = first[table.subject[first] == subject]
        if len(of_subject):
            stretches += stretches_of(data, of_subject)
    return stretches


def _pictures(pictures: Cached, rows: NDArray[np.int64]) -> Reals:
    """Return the mean embedding of each clip's frames, (clip, feature)."""
    parts = [
        _units(pictures.read(rows[first : first + _AT_A_TIME])).mean(axis=1)
        for first in range(0, len(rows), _AT_A_TIME)
    ]
    return np.concatenate(parts)


def _units(vectors: NDArray[np.floating]) -> Reals:
    values = vectors.astype(np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def _centred(vectors: Reals) -> Reals:
    """Take away what all clips, or all captions, have in common: the two lie apart from each other."""
    return _units(vectors - vectors.mean(axis=0))


def _compared(
    clips: Reals, captions: Reals, runs: NDArray[np.int64], places: Sequence[NDArray[np.int64]]
) -> CaptionShift:
    paired = (clips * captions).sum(axis=1)
    permuted, variance = _permuted(clips, captions, paired, runs)
    usable = np.flatnonzero(np.isfinite(permuted))
    deviation = float(np.sqrt(variance[usable].mean())) if len(usable) else 0.0
    # A window whose two neighbours on both sides follow it without a gap.
    middle = np.concatenate([stretch[max(STEPS) : min(STEPS)] for stretch in places])
    if len(usable) < _LEAST or deviation < 1e-6:
        return CaptionShift(len(usable), neighbours=len(middle))
    over_permuted = _gain((paired - permuted)[usable] / deviation, runs[usable], 1)
    if len(middle) < _LEAST:
        return CaptionShift(len(usable), over_permuted, len(middle))
    later = np.array([(clips[middle] * captions[middle + step]).sum(axis=1) for step in STEPS])
    gains = (later - paired[middle]) / deviation
    best = int(gains.mean(axis=1).argmax())
    over_own = _gain(gains[best], runs[middle], len(STEPS))
    return CaptionShift(len(usable), over_permuted, len(middle), STEPS[best], over_own)


def _permuted(clips: Reals, captions: Reals, paired: Reals, runs: NDArray[np.int64]) -> tuple[Reals, Reals]:
    """Return mean and variance of each clip's similarity to the other captions of its run, (window,).

    They are what the permutations of a run's captions give on average. NaN where a run has too few.
    """
    mean = np.full(len(paired), np.nan)
    variance = np.full(len(paired), np.nan)
    for run in range(int(runs.max()) + 1):
        in_run = runs == run
        count = int(in_run.sum()) - 1
        if count < _TOGETHER:
            continue
        pictures = clips[in_run]
        texts = captions[in_run]
        squares = ((pictures @ (texts.T @ texts)) * pictures).sum(axis=1) - paired[in_run] ** 2
        mean[in_run] = (pictures @ texts.sum(axis=0) - paired[in_run]) / count
        variance[in_run] = np.maximum(squares / count - mean[in_run] ** 2, 0)
    return mean, variance


def _gain(gains: Reals, runs: NDArray[np.int64], tried: int) -> Gain:
    """Return the mean of windows and its interval, which counts windows of a cluster as one.

    Clusters are runs, or stretches of neighbouring windows where runs are few; `tried` is how many means it
    is the largest of.
    """
    _, clusters = np.unique(runs, return_inverse=True)
    if clusters.max() + 1 < _RUNS:
        # Windows come in the order of their runs.
        clusters = np.arange(len(gains)) // _TOGETHER
    count = int(clusters.max()) + 1
    mean = float(gains.mean())
    sums = np.bincount(clusters, gains - mean)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) / len(gains)
    half = float(student.ppf(1 - _ALPHA / 2 / tried, count - 1)) * error
    return Gain(mean, mean - half, mean + half)
