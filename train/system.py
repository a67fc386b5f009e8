"""The seam: all that judging, export, parity and evaluation know of what decodes.

A recipe's `system` node builds a `Plan`. It trains, and it restores what was trained from a run's weights;
either way it hands over a `System`. A system says which ports it reads, makes a named condition of them,
samples latents under it, draws them, and lists the stages that an export writes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle, Manifest
from rtdecode.bundle.wiring import Said
from rtdecode.errors import UsageError
from rtdecode.signal.volume.projection import Projection
from train.data.chain import draft_bundle
from train.work import Arrays, Work

if TYPE_CHECKING:
    # Closed forms do without torch, and training them without onnx.
    from onnx import ModelProto
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a system.

    Attributes
    ----------
    name : str
    source : str
        What the runtime puts there: ``eeg``, ``eeg_mask``, ``fmri``, ``fmri_mask`` or ``state``.
    shape : tuple of int
        Of one window, without the batch axis.
    """

    name: str
    source: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Condition:
    """What the signals of some windows say, by name. Every part is optional.

    The parts are arrays or tensors, as the system wants them; the first axis is the window's.

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
        Noise level at which sampling starts from them, a number or (window, 1). A closed-form decoder takes
        them as they are, at 0.
    memory
        (window, item, width), the rows of a memory that were looked up.
    scores
        Probabilities of named categories, (window, label).
    confidence
        From 0 to 1, (window, 1).
    """

    tokens: Any = None
    pooled: Any = None
    map: Any = None
    start: Any = None
    start_level: Any = 1.0
    memory: Any = None
    scores: Any = None
    confidence: Any = None


@dataclass(frozen=True)
class Table:
    """A memory: rows to be looked up, kept in a file of their own.

    Attributes
    ----------
    values : (row, value)
        They may be mapped from a file, and larger than the working memory.
    dtype : str
        Of the values, as `rtdecode.bundle.Memory` has it.
    """

    values: NDArray[Any]
    dtype: str


@dataclass(frozen=True)
class Traced:
    """A stage that export traces from a torch module.

    Attributes
    ----------
    name : str
        Of the stage.
    module : torch.nn.Module
    inputs : dict
        Port -> an example of the right shape, in the order of the module's arguments.
    outputs : list of str
        Ports, in the order of what the module returns.
    said : Said
        Where ports get their values and where they go, for those whose names do not say it
        (`rtdecode.bundle.wiring.by_name`).
    """

    name: str
    module: "nn.Module"
    inputs: "dict[str, Tensor]"
    outputs: list[str]
    said: Said = field(default_factory=Said)


@dataclass(frozen=True)
class Written:
    """A stage whose graph the system writes itself; `said` as for `Traced`."""

    name: str
    model: "ModelProto"
    said: Said = field(default_factory=Said)


Stage = Traced | Written


class System(ABC):
    """A decoder that was trained.

    Attributes
    ----------
    latent_shape : tuple of int
        (channel, latent frame, row, column).
    carried : int
        Latent frames of the clip before that it reads, at the ports ``carry`` and ``carry_mask``; 0 for none.
    denoises : bool
        Whether it samples from noise; one that does not decodes in closed form.
    scopes : mapping
        State that its stages write -> ``chunk`` or ``window``; ``window`` for those not named.
    """

    latent_shape: tuple[int, int, int, int]
    carried: int = 0
    denoises: bool = False
    scopes: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List what it reads."""

    @abstractmethod
    def condition(self, inputs: Arrays) -> Condition:
        """Read windows, one row each, by port."""

    def negative(self, condition: Condition) -> Condition | None:
        """Name what guidance leads away from: null tokens or a fixed condition; None without guidance."""
        return None

    @abstractmethod
    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        """Sample latents (window, channel, latent frame, row, column) from noise of that shape."""

    @abstractmethod
    def frames(self, latents: NDArray[Any]) -> NDArray[Any]:
        """Draw latents: (window, frame, row, column, 3) in [0, 1]."""

    @abstractmethod
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the stages that an export writes."""

    @abstractmethod
    def weights(self) -> Arrays:
        """Collect the arrays that `Plan.restore` takes."""

    def levels(self, steps: int) -> list[float]:
        """Noise levels before each of `steps` steps; none for a system that does not denoise."""
        return []

    def memories(self) -> dict[str, Table]:
        """Name the memories whose rows it looks up; a run and a bundle keep them in files of their own.

        They are no part of `weights`: `Plan.restore` gets them beside those, as ``memory.NAME``.
        """
        return {}

    def of_subject(self, name: str) -> "System":
        """Read the signals of another participant that it was trained on, see `Trained.subjects`.

        Its stages ``encode`` and ``front`` are exported as that subject's; all others are shared.

        Raises
        ------
        UsageError
            If it was not trained on a participant of this name.
        """
        raise UsageError(f"there is no subject '{name}': the run has the default one alone. Leave it out.")


