"""The sections of an evaluation: groups of metrics that a recipe lists, each in a file of its own.

A section sees the held-out windows of one session after the other (`HeldOutWindows`), as the system and all
that stands beside it decode them (`Decoded`), and scores every window. It decodes nothing and draws nothing.
`train.evaluation.section_runner` runs the sections, and makes figures of the scores.

To add a metric, write a `Metric`, register it as a builder and name it in the recipe's ``judge`` node, as in
``sections: "identification,pictures,layout"``.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from rtdecode.scores.events import Span
from train.config import builders
from train.config.recipe import words
from train.config.run_context import Arrays
from train.data.clip_grid import shown_frames
from train.evaluation.beside import HELPERS
from train.evaluation.film_scores import FilmWindows, Scores
from train.evaluation.published import Published
from train.evaluation.references import References
from train.evaluation.result import Decode, Figures, Request
from train.interface.system import System
from train.metrics.pixels import NearestClips

# The sections that come with the package, in the order in which they are scored. They are imported when they
# are named: some need packages that others do not.
SHIPPED = {
    "identification": "train.evaluation.sections.identification:IdentificationSection",
    "pictures": "train.evaluation.sections.pictures:Pictures",
    "published": "train.evaluation.sections.published:PublishedMetrics",
    "presence": "train.evaluation.sections.presence:BrainPresence",
    "ceiling": "train.evaluation.sections.ceiling:Ceiling",
    "condition": "train.evaluation.sections.condition:ConditionVectors",
    "gains": "train.evaluation.sections.gains:Gains",
    "start": "train.evaluation.sections.start:DrawnOverStart",
    "categories": "train.evaluation.sections.categories:CategoryNaming",
}
ALL_SECTIONS = ",".join(SHIPPED)
# Those that are scored only where they are asked for.
ATTENTION = "attention"
_ON_REQUEST = {ATTENTION: "train.evaluation.sections.attention:AttentionMaps"}
# Those of data without controls and a forward model of their own.
OF_RECORDED = "identification,pictures,published"


@dataclass(frozen=True)
class EvaluatedRun:
    """The run that is evaluated, and what stands beside it in all sessions.

    Attributes
    ----------
    show : Decode
        Decodes windows.
    bundle : Bundle
        The run's manifest, statistics and projection.
    system : System
        What `show` shows.
    baselines : References
        What the system is compared with, such as clips of training films and an oracle.
    networks : Published
        The networks of published metrics.
    decodes_twice : bool
        Whether clips that are needed after their session are decoded again, and not held on disk.
    regions : mapping
        Name -> where the region lies among the voxels that the bundle reads, (voxel,), as far as it is known.
    """

    show: Decode
    bundle: Bundle
    system: System
    baselines: References
    networks: Published = field(default_factory=Published)
    decodes_twice: bool = False
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def mean_clip(self) -> Pixels:
        """Training mean, without the frame after the window."""
        return self.bundle.stats["mean_clip"][: shown_frames(self.bundle.manifest)]

    @cached_property
    def nearest(self) -> NearestClips:
        """Finds the nearest windows of the training films."""
        return NearestClips(self.baselines.clips, self.mean_clip)


@dataclass(frozen=True)
class HeldOutWindows:
    """Windows of one session that taught nothing.

    Attributes
    ----------
    number : int
        Of the session in its evaluation.
    inputs : dict
        Signals by port, a row for each window.
    spans : list of (run, start_s, stop_s)
        Where the windows lie in the session: a clip carries on from the one before unless there is a gap.
    truth : FilmWindows
        What was watched in them.
    controls : dict
        Suffix -> the signals of as many windows of a brain that tells nothing of the film.
    session : PhantomSession or None
        The session itself where it was simulated.
    rows : (window,) int64 or None
        Places of the windows among those of the session; None where these are all.
    event_words : sequence of str
        The words that an events file has for what each window shows, of simulated sessions.
    """

    number: int
    inputs: Arrays
    spans: Sequence[Span]
    truth: FilmWindows
    controls: Mapping[str, Arrays] = field(default_factory=dict)
    session: PhantomSession | None = None
    rows: NDArray[np.int64] | None = None
    event_words: Sequence[str] = ()


@dataclass(frozen=True)
class Decoded:
    """The clips that a decoder, a control or a baseline shows in the windows of one session.

    Attributes
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        A clip for each window.
    confidence : (window,) or None
        What the system promised for each.
    encode : callable or None
        Makes the vectors of the condition, (window, value); see `train.interface.system.Condition.pooled`.
    origin : (session, steps) or None
        Of clips that stand in for a control: the session that they were decoded of, and by how many windows
        they are shifted.
    """

    clips: Sequence[Pixels]
    confidence: NDArray[np.float64] | None = None
    encode: Callable[[], NDArray[np.floating] | None] | None = None
    origin: tuple[int, int] | None = None

    @cached_property
    def vectors(self) -> NDArray[np.floating] | None:
        """The vectors of the condition; None where there are none."""
        return None if self.encode is None else self.encode()

    def stands_in(self, session: int, steps: int) -> "Decoded":
        """Return the clips of so many windows later, round about, with their vectors."""

        def encode() -> NDArray[np.floating] | None:
            return None if self.vectors is None else np.roll(self.vectors, -steps, axis=0)

        return Decoded([*self.clips[steps:], *self.clips[:steps]], encode=encode, origin=(session, steps))


class Scorer:
    """A section at work in one evaluation. What it does not define adds nothing.

    Attributes
    ----------
    chance : mapping
        Metric -> what a guess scores on average; None where that is not known.
    """

    chance: ClassVar[Mapping[str, float | None]] = {}

    def wants(self, suffix: str) -> bool:
        """Whether it scores what has this suffix (`train.evaluation.beside`).

        What nobody wants is not decoded. By default it is all but what other sections ask to be decoded for
        them.
        """
        return suffix not in HELPERS

    def film(self, windows: HeldOutWindows) -> None:
        """Take the next session, before anything of it is scored."""

    def score(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score every window: metric -> score and weight of each, (window,) both."""
        return {}

    def stand_in(self, suffix: str, decoded: Decoded, windows: HeldOutWindows) -> Scores:
        """Score clips of other windows that stand in for a control of these, after all sessions."""
        return self.score(suffix, decoded, windows)

    def close(self, windows: HeldOutWindows, scores: Mapping[str, Scores]) -> dict[str, Scores]:
        """Score what takes all of a session: suffix -> scores. `scores` are what was scored of it so far."""
        return {}

    def references(self) -> dict[str, list[Scores]]:
        """Score what takes all sessions and no decoder: suffix -> scores of each session."""
        return {}

    def figures(self, units: NDArray[np.int64]) -> Figures:
        """Make figures that are no means of scores.

        Parameters
        ----------
        units : (window,) int
            Of the windows of all sessions; those with the same number are resampled together.
        """
        return {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return tables for the page: title -> rows."""
        return {}

    def pictures(self) -> dict[str, Image.Image]:
        """Return pictures for the page, by their names."""
        return {}


@runtime_checkable
class Section(Protocol):
    """What a name in a recipe's list of sections builds."""

    # The modalities without which it cannot be scored.
    needs: ClassVar[Sequence[str]] = ()

    def begin(self, run: EvaluatedRun) -> Scorer | None:
        """Start to score a run; None where there is nothing of it to be scored."""
        ...


class Metric(Scorer, Section):
    """A section that scores one session at a time and remembers nothing: define `chance` and `score`."""

    def begin(self, run: EvaluatedRun) -> Scorer | None:
        """Start to score a run."""
        return self


def sections_of(listed: str) -> list[Section]:
    """Build the sections of names with commas between them, such as ``identification,pictures``.

    Raises
    ------
    UsageError
        If there is no section of a name, or none is named.
    """
    names = words(str(listed))
    if not names:
        raise UsageError(
            "sections-empty",
            "sections= names no section. There are {available}.",
            available=list(SHIPPED),
        )
    return [_section(name) for name in dict.fromkeys(names)]


def sections_for(request: Request, default: str) -> list[Section]:
    """Build the sections that an evaluation asks for, or those of its default.

    Raises
    ------
    UsageError
    """
    listed = str(request.sections or default)
    return sections_of(f"{listed},{ATTENTION}" if request.attention else listed)


def _section(name: str) -> Section:
    shipped = SHIPPED | _ON_REQUEST
    if name in shipped:
        module, _, attribute = shipped[name].partition(":")
        return getattr(importlib.import_module(module), attribute)()
    # One of another package is a builder, as all parts of a recipe are.
    section = builders.find(name)() if name in builders.added() else None
    if not isinstance(section, Section):
        raise UsageError(
            "section-unknown",
            "there is no section '{section}'. There are {available}; one of your own is a builder "
            "(docs/evaluation.md).",
            section=name,
            available=[*SHIPPED, *_ON_REQUEST, *builders.added()],
        )
    return section


def check_needs(sections: Sequence[Section], bundle: Bundle) -> None:
    """Refuse sections that need a modality which the run does not read.

    Raises
    ------
    UsageError
    """
    for section in sections:
        missing = [modality for modality in section.needs if modality not in bundle.manifest.modalities]
        if missing:
            raise UsageError(
                "section-missing-modality",
                "the section {section} needs {missing}, and this run reads {modalities}. Leave it out of "
                "sections=.",
                section=type(section).__name__,
                missing=missing,
                modalities=list(bundle.manifest.modalities),
            )
