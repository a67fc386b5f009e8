"""The interface of everything that decodes. Judging, export, parity and evaluation know nothing else of it.

A recipe's `system` node builds a `Plan`, which trains a system, and later restores it from a run's weights.
Either way the plan hands over a `System`. Windows of signals go through it in this order:

1. `System.ports` says which inputs it reads.
2. `System.condition` turns them into a `Condition`, whose parts have names.
3. `System.sample` makes latents under that condition.
4. `System.frames` draws the latents.

`System.stages` lists the graphs by which an export does the same. To add a system, write these two classes
and register the plan's builder; ``docs/own-system.md`` has the steps. Examples are `train.models.ridge`, in
closed form, and `train.models.compact`, which is trained with gradients.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle, Manifest
from rtdecode.bundle.manifest import OWN_STAGES
from rtdecode.bundle.wiring import PortBindings
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.signal.volume.projection import Projection
from train.config.run_context import Arrays, RunContext
from train.data.chain import draft_bundle

if TYPE_CHECKING:
    # Systems in closed form work without torch, and they can be trained without onnx.
    from onnx import ModelProto
    from torch import Tensor, nn


# How the weights of participants other than the default one begin.
_SUBJECTS = "subjects."


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a system.

    Attributes
    ----------
    name : str
        How the system calls it.
    source : str
        What the runtime puts there: ``eeg``, ``eeg_mask``, ``fmri``, ``fmri_mask`` or ``state``.
    shape : tuple of int
        Shape for one window, without the batch axis.
    """

    name: str
    source: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """What the signals of some windows say, in parts that have names. Every part is optional.

    A system chooses whether its parts are arrays or tensors. Their first axis is always the window.

    Attributes
    ----------
    tokens
        (window, token, width).
    pooled
        (window, width).
    map
        (window, channel, latent frame, row, column), laid beside the latents.
    start
        Latents to start from, (window, channel, latent frame, row, column).
    start_level
        Noise level at which sampling starts from these latents, a number or (window, 1). A decoder in
        closed form takes them as they are, at level 0.
    memory
        (window, item, width), the rows that were looked up in a memory.
    scores
        Probabilities of named categories, (window, label).
    confidence
        From 0 to 1, (window, 1).
    brain
        Probabilities of `rtdecode.types.PRESENCES`, in that order, (window, 3).
    brain_by
        Probabilities that each modality alone is of a brain that can be read, in the order of
        `rtdecode.bundle.brain.MODALITIES`, (window, 2).
    """

    tokens: Any = None
    pooled: Any = None
    map: Any = None
    start: Any = None
    start_level: Any = 1.0
    memory: Any = None
    scores: Any = None
    confidence: Any = None
    brain: Any = None
    brain_by: Any = None


@dataclass(frozen=True)
class Table:
    """A memory: rows that a system looks up, kept in a file of their own.

    Attributes
    ----------
    values : (row, value)
        The array may be mapped from a file, and larger than the working memory.
    dtype : str
        Type of the values, as in `rtdecode.bundle.Memory`.
    """

    values: NDArray[Any]
    dtype: str


@dataclass(frozen=True)
class Traced:
    """A stage that export traces from a torch module.

    Attributes
    ----------
    name : str
        Name of the stage.
    module : torch.nn.Module
        What is traced; its arguments are tensors, one for each input.
    inputs : dict
        Port -> an example of the right shape, in the order of the module's arguments.
    outputs : list of str
        Ports, in the order of what the module returns.
    bindings : PortBindings
        Where input ports get their values, and where the values of output ports go. Only ports whose names
        do not say it need an entry (`rtdecode.bundle.wiring.by_name`).
    precision : str
        What the module computes in: ``fp32``, or ``bf16`` for one that `System.settle` left in it.
    """

    name: str
    module: "nn.Module"
    inputs: "dict[str, Tensor]"
    outputs: list[str]
    bindings: PortBindings = field(default_factory=PortBindings)
    precision: str = "fp32"


@dataclass(frozen=True)
class Written:
    """A stage whose graph the system writes itself. `bindings` are as for `Traced`."""

    name: str
    model: "ModelProto"
    bindings: PortBindings = field(default_factory=PortBindings)


