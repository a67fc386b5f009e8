"""The interface of judges: what one is asked, what decodes for it, and what it finds.

See `Request`, `Decode` and `Evaluation`.

A recipe's `judge` node builds a `Judge`, or a `FeatureJudge` for what draws no clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from PIL import Image

from rtdecode.bundle import Manifest
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.scores import intervals
from rtdecode.scores.events import Span
from train.config.run_context import Arrays, RunContext
from train.data.splits import Repeats
from train.evaluation.kept_decodes import KeptDecodes, digest
from train.evaluation.reconstruct import Reconstruction, reconstruct
from train.interface.system import Fitted, Plan, System, Trained

Figures = dict[str, dict[str, Any]]

# The ridge beside a decoder learns from the sessions that the decoder was trained on.
OWN_SESSIONS = "own"
# The keys of a request that name networks, as files or folders, those that evaluations by sections read, and
# those that say which sessions of the simulated participant are judged.
NETWORKS = ("image_classifier", "video_classifier", "clip", "dino", "fvd")
OF_SECTIONS = ("published", *NETWORKS, "repeats", "sections", "windows", "processes", "ahead", "attention")
OF_FRESH_SESSIONS = ("presets", "seeds", "seconds")
OF_FILMS = ("film", "oracle", *OF_FRESH_SESSIONS, *OF_SECTIONS)
# The keys that are read for every run that decodes, and those for a run that predicts features.
OF_DECODERS = ("subject", "sampler", "out", "keep")
OF_FEATURES = ("data", "subject", "out")


@dataclass(frozen=True, slots=True)
class Request:
    """What `train.evaluate` is asked to judge a run on. The fields are the keys of its command line."""

    presets: str = "easy"
    seeds: str | int = "1000-1001"
    seconds: float = 400.0
    runs: str | int = "9-10"
    data: Path | None = None
    out: Path | None = None
    keep: Path | Literal["none"] | None = None
    subject: str | None = None
    windows: int | None = None
    processes: int = 1
    ahead: bool = False
    film: str | None = None
    oracle: str | int | None = OWN_SESSIONS
    repeats: Repeats = "single"
    sections: str | None = None
    published: bool = False
    image_classifier: Path | None = None
    video_classifier: Path | None = None
    clip: Path | None = None
    dino: Path | None = None
    fvd: Path | None = None
    sampler: str | None = None
    attention: bool = False

    @property
    def decodes_twice(self) -> bool:
        """Whether no clip is held for longer than its session (``keep=none``)."""
        return self.keep == "none"

    def check_read(self, *keys: str, where: str) -> None:
        """Refuse what is asked and would change nothing.

        Parameters
        ----------
        *keys : str
            The keys that are read.
        where : str
            Where they are read, for the error.

        Raises
        ------
        UsageError
            If another key has another value than its default.
        """
        usual = Request()
        changed = [key for key in self.__slots__ if getattr(self, key) != getattr(usual, key)]
        unread = [key for key in changed if key not in keys]
        if self.decodes_twice and "sections" not in keys and "keep" in keys:
            # Clips are kept in a folder by all that decode; only sections can do without.
            unread.append("keep=none")
        if unread:
            raise UsageError(
                "evaluate-key-unread",
                "{unread} would change nothing: {where}, which reads {available}. Leave it out. film=shapes, "
                "natural or a file reads more, of a run that was trained on the simulated participant.",
                unread=unread,
                where=where,
                available=list(keys),
            )


class Decode(Protocol):
    """A decoder to be judged; `make_decode` makes it of a trained system."""

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

    def of(self, system: System, manifest: Manifest) -> "Decode":
        """Return the decoder of another system, such as another participant's, with the same noise."""
        ...

    def without_adapters(self) -> "Decode | None":
        """Return the same decoder as it was before its adapters; None where it has none."""
        ...

    @property
    def archive(self) -> KeptDecodes | None:
        """Where what it decodes is kept."""
        ...

    def anew(self) -> "Decode":
        """Return the same decoder, which keeps nothing, and decodes what is kept as well."""
        ...


