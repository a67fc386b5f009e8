"""Runs that were kept from teaching, decoded and held against what they showed.

`judge_runs` decodes them with each set of modalities and without a brain, and scores every window
(`train.judging.film_scores`, `train.judging.published`). The judges `last-run`, of one's own recordings, and
`held-out-runs`, of data sets, make figures of the scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.phantom.film.watched import Watched
from rtdecode.scores.events import Span
from train.data.clip_grid import shown_frames
from train.judging.film_figures import CONSTANT
from train.judging.film_scores import Scores, Shown, constant_scores, describe, score, told_apart
from train.judging.identification import ROUTES, only, routes_of
from train.judging.judged import Show
from train.judging.pictures import contact_sheet
from train.judging.published import NEAREST, NULL, Published, Tally
from train.judging.references import recoded
from train.metrics.pixels import NearestClips
from train.system import System
from train.work import Arrays

# Bits need a temperature from windows that are neither taught nor judged, and there are none.
_WITHOUT = "bits_per_window"
_TEMPERATURE = 1.0
_SHEET_ROWS = 12
# Where in a clip the frames lie that the sheet shows, as shares of its length.
_SHEET_AT = (1 / 8, 1 / 2, 7 / 8)
# Whose clips are looked at beside the film.
_HEADINGS = {"": "decoded", NULL: "null brain", NEAREST: "nearest training clip"}


class HeldRun(Protocol):
    """A run that was kept from teaching."""

    @property
    def windows(self) -> int:
        """Number of windows."""
        ...

    @property
    def run_s(self) -> NDArray[np.float64]:
        """Start of each window in the run, s."""
        ...

    def clips(self) -> NDArray[np.uint8]:
        """Return what the windows showed as clips of the bundle, (window, frame, row, column, 3)."""
        ...

    def watched(self) -> Watched:
        """Return the film as if its windows had been shown one after the other, without the gaps."""
        ...

    def arrays(self, bundle: Bundle) -> Arrays:
        """Return the signals by port, as the bundle reads them."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """What `judge_runs` found.

    Attributes
    ----------
    scores : dict
        Suffix of a decoder, control or reference -> its scores in each run.
    shown : list of Shown
    clips : list
        The decoder's clips in each run.
    first : dict
        Heading -> clips in the first run, to be looked at.
    tally : Tally
    sheet : Image
        The same in some windows of it.
    """

    scores: dict[str, list[Scores]]
    shown: list[Shown]
    clips: list[Sequence[Pixels]]
    first: dict[str, Sequence[Pixels]]
    tally: Tally
    sheet: Image.Image


def judge_runs(
    held: Sequence[HeldRun],
    bundle: Bundle,
    show: Show,
    system: System | None = None,
    papers: Published | None = None,
    training: Sequence[Pixels] = (),
) -> HeldOut:
    """Decode runs and score their windows.

    Parameters
    ----------
    held : sequence of HeldRun
    bundle : Bundle
    show : callable
        See `Show`.
    system : System, optional
        What `show` shows; with it, pictures are also held against what its codec makes of the film.
    papers : Published, optional
        The networks by which published figures are made.
    training : sequence of (frame, row, column, 3)
        What taught. With it, the nearest of these clips stand beside the decoder's.
    """
    mean_clip = _mean_clip(bundle)
    scores: dict[str, list[Scores]] = {}
    shown: list[Shown] = []
    drawn: list[Sequence[Pixels]] = []
    first: dict[str, Sequence[Pixels]] = {}
    tally = Tally(papers or Published(), mean_clip, training)
    closest = NearestClips(training, mean_clip) if training else None
    for number, one in enumerate(held):
        film = _describe(one, number, bundle, system)
        shown.append(film)
        tally.film(film, again=False)
        clips = _clips(show, one, number, bundle)
        if closest is not None:
            cut = [clip[: len(mean_clip)] for clip in clips[""]]
            clips[NEAREST] = closest.to(cut)
        drawn.append(clips[""])
        if not first:
            first = {_HEADINGS[suffix]: some for suffix, some in clips.items() if suffix in _HEADINGS}
            first = {"film": film.clips, **first}
        for suffix, some in clips.items():
            # Of one modality alone no other figure is made.
            alone = suffix in ROUTES and suffix != ""
            found = (told_apart if alone else score)(some, film, mean_clip, _TEMPERATURE)
            scores.setdefault(suffix, []).append(_without_bits(found) | tally.add(suffix, some))
        constant = constant_scores(mean_clip, film, _TEMPERATURE)
        scores.setdefault(CONSTANT, []).append(_without_bits(constant) | tally.constant())
        tally.join_pictures(scores, CONSTANT)
    if tally.published:
        scores |= tally.references()
    frames = [round(at * (len(mean_clip) - 1)) for at in _SHEET_AT]
    picture = contact_sheet(_picked(first), frames, f"held run, {bundle.manifest.steps} steps")
    return HeldOut(scores, shown, drawn, first, tally, picture)


def scored(clips: Sequence[Pixels], film: Shown, bundle: Bundle) -> Scores:
    """Score clips of a run, as `judge_runs` does."""
    return _without_bits(score(clips, film, _mean_clip(bundle), _TEMPERATURE))


def _mean_clip(bundle: Bundle) -> Pixels:
    """Return the training mean without the frame after the window."""
    return bundle.stats["mean_clip"][: shown_frames(bundle.manifest)]


def _describe(one: HeldRun, number: int, bundle: Bundle, system: System | None) -> Shown:
    # Windows are described one after the other, without the gaps between them.
    clip = bundle.manifest.clip
    length_s = shown_frames(bundle.manifest) / clip.fps
    where: list[Span] = [(number, k * length_s, (k + 1) * length_s) for k in range(one.windows)]
    through_codec = None if system is None else recoded(system, bundle, one.clips())
    return describe(one.watched(), where, through_codec)


def _clips(show: Show, one: HeldRun, number: int, bundle: Bundle) -> dict[str, Sequence[Pixels]]:
    """Return the clips of the decoder, of each of several modalities alone, and of the null brain."""
    inputs = one.arrays(bundle)
    window_s = float(bundle.manifest.grid.window)
    # Where they lie in the run: a clip carries on from the one before unless there is a gap.
    where: list[Span] = [(number, float(start), float(start) + window_s) for start in one.run_s]
    routes = routes_of(bundle.manifest)
    found = {suffix: show(only(inputs, kept), where).clips for suffix, kept in routes.items()}
    return {**found, NULL: show(inputs, where, null=True).clips}


def _without_bits(scores: Scores) -> Scores:
    return {name: value for name, value in scores.items() if name != _WITHOUT}


def _picked(sheet: dict[str, Sequence[Pixels]]) -> dict[str, Sequence[Pixels]]:
    """Choose some windows for the sheet, from all over the run."""
    count = len(sheet["film"])
    rows = np.linspace(0, count - 1, min(_SHEET_ROWS, count)).astype(int)
    return {name: [clips[row] for row in rows] for name, clips in sheet.items()}