Stage = Traced | Written


@dataclass(frozen=True)
class Attention:
    """What an encoder of patches of voxels attends to.

    Attributes
    ----------
    shares : (3, window, patch)
        Of the first, the middle and the last block. They add up to 1 over patches.
    voxels : int64, (patch, value)
        The voxels of each patch, by their places among those that the system reads.
    phases : mapping
        Name of a phase of the training -> what it left behind, (3, patch), on windows that taught.
    """

    shares: NDArray[np.float32]
    voxels: NDArray[np.int64]
    phases: Mapping[str, NDArray[np.floating]]


@runtime_checkable
class Attends(Protocol):
    """A system that may say what its encoder attends to.

    Attributes
    ----------
    attends : bool
        Whether its encoder is one of patches of voxels, which `attention` can look into.
    """

    attends: bool

    def attention(self, inputs: Arrays) -> Attention:
        """Say it of windows, port -> a row for each."""
        ...


@dataclass(frozen=True)
class Categories:
    """Categories that a system names, of which several may hold at once.

    Attributes
    ----------
    names : tuple of str
        In the order of the axis `category`.
    training_share : (category,)
        Share of the training windows that showed each.
    """

    names: tuple[str, ...]
    training_share: NDArray[np.float64]


@runtime_checkable
class NamesCategories(Protocol):
    """A system that may say which categories windows show.

    Attributes
    ----------
    categories : Categories or None
        None of a run that kept no names.
    """

    @property
    def categories(self) -> Categories | None:
        """What it names."""
        ...

    def category_probabilities(self, inputs: Arrays) -> NDArray[np.floating]:
        """Return how likely each category is in windows, port -> a row for each: (window, category)."""
        ...

    def shown_categories(self, clips: Sequence[Pixels], event_words: Sequence[str]) -> NDArray[np.floating]:
        """Say which categories are shown: (window, category), 1 where it is.

        Parameters
        ----------
        clips : sequence of uint8 (frame, row, column, 3)
            What each window shows.
        event_words : sequence of str
            The words that an events file has for each.
        """
        ...