@dataclass(frozen=True)
class _Decoder:
    """What `make_decode` returns. `kept` is where its clips are kept, and `key` what these depend on."""

    system: System
    manifest: Manifest
    noise_key: str
    archive: KeptDecodes | None
    key: str

    def __call__(
        self,
        inputs: Arrays,
        where: Sequence[Span],
        *,
        steps: int | None = None,
        carry: bool = True,
        null: bool = False,
    ) -> Reconstruction:
        hop_s = float(self.manifest.grid.hop)
        count = self.manifest.steps if steps is None else steps
        decode = partial(
            reconstruct,
            self.system,
            inputs,
            where,
            self.noise_key,
            hop_s=hop_s,
            steps=count,
            carry=carry,
            null=null,
        )
        if self.archive is None:
            return decode()
        how = {"noise": self.noise_key, "hop": hop_s, "steps": count, "carry": carry, "null": null}
        archive = self.archive.of(self.key, inputs, where, how)
        with archive.alone(waits=self.archive.waits):
            return decode(archive=archive)

    def of(self, system: System, manifest: Manifest) -> Decode:
        return make_decode(system, manifest, self.noise_key, self.archive)

    def without_adapters(self) -> Decode | None:
        bare = self.system.without_adapters()
        return None if bare is None else replace(self, system=bare, key=f"{self.key} without adapters")

    def anew(self) -> Decode:
        return replace(self, archive=None)


def unknown(chance: float | None, n: int, reason: str) -> dict[str, Any]:
    """Make the figure of what cannot be computed: its value is None, and ``reason`` says why.

    Parameters
    ----------
    chance : float or None
        What guessing scores on average; None where that is not known.
    n : int
        Number of windows that can be scored.
    reason : str
        Why the value is not known, in words for the reader.
    """
    interval = intervals.Interval(None, 0, reason=reason)
    figure = {"value": None, "chance": chance, "shuffled": None, "constant": None}
    return figure | interval.entries() | {"n": n, "reason": reason}


def make_decode(
    system: System, manifest: Manifest, noise_key: str, archive: KeptDecodes | None = None
) -> Decode:
    """Return a trained system's decoder, with the noise, the hop and the steps of its sessions.

    Parameters
    ----------
    system : System
        The trained system that decodes.
    manifest : Manifest
        Gives the hop and the steps.
    noise_key : str
        Seeds the noise, see `rtdecode.bundle.noise.noise`.
    archive : KeptDecodes, optional
        Where what it decodes is kept, so that it is not decoded again.
    """
    key = ""
    if archive is not None:
        memories = {f"memory {name}": table.values for name, table in system.memories().items()}
        key = digest(system.weights() | memories)
        # Clips of before there was a choice go on.
        if system.sampler != System.sampler:
            key = f"{key} {system.sampler}"
    return _Decoder(system, manifest, noise_key, archive, key)


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
        Frames per second of the clips.
    """

    words: str
    clips: dict[str, Pixels]
    fps: float


@dataclass(frozen=True)
class Evaluation:
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

    def with_participant(self, name: str, other: "Evaluation") -> "Evaluation":
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


@runtime_checkable
class Judge(Protocol):
    """What computes the figures of a run that draws clips or names categories."""

    @property
    def reads(self) -> Sequence[str]:
        """Which keys of a request `evaluate` reads, besides those that are for every decoder."""
        ...

    def check(self, data: Any) -> None:
        """Refuse data that cannot be judged, before anything is trained."""
        ...

    def judge(self, work: RunContext, plan: Plan, data: Any, trained: Trained, show: Decode) -> Evaluation:
        """Judge what was just trained, as the recipe says."""
        ...

    def evaluate(self, data: Any, trained: Trained, show: Decode, request: Request) -> Evaluation:
        """Judge a finished run as requested."""
        ...


@runtime_checkable
class FeatureJudge(Protocol):
    """What computes the figures of a run that predicts numbers of what was watched."""

    def check(self, data: Any) -> None:
        """Refuse data that cannot be judged, before anything is fitted."""
        ...

    def judge_fitted(self, work: RunContext, data: Any, fitted: Fitted) -> Evaluation:
        """Judge what was just fitted."""
        ...

    def evaluate_fitted(self, data: Any, fitted: Fitted, request: Request) -> Evaluation:
        """Judge a finished run as requested."""
        ...
