"""A system of its own, which plugs in at the seam: what `docs/own-system.md` points at as the example.

It is told tokens, a pooled vector and rows of a memory, starts from a guess with a noise level of its own,
denoises in chunks of latent frames that remember each other, and draws with a codec of two caches. Two
participants of different voxel counts have each a stem, and share the rest. Batches, losses and the turns of
the codec are those that published systems share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.bundle import Bundle, Manifest
from rtdecode.bundle.wiring import PortBindings, Source
from rtdecode.errors import UsageError
from tests.seam_parts import (
    CHUNK_FRAMES,
    FEATURES,
    LATENT,
    POOLED,
    WIDTH,
    WORDS,
    Codec,
    Encode,
    Generator,
    Head,
    Keep,
    Parts,
    Stem,
    Step,
)
from tests.seam_scans import COLUMNS, PARTICIPANTS, ROWS, Scans
from tests.streaming.bundles import CHANNELS
from train.config.builders import register
from train.config.run_context import Arrays, RunContext
from train.data.arrays import golden
from train.evaluation.identification import judge_clips
from train.evaluation.result import Decode, Evaluation, Request
from train.interface.system import (
    Condition,
    OfSubject,
    Port,
    Stage,
    System,
    Table,
    Traced,
    Trained,
    signal_ports,
)
from train.models.conditioned import batches
from train.models.conditioned.batches import PORTS, Dropout, Windows
from train.models.conditioned.small import losses_of
from train.parts.codecs import video_decoder
from train.parts.generators.base import wide
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Machine
from train.trainer.phases import Phase

TEACHING = 7
JUDGING = 1000
# Of the session that is judged: 22 windows, decoded one after the other. Below twenty they have no interval.
_JUDGED_S = 44.0
STEPS = 3
_NO_DROPOUT = Dropout(words=0, modalities=[1, 0, 0, 0])
_PAST = Source("state", state="past")


class SeamSystem(System):
    """The trained system, which reads one of its participants.

    Parameters
    ----------
    parts : Parts
    codec : Codec
    table : (row, value) float16
        The memory.
    guidance : float
    name : str
        The participant whose signals are read.
    """

    latent_shape = LATENT
    carried = 1
    denoises = True

    def __init__(
        self,
        parts: Parts,
        codec: Codec,
        table: NDArray[np.float16],
        guidance: float,
        name: str = "one",
    ) -> None:
        self.parts = parts.eval()
        self.codec = codec
        self.table = table
        self.guidance = guidance
        self.number, _ = PARTICIPANTS[name]
        self.encode = Encode(parts.stems[name], parts.head).eval()
        self.step = Step(parts.generator, self._nobody(), guidance).eval()
        self.keep = Keep()

    def of_subject(self, name: str) -> "SeamSystem":
        return SeamSystem(self.parts, self.codec, self.table, self.guidance, name)

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        channels, _, rows, columns = LATENT
        carry = Port("carry", "state", (channels, 1, rows, columns))
        return (*signal_ports(manifest), carry, Port("carry_mask", "state", (1,)))

    @torch.no_grad()
    def condition(self, inputs: Arrays) -> Condition:
        tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in inputs.items()}
        read = [tensors[name] for name in (*PORTS, "carry", "carry_mask")]
        tokens, pooled, rows, start, level = self.encode(*read, torch.tensor([self.number]))
        words = self._look_up(rows)
        return Condition(tokens=tokens, pooled=pooled, memory=words, start=start, start_level=level)

    def negative(self, condition: Condition) -> Condition:
        """What is said of nobody."""
        nobody = self.step.nobody(len(condition.tokens))
        return Condition(tokens=nobody["tokens"], pooled=nobody["pooled"], memory=nobody["words"])

    @torch.no_grad()
    def _nobody(self) -> dict[str, Tensor]:
        """What all participants are guided away from: what the head says without a signal and a number."""
        nothing = torch.zeros(1, LATENT[0], 1, *LATENT[2:])
        head = self.parts.head
        tokens, pooled, rows, _, _ = head(
            torch.zeros(1, FEATURES), torch.tensor([0]), nothing, torch.zeros(1, 1)
        )
        return {"tokens": tokens, "pooled": pooled, "words": self._look_up(rows)}

    def _look_up(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.table[rows.numpy()].astype(np.float32))

    @torch.no_grad()
    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """Denoise chunk by chunk; the step is guided away from its negative itself."""
        tokens = condition.tokens
        pooled = condition.pooled
        words = condition.memory
        level = condition.start_level
        share = wide(level)
        noisy = (1 - share) * condition.start + share * torch.from_numpy(noise)
        past = torch.zeros_like(noisy[:, :, :1])
        chunks = []
        for latent in noisy.split(CHUNK_FRAMES, 2):
            for now, after in pairwise([*self.levels(steps), 0.0]):
                t = now * level[:, 0]
                r = after * level[:, 0]
                latent = self.step(latent, past, tokens, pooled, words, t, r)
            past = self.keep(latent, past)
            chunks.append(latent)
        return torch.cat(chunks, 2).numpy()

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        pictures = self.codec(torch.from_numpy(latents.astype(np.float32)))
        return video_decoder.frames(pictures, (ROWS, COLUMNS)).numpy()

    def levels(self, steps: int) -> list[float]:
        return [1 - step / steps for step in range(steps)]

    def memories(self) -> dict[str, Table]:
        return {"words": Table(self.table, "float16")}

    def weights(self) -> Arrays:
        return {name: value.numpy() for name, value in self.parts.state_dict().items()}

    @torch.no_grad()
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        read = {port.name: torch.zeros(1, *port.shape) for port in self.ports(manifest)}
        encoded = {**read, "subject": torch.tensor([self.number])}
        channels, _, rows, columns = LATENT
        chunk = torch.zeros(1, channels, CHUNK_FRAMES, rows, columns)
        frame = chunk[:, :, :1]
        clock = {"t": torch.ones(1), "r": torch.zeros(1)}
        denoised = {"latent": chunk, "past": frame, **self.step.nobody(1), **clock}
        looked_up = Source("memory", memory="words", rows="encode.rows")
        return [
            Traced("encode", self.encode, encoded, ["tokens", "pooled", "rows", "start", "start_level"]),
            Traced(
                "denoise", self.step, denoised, ["next"], PortBindings({"past": _PAST, "words": looked_up})
            ),
            Traced(
                "remember",
                self.keep,
                {"latent": chunk, "past": frame},
                ["past_next"],
                PortBindings({"past": _PAST}, {"past_next": "past"}),
            ),
            *video_decoder.stages(self.codec, LATENT, (ROWS, COLUMNS)),
        ]


@dataclass(frozen=True)
class SeamEncoder:
    """How many volumes a window has; the slot ``encoder``."""

    slots: int


@dataclass(frozen=True)
class SeamGenerator:
    """The slot ``generator``."""

    layers: int
    guidance: float


@dataclass(frozen=True)
class SeamCodec:
    """The slot ``codec``."""

    blend: float


@dataclass(frozen=True)
class SeamPlan:
    """How the system is made."""

    encoder: SeamEncoder
    generator: SeamGenerator
    codec: SeamCodec
    machine: Machine

    def train(self, work: RunContext, data: Scans, phases: dict[str, Phase]) -> Trained:
        codec = Codec(self.codec.blend)
        table = np.random.default_rng(work.seed).standard_normal((WORDS, WIDTH)).astype(np.float16)
        taught = {name: _taught(work, data, name, codec) for name in PARTICIPANTS}
        parts = self._parts(work.seed)
        log = loop.train(
            parts,
            phases,
            partial(batch, taught, torch.from_numpy(table.astype(np.float32)), losses_of(phases)),
            work.stages / "training",
            _show_nothing,
            work.seed,
            self.machine,
        )
        system = SeamSystem(parts, codec, table, self.generator.guidance)
        by_subject = {name: self._of(system, data, name, taught[name]) for name in PARTICIPANTS}
        default = by_subject.pop("one")
        return Trained(
            system=system,
            manifest=default.manifest,
            stats=default.stats,
            projection=default.projection,
            golden=default.golden,
            tables={"loss": log},
            subjects=by_subject,
        )

    def restore(self, weights: Arrays) -> SeamSystem:
        learned = dict(weights)
        table = learned.pop("memory.words")
        parts = self._parts(0)
        parts.load_state_dict({name: torch.from_numpy(value) for name, value in learned.items()})
        return SeamSystem(parts, Codec(self.codec.blend), table, self.generator.guidance)

    def _parts(self, seed: int) -> Parts:
        torch.manual_seed(seed)
        keys = torch.randn(WORDS, POOLED)
        stems = {
            name: Stem(len(CHANNELS), self.encoder.slots, voxels)
            for name, (_, voxels) in PARTICIPANTS.items()
        }
        return Parts(stems, Head(keys), Generator(self.generator.layers))

    def _of(self, system: SeamSystem, data: Scans, name: str, taught: Windows) -> OfSubject:
        sigmas = {str(STEPS): system.levels(STEPS)}
        manifest = replace(data.manifest(name), steps=STEPS, sigmas=sigmas, fitter="seam-fitter")
        golden_windows = golden(taught.normalised(np.arange(len(taught.latents))))
        return OfSubject(manifest, data.stats(name), data.projection(name), golden_windows)


def _taught(work: RunContext, data: Scans, name: str, codec: Codec) -> Windows:
    """Windows of a participant and the latents of what it saw; a stage of the run. No loss reads captions."""

    def make() -> Arrays:
        clips = torch.from_numpy(data.clips(TEACHING)).float() / 255
        return data.inputs(name, TEACHING) | {"latents": codec.encode(clips).numpy()}

    arrays = work.stage(f"watched-{name}", make)
    latents = arrays["latents"]
    nothing = np.zeros((len(latents), 0), np.float32)
    words = np.zeros((len(latents), 0, 0), np.int64)
    return Windows(latents, words, nothing, nothing, {port: arrays[port] for port in PORTS}, None)


def batch(
    taught: dict[str, Windows], table: Tensor, losses: dict[str, list[str]], place: Place
) -> dict[str, Any]:
    """Windows of the participants in turn, noisy at a level of their own."""
    names = list(PARTICIPANTS)
    name = names[place.number % len(names)]
    number, _ = PARTICIPANTS[name]
    fields = batches.batch(taught[name], _NO_DROPOUT, losses, place)
    past = fields["latents"][:, :, :1] * float(place.number % 3 == 0)
    return {**fields, "past": past, "subject": torch.tensor([number]), "name": name, "table": table}


def _show_nothing(phase: str, step: int) -> None:
    """Draw no pictures."""


@dataclass(frozen=True)
class SeamJudge:
    """Clips against what was seen in a session that nothing was trained on."""

    reads: ClassVar[Sequence[str]] = ()

    def check(self, data: Scans) -> None:
        if data.count < 3:
            raise UsageError(
                "seam-too-few-windows",
                "three windows or more are judged, found {windows}: give more seconds.",
                windows=data.count,
            )

    def judge(
        self, work: RunContext, plan: SeamPlan, data: Scans, trained: Trained, show: Decode
    ) -> Evaluation:
        return self._judged(data, trained.bundle, show, "one")

    def evaluate(self, data: Scans, trained: Trained, show: Decode, request: Request) -> Evaluation:
        return self._judged(data, trained.bundle, show, request.subject or "one")

    def _judged(self, data: Scans, bundle: Bundle, show: Decode, name: str) -> Evaluation:
        data = replace(data, seconds=_JUDGED_S)
        inputs = data.inputs(name, JUDGING)
        truths = list(data.clips(JUDGING)[:, :-1])
        events = {JUDGING: data.events(JUDGING)}
        return Evaluation(judge_clips(show, bundle, inputs, truths, data.where(JUDGING), events))


for _name, _builder in {
    "seam-scans": Scans,
    "seam-system": SeamPlan,
    "seam-encoder": SeamEncoder,
    "seam-generator": SeamGenerator,
    "seam-codec": SeamCodec,
    "seam-judge": SeamJudge,
}.items():
    register(_name, _builder)