class System(ABC):
    """A trained decoder.

    Attributes
    ----------
    latent_shape : tuple of int
        (channel, latent frame, row, column).
    carried : int
        Number of latent frames that it reads from the end of the clip before, at the ports ``carry`` and
        ``carry_mask``; 0 for none.
    denoises : bool
        Whether it samples from noise. A system that does not decodes in closed form.
    detail : float or None
        Share, from 0 to 1, that its graphs keep by default of what is drawn beyond what the brain told, for a
        system whose stage ``denoise`` has a port ``detail``; None for others.
    refused : mapping
        Precision that its graphs cannot be exported in -> why, in a sentence.
    recorded : sequence of str
        Outputs of its stages ``front`` and ``encode``, ``STAGE.PORT``, that the record of a clip repeats.
    own_stages : sequence of str
        The stages that each participant of a run has of its own, of `rtdecode.bundle.manifest.OWN_STAGES`.
    scopes : mapping
        State that its stages write -> how long it lives, ``chunk`` or ``window``; ``window`` for states that
        are not named.
    sampler : str
        What draws its clips, ``bundled`` where a bundle does so as well.
    """

    latent_shape: tuple[int, int, int, int]
    carried: int = 0
    denoises: bool = False
    detail: float | None = None
    # Read-only, because all systems that do not set them share these mappings.
    refused: Mapping[str, str] = MappingProxyType({})
    recorded: Sequence[str] = ()
    own_stages: Sequence[str] = OWN_STAGES
    scopes: Mapping[str, str] = MappingProxyType({})
    sampler: str = "bundled"

    @abstractmethod
    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the inputs that it reads under a manifest."""

    @abstractmethod
    def condition(self, inputs: Arrays) -> Condition:
        """Turn the inputs of some windows, port -> one row for each window, into a condition."""

    def negative(self, condition: Condition) -> Condition | None:
        """Return the condition that guidance leads away from, such as null tokens; None without guidance."""
        return None

    @abstractmethod
    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        """Sample latents (window, channel, latent frame, row, column) from noise of that shape."""

    @abstractmethod
    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        """Draw latents as frames, (window, frame, row, column, 3) in [0, 1]."""

    def settle(self, precision: str) -> None:  # noqa: B027 - most systems have one precision
        """Go to the precision of weights from which an export in `precision` is made, before `stages`.

        From here on the system is for that export alone, and may let go of what it does not need.
        """

    @contextmanager
    def at_speed(self) -> Iterator[None]:
        """Compute on the GPU that the system was made on, if any; the modules of `stages` lie on the CPU."""
        yield

    @abstractmethod
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the stages that an export writes."""

    @abstractmethod
    def weights(self) -> Arrays:
        """Return the arrays from which `Plan.restore` makes this system again."""

    def levels(self, steps: int) -> list[float]:
        """Return the noise level before each of `steps` steps.

        None for a system that does not denoise, or whose denoiser has the schedule inside and takes any
        number of steps.
        """
        return []

    def memories(self) -> dict[str, Table]:
        """Return the memories whose rows it looks up, by name.

        A run and a bundle keep each memory in a file of its own, apart from `weights`. `Plan.restore` gets
        it together with the weights, as ``memory.NAME``.
        """
        return {}

    def targets(self, clips: Iterable[Pixels]) -> NDArray[np.floating] | None:
        """Return what `Condition.pooled` was trained to be where clips are watched.

        Parameters
        ----------
        clips : iterable of uint8 (frame, row, column, 3)
            Of each window, such as an array of them. They may lie in files, so a few are read at a time.

        Returns
        -------
        (window, width) or None
            None for a system whose pooled condition aims at no vector of its own.
        """
        return None

    def teacher(self) -> "System | None":
        """Return the system that this one was distilled from; None for one that was not distilled."""
        return None

    def without_adapters(self) -> "System | None":
        """Return this system with its generator as it was before adapters; None where it has none."""
        return None

    def of_subject(self, name: str) -> "System":
        """Return this system for the signals of another participant that it was trained on.

        `Trained.subjects` lists these participants. Export writes the stages ``encode`` and ``front`` of
        what is returned as that subject's own; all other stages are shared.

        Raises
        ------
        UsageError
            If it was not trained on a participant of this name.
        """
        raise UsageError(
            "run-unknown-subject",
            "the run has no subject '{subject}', only the default one. Leave subject= out.",
            subject=name,
        )


class ClosedForm(System):
    """A system in closed form: its condition is the finished latents.

    A subclass adds `condition` and `frames`, and writes its graphs from the weights.

    Parameters
    ----------
    weights : dict
        Name -> array; the graphs are written from them.
    """

    def __init__(self, weights: Arrays) -> None:
        self._weights = weights

    @abstractmethod
    def graphs(self, manifest: Manifest) -> "dict[str, ModelProto]":
        """Write the graph of each stage."""

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the signals that the manifest has, and their masks."""
        return signal_ports(manifest)

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        """Return the latents that the condition starts from: there is nothing to denoise."""
        return condition.start

    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the written graphs as stages."""
        return [Written(name, model) for name, model in self.graphs(manifest).items()]

    def weights(self) -> Arrays:
        """Return the weights as they were given."""
        return self._weights


@dataclass(frozen=True)
class OfSubject:
    """The part of a trained plan's result that belongs to one participant.

    Attributes
    ----------
    manifest : Manifest
        The bundle's manifest, without the files, stages and parity that export adds.
    stats : dict
        Arrays of the bundle's ``stats.npz``.
    projection : Projection or None
        What reads features out of a volume; None where the bundle has none.
    golden : dict
        Inputs of a few windows, from which export computes the latents and clip that the bundle must give.
    """

    manifest: Manifest
    stats: Arrays
    projection: Projection | None
    golden: Arrays

    @property
    def bundle(self) -> Bundle:
        """A bundle in memory, with as much as the causal chain needs."""
        return draft_bundle(self.manifest, self.stats, self.projection)


