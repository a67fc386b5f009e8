"""The interface of judges: what one is asked (`Request`) and shown (`Show`), and what it finds (`Judged`).

A recipe's `judge` node builds a judge with three methods. ``check(data)`` refuses what cannot be judged,
before anything is trained. ``judge(work, plan, data, trained, show)`` judges what was just trained, and
``evaluate(data, bundle, show, request)`` judges a finished run. The last two return a `Judged`. A judge of
films has ``films`` instead of ``evaluate``: `train.judging.any_film.on_film` judges finished runs on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from rtdecode.bundle import Manifest
from rtdecode.disk.clip_file import Pixels
from rtdecode.scores import intervals
from rtdecode.scores.events import Span
from train.data.splits import Repeats
from train.reconstruct import Reconstruction, reconstruct
from train.system import System
from train.work import Arrays

Figures = dict[str, dict[str, Any]]

# The ridge beside a decoder learns from the sessions that the decoder was trained on.
OWN_SESSIONS = "own"
# The keys of a request that name networks, as files or folders, and those that ask for published figures.
NETWORKS = ("image_classifier", "video_classifier", "clip", "dino", "fvd")
PUBLISHED = ("published", *NETWORKS)


@dataclass(frozen=True, slots=True)
class Request:
    """What `train.evaluate` is asked to judge a run on. The fields are the keys of its command line."""

    presets: str = "easy"
    seeds: str | int = "1000-1001"
    seconds: float = 400.0
    runs: str | int = "9-10"
    data: Path | None = None
    out: Path | None = None
    subject: str | None = None
    film: str | None = None
    oracle: str | int | None = OWN_SESSIONS
    repeats: Repeats = "single"
    published: bool = False
    image_classifier: Path | None = None
    video_classifier: Path | None = None
    clip: Path | None = None
    dino: Path | None = None
    fvd: Path | None = None


class Show(Protocol):
    """A decoder to be judged; `shown` makes it of a trained system."""

    def __call__(
        self,
        inputs: Arrays,
        where: Sequence[Span],
        *,
        steps: int | None = None,
        carry: bool = True,
        null: bool = False,
    ) -> Reconstruction:
        """Reconstruct windows. Without `steps` they are the bundle's own."""
        ...

    def of(self, system: System) -> "Show":
        """Return the decoder of another system, with the same noise."""
        ...


@dataclass(frozen=True)
class _Decoder:
    """What `shown` returns."""

    system: System
    manifest: Manifest
    noise_key: str

    def __call__(
        self,
        inputs: Arrays,
        where: Sequence[Span],
        *,
        steps: int | None = None,
        carry: bool = True,
        null: bool = False,
    ) -> Reconstruction:
        return reconstruct(
            self.system,
            inputs,
            where,
            self.noise_key,
            hop_s=float(self.manifest.grid.hop),
            steps=self.manifest.steps if steps is None else steps,
            carry=carry,
            null=null,
        )

    def of(self, system: System) -> Show:
        return replace(self, system=system)


def unknown(chance: float | None, n: int, reason: str) -> dict[str, Any]:
    """Make the figure of what cannot be computed: its value is None, and ``reason`` says why.

    Parameters
    ----------
    chance : float or None
    n : int
        Number of windows that can be scored.
    reason : str
    """
    interval = intervals.Interval(None, 0, reason=reason)
    figure = {"value": None, "chance": chance, "shuffled": None, "constant": None}
    return figure | interval.entries() | {"n": n, "reason": reason}


def shown(system: System, manifest: Manifest, noise_key: str) -> Show:
    """Return a trained system's decoder, with the noise, the hop and the steps of its sessions."""
    return _Decoder(system, manifest, noise_key)


@dataclass(frozen=True)
class Example:
    """A window to be looked at.

    Attributes
    ----------
    words : str
        Which window it is.
    clips : dict
        Heading -> clip, uint8 (frame, row, column, 3).
    fps : float
    """

    words: str
    clips: dict[str, Pixels]
    fps: float


@dataclass(frozen=True)
class Judged:
    """The findings of a judge.

    Attributes
    ----------
    figures : dict
        Metric -> {value, chance, shuffled, constant, ci95, n}.
    tables : dict
        Lists of rows, and ``curves``.
    pictures : dict
        File name -> picture.
    examples : list of Example
        Windows whose clips stand on the page.
    simulated : bool
        Whether the participant was simulated.
    """

    figures: Figures
    tables: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    simulated: bool = False

    def with_participant(self, name: str, other: "Judged") -> "Judged":
        """Put the findings of another participant beside these.

        Its figures and tables have its name and a slash before their own, and its pictures a hyphen.
        """
        return replace(
            self,
            figures=self.figures | {f"{name}/{metric}": figure for metric, figure in other.figures.items()},
            tables=self.tables | {f"{name}/{title}": table for title, table in other.tables.items()},
            pictures=self.pictures | {f"{name}-{file}": picture for file, picture in other.pictures.items()},
            simulated=self.simulated or other.simulated,
        )
