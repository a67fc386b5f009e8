"""The trained video model as a `train.interface.system.System`, in torch. Its exported graphs must equal it.

Windows of signals become a condition (`CompactEncoder`), noise becomes latents under that condition in a few
steps (`Denoiser`), and latents become frames (`ClipDecoder`). `pack` puts the weights of all three into the
arrays that a run stores, and `unpack` makes the modules from these arrays again. A distilled model also
stores what its student learned beside the teacher (`student`), and draws with the student.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode import strict_json
from rtdecode.bundle import Manifest
from train.closed_form.refine import PREFIX
from train.config.run_context import Arrays
from train.distillation.student_weights import of_teacher, packed, put_on
from train.interface.system import (
    Condition,
    Port,
    Stage,
    System,
    Traced,
    belonging_to,
    of_another,
    of_default,
    signal_ports,
)
from train.models.compact.encoder import CARRIED, LEARNED, CompactEncoder
from train.models.compact.flow import Denoiser, VideoFlow, clock
from train.models.compact.student import Student, student_of
from train.models.compact.trainable import Trainables
from train.parts.codecs.fitted_patch import decoder_of, decoder_stages
from train.parts.codecs.patch import ClipDecoder, making_up
from train.trainer.adapters import Adapter


class Compact(System):
    """A brain encoder that draws a map, and a video flow that is conditioned on it.

    Parameters
    ----------
    weights : dict
        The arrays that `pack` makes, and those of other participants (`pack_another`).
    """

    carried = CARRIED
    denoises = True

    def __init__(self, weights: Arrays) -> None:
        self._weights = weights
        self._model = unpack(weights)
        channels, frames, rows, columns = self._model.encoder.shape
        self.latent_shape = (channels, frames, rows, columns)
        self.detail = self._model.denoiser.detail

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        """List the signals, and the end of the clip before with its mask."""
        channels, _, rows, columns = self.latent_shape
        carry = Port("carry", "state", (channels, CARRIED, rows, columns))
        return (*signal_ports(manifest), carry, Port("carry_mask", "state", (1,)))

    @torch.no_grad()
    def condition(self, inputs: Arrays) -> Condition:
        """Encode windows into a map that is laid beside the latents, and a pooled vector."""
        names = ("eeg", "eeg_mask", "fmri", "fmri_mask", "carry", "carry_mask")
        tensors = [torch.from_numpy(np.asarray(inputs[name], np.float32)) for name in names]
        condition, pooled, confidence, brain, *by = self._model.encoder(*tensors)
        return Condition(
            map=condition, pooled=pooled, confidence=confidence, brain=brain, brain_by=by[0] if by else None
        )

    def negative(self, condition: Condition) -> Condition:
        """Return null tokens, which say that there is no brain, and an empty map."""
        null = self._model.encoder.null.detach().expand_as(condition.pooled)
        return Condition(map=torch.zeros_like(condition.map), pooled=null)

    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """Take all steps from noise to latents. The denoiser applies guidance itself."""
        start = torch.from_numpy(np.ascontiguousarray(noise))
        return sample(self._model.denoiser, start, condition.map, condition.pooled, steps).numpy()

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Decode scaled latents to frames."""
        return self._model.decoder(torch.from_numpy(latents.astype(np.float32))).numpy()

    def weights(self) -> Arrays:
        """Return the weights as they were given."""
        return self._weights

    def of_subject(self, name: str) -> "Compact":
        """Return the encoder of another participant before the same flow; see `System.of_subject`."""
        return Compact(of_default(self._weights) | belonging_to(name, self._weights))

    def teacher(self) -> "Compact | None":
        """Return the model that this one was distilled from; None for one that was not distilled."""
        arrays = of_teacher(self._weights)
        return None if arrays is None else Compact(arrays)

    @torch.no_grad()
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        """List the encoder, one denoising step, and the two ways to decode a latent frame."""
        # The examples are only traced: their shapes matter, their values do not.
        model = self._model
        signals = {port.name: torch.randn(1, *port.shape) for port in self.ports(manifest)}
        for name in ("eeg_mask", "fmri_mask", "carry_mask"):
            signals[name] = torch.ones_like(signals[name])
        condition, pooled, *probabilities = model.encoder(*signals.values())
        names = ("condition", "embedding", "confidence", "brain", "brain_by")[: len(probabilities) + 2]
        step = {
            "latent": torch.randn(1, *self.latent_shape),
            "condition": condition,
            "embedding": pooled,
            "t": torch.ones(1),
            "r": 0.75 * torch.ones(1),
            "detail": model.denoiser.detail * torch.ones(1),
        }
        return [
            Traced("encode", model.encoder, signals, list(names)),
            Traced("denoise", model.denoiser, step, ["next"]),
            *decoder_stages(model.decoder, self.latent_shape),
        ]