@dataclass(frozen=True)
class Trained(OfSubject):
    """The result of a plan's training: a system, and what belongs to the default participant.

    Attributes
    ----------
    system : System
        The trained system.
    tables : dict
        JSON values, such as choices made in training, and curves.
    pictures : dict
        File name -> picture.
    subjects : dict
        Name -> what belongs to another participant.
    """

    system: System
    tables: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    subjects: dict[str, OfSubject] = field(default_factory=dict)

    def of_subject(self, name: str) -> "Trained":
        """Return the same with another participant as the default one, and nobody beside it."""
        other = self.subjects[name]
        return Trained(
            manifest=other.manifest,
            stats=other.stats,
            projection=other.projection,
            golden=other.golden,
            system=self.system.of_subject(name),
        )


@dataclass(frozen=True)
class Fitted:
    """The result of a plan that predicts numbers of what was watched and draws no clips.

    No bundle can be made of it, so it has neither a system nor a manifest. Its judge reads the weights.

    Attributes
    ----------
    weights : dict
        Name -> array, all that was fitted.
    provenance : dict
        JSON values that a manifest's provenance would hold.
    tables : dict
        JSON values, as for `Trained`.
    """

    weights: Arrays
    provenance: dict[str, Any]
    tables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LargeWeights:
    """How many numbers the published weights of a system are.

    Attributes
    ----------
    denoiser : int
        Those of the video model.
    decoder : int
        Those of what draws latents.
    bfloat16 : bool
        Whether the video model is kept in bfloat16.
    """

    denoiser: int
    decoder: int
    bfloat16: bool


@runtime_checkable
class Plan(Protocol):
    """How a system is made. The builder of a recipe's `system` node returns one.

    What some plans can do and others cannot is said in `train.artifacts.slots`: learn any film, learn from
    several simulated participants, distil a finished run, draw clips of some lengths and sizes alone.
    """

    def train(self, work: RunContext, data: Any, phases: dict[str, Any]) -> Trained:
        """Train on what the recipe's `data` node built, in the phases that the recipe lists."""
        ...

    def restore(self, weights: Arrays) -> System:
        """Make the system again from the weights of a run, and its memories (`System.memories`)."""
        ...


def of_another(name: str, weights: Arrays) -> Arrays:
    """Name what belongs to a participant other than the default one, as weights of a run."""
    return {_before(name) + key: value for key, value in weights.items()}


def of_default(weights: Arrays) -> Arrays:
    """Return the weights of a run without those that belong to other participants."""
    return {name: value for name, value in weights.items() if not name.startswith(_SUBJECTS)}


def belonging_to(name: str, weights: Arrays) -> Arrays:
    """Return what belongs to another participant among the weights of a run, see `of_another`.

    Raises
    ------
    UsageError
        If there is none of this name.
    """
    before = _before(name)
    belongings = {key.removeprefix(before): value for key, value in weights.items() if key.startswith(before)}
    if not belongings:
        names = {key.split(".")[1] for key in weights if key.startswith(_SUBJECTS)}
        raise UsageError(
            "run-unknown-subject",
            "the run has no subject '{subject}' but for the default one; there are {available}.",
            subject=name,
            available=sorted(names),
        )
    return belongings


def _before(name: str) -> str:
    return f"{_SUBJECTS}{name}."


@runtime_checkable
class FeaturePlan(Protocol):
    """How numbers of what was watched are predicted; no clips are drawn (``target=features``)."""

    def fit(self, work: RunContext, data: Any) -> Fitted:
        """Fit what the recipe's `data` node built."""
        ...


def signal_ports(manifest: Manifest) -> tuple[Port, ...]:
    """Return ports for the signals that a manifest reads, and for their masks."""
    grid = manifest.grid
    ports: list[Port] = []
    if manifest.eeg is not None:
        channels = len(manifest.eeg.channels)
        ports.append(Port("eeg", "eeg", (channels, grid.samples)))
        ports.append(Port("eeg_mask", "eeg_mask", (grid.samples,)))
    if manifest.fmri is not None:
        ports.append(Port("fmri", "fmri", (grid.slots, manifest.fmri.voxels)))
        ports.append(Port("fmri_mask", "fmri_mask", (grid.slots,)))
    return tuple(ports)


def batched(ports: Sequence[Port]) -> dict[str, list[int]]:
    """Return the shapes of ports, name -> shape with a batch axis of 1."""
    return {port.name: [1, *port.shape] for port in ports}