class ClosedForm(System):
    """A system whose condition is the finished latents, and whose graphs are written from its weights.

    Parameters
    ----------
    weights : dict
    """

    def __init__(self, weights: Arrays) -> None:
        self._weights = weights

    @abstractmethod
    def graphs(self, manifest: Manifest) -> "dict[str, ModelProto]":
        """Write the graph of each stage."""

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the signals."""
        return signal_ports(manifest)

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[Any]:
        """Return the latents that the condition starts from: there is nothing to denoise."""
        return condition.start

    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the graphs that were written."""
        return [Written(name, model) for name, model in self.graphs(manifest).items()]

    def weights(self) -> Arrays:
        """Return the weights as they were given."""
        return self._weights


@dataclass(frozen=True)
class OfSubject:
    """What a plan hands over that belongs to one participant.

    Attributes
    ----------
    manifest : Manifest
        All that the bundle will say, but for the files, stages and parity that export adds.
    stats : dict
        Arrays of the bundle's ``stats.npz``.
    projection : Projection or None
    golden : dict
        Windows that the bundle is held to, without their clips.
    """

    manifest: Manifest
    stats: Arrays
    projection: Projection | None
    golden: Arrays

    @property
    def bundle(self) -> Bundle:
        """What the causal chain needs of a bundle, in memory."""
        return draft_bundle(self.manifest, self.stats, self.projection)


@dataclass(frozen=True)
class Trained(OfSubject):
    """What a plan hands over when it has trained: a system, and what belongs to the default participant.

    Attributes
    ----------
    system : System
    tables : dict
        JSON values: choices made in training, curves.
    pictures : dict
        File name -> picture.
    subjects : dict
        Name -> what belongs to another participant.
    """

    system: System
    tables: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    subjects: dict[str, OfSubject] = field(default_factory=dict)


class Plan(Protocol):
    """How a system is made: what the builder of a recipe's `system` node returns."""

    def train(self, work: Work, data: Any, phases: dict[str, Any]) -> Trained:
        """Train on what the recipe's `data` node gave, in the phases that it lists."""
        ...

    def restore(self, weights: Arrays) -> System:
        """Take up the weights of a run that such a plan has trained, and its memories (`System.memories`)."""
        ...


def signal_ports(manifest: Manifest) -> tuple[Port, ...]:
    """Ports of the signals that a manifest reads, and of their masks."""
    grid = manifest.grid
    found: list[Port] = []
    if manifest.eeg is not None:
        channels = len(manifest.eeg.channels)
        found.append(Port("eeg", "eeg", (channels, grid.samples)))
        found.append(Port("eeg_mask", "eeg_mask", (grid.samples,)))
    if manifest.fmri is not None:
        found.append(Port("fmri", "fmri", (grid.slots, manifest.fmri.voxels)))
        found.append(Port("fmri_mask", "fmri_mask", (grid.slots,)))
    return tuple(found)


def batched(ports: Sequence[Port]) -> dict[str, list[int]]:
    """Shapes of ports by name, with a batch axis of 1."""
    return {port.name: [1, *port.shape] for port in ports}