@dataclass(frozen=True)
class CompactModel:
    """The modules of a trained model.

    Attributes
    ----------
    encoder : CompactEncoder
        Turns signals into the condition; ``encode.onnx``.
    denoiser : Denoiser
        One step of the sampler; ``denoise.onnx``.
    decoder : ClipDecoder
        Decodes scaled latents.
    """

    encoder: CompactEncoder
    denoiser: Denoiser
    decoder: ClipDecoder


def pack(system: Trainables, codec: Arrays, shift: float, settings: Mapping[str, float]) -> Arrays:
    """Collect the weights of a trained system; those that were learned are kept in half precision.

    So are fitted arrays that lose nothing by it. `settings` are the tuned ones of the sampler.
    """
    arrays = _pack_encoder(system.encoder)
    for name, value in system.flow.state_dict().items():
        arrays[f"flow.{name}"] = value.numpy() if name in _BUFFERS else value.half().numpy()
    config = {
        "flow": system.flow.config,
        "shift": shift,
        **settings,
        "latent_shape": system.encoder.shape,
    }
    decoder = {name: value for name, value in codec.items() if name.startswith("decoder.")}
    return arrays | decoder | {"config": np.array(strict_json.dumps(config))}


def pack_another(name: str, encoder: CompactEncoder, weights: Arrays) -> Arrays:
    """Collect what the encoder of another participant does not share with the default one's.

    Parameters
    ----------
    name : str
        Name of the other participant.
    encoder : CompactEncoder
        With the learned parts that are shared.
    weights : dict
        As `pack` made them.
    """
    packed_encoder = _pack_encoder(encoder)
    differing = {key: x for key, x in packed_encoder.items() if not np.array_equal(x, weights[key])}
    return of_another(name, differing)


def _pack_encoder(encoder: CompactEncoder) -> Arrays:
    arrays: Arrays = {}
    for name, value in encoder.state_dict().items():
        learned = name.split(".")[0] in LEARNED or name.startswith(f"{PREFIX}body.")
        exact = bool((value.half().float() == value).all())
        arrays[f"encoder.{name}"] = value.half().numpy() if learned or exact else value.numpy()
    return arrays


# The parts of the flow that are not learned.
_BUFFERS = ("place", "deviation", "frequencies")


def student(system: Student, attached: Mapping[str, Adapter]) -> Arrays:
    """Collect what a student learned beside its teacher, see `train.distillation.student_weights.packed`."""
    before = system.teacher.flow.state_dict()
    learned: dict[str, Tensor] = {}
    for name, value in system.student.flow.state_dict().items():
        # PEFT calls a layer under an adapter its base layer.
        original = before.get(name.replace(".base_layer", ""))
        if original is None or not torch.equal(original, value):
            learned[name] = value
    return packed(learned, attached)


def unpack(weights: Arrays) -> CompactModel:
    """Make the modules from a run's weights, which `pack` made, for the default participant."""
    config = json.loads(str(weights["config"]))
    parts: dict[str, dict[str, Any]] = {"encoder": {}, "flow": {}, "decoder": {}, "student": {}}
    for name, value in of_default(weights).items():
        part, dot, parameter = name.partition(".")
        if dot:
            parts[part][parameter] = value
    # The encoder is made from its fitted arrays. Learned weights are loaded into it afterwards.
    closed = {k: v for k, v in parts["encoder"].items() if k.split(".")[0] not in LEARNED}
    encoder = CompactEncoder(
        closed | {"latent_shape": np.array(config["latent_shape"])},
        len(parts["encoder"]["null_eeg"]),
    )
    flow = VideoFlow(**config["flow"])
    for module, state in ((encoder, parts["encoder"]), (flow, parts["flow"])):
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        module.eval()
    decoder = decoder_of(weights)
    denoiser = Denoiser(
        flow,
        config["shift"],
        config["guidance"],
        config["calm"],
        encoder.null,
        making_up(decoder),
        config["detail"],
    ).eval()
    if parts["student"]:
        denoiser = distilled(denoiser, parts["student"])
    return CompactModel(encoder, denoiser, decoder)


def distilled(teacher: Denoiser, arrays: Arrays) -> Denoiser:
    """Make the student of a teacher, its adapters merged."""
    denoiser = student_of(teacher)
    put_on(denoiser.flow, arrays)
    return denoiser.eval()


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    start: Tensor,
    condition: Tensor,
    embedding: Tensor,
    steps: int,
    detail: float | None = None,
) -> Tensor:
    """Take all steps of the sampler, from noise to clean latents; `detail` is another share than its own."""
    latent = start
    share = None if detail is None else torch.tensor([detail])
    for t, r in pairwise(clock(steps)):
        latent = denoiser(latent, condition, embedding, torch.tensor([t]), torch.tensor([r]), share)
    return latent
