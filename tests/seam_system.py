"""A system of its own, which plugs in at the seam: what `docs/training.md` points at as the example.

It is told tokens, a pooled vector and rows of a memory, starts from a guess with a noise level of its own,
denoises in chunks of latent frames that remember each other, and draws with a codec of two caches. Two
participants of different voxel counts have each a stem, and share the rest.
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
from rtdecode.bundle.wiring import Said, Source
from rtdecode.errors import UsageError
from tests.seam_parts import (
    CHUNK_FRAMES,
    LATENT,
    POOLED,
    WIDTH,
    WORDS,
    Codec,
    Encode,
    First,
    Generator,
    Head,
    Keep,
    Next,
    Parts,
    Stem,
    Step,
)
from tests.seam_scans import PARTICIPANTS, Scans
from tests.streaming.bundles import CHANNELS
from train import loop
from train.builders import register
from train.data.arrays import golden
from train.judging.identification import judge_clips
from train.judging.judged import Judged, Request, Show
from train.loader import Place
from train.loop import Machine
from train.phases import Phase
from train.system import (
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
from train.work import Arrays, Work

TEACHING = 7
JUDGING = 1000
STEPS = 3
_SIGNALS = ("eeg", "eeg_mask", "fmri", "fmri_mask")
_PAST = Source("state", state="past")


class SeamSystem(System):
    """The trained system, which reads one of its participants.

    Parameters
    ----------
    parts : Parts
    codec : Codec
    brain : dict
        Tokens, pooled vector and words of the mean brain, each with a leading 1.
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
        brain: dict[str, Tensor],
        table: NDArray[np.float16],
        guidance: float,
        name: str = "one",
    ) -> None:
        self._parts = parts.eval()
        self._codec = codec
        self._brain = brain
        self._table = table
        self._guidance = guidance
        self._number, _ = PARTICIPANTS[name]
        self._encode = Encode(parts.stems[name], parts.head).eval()
        self._step = Step(parts.generator, brain, guidance).eval()
        self._keep = Keep()

    def of_subject(self, name: str) -> "SeamSystem":
        if name not in PARTICIPANTS:
            raise UsageError(
                "seam-unknown-subject",
                "there is no subject '{subject}': there are {available}.",
                subject=name,
                available=list(PARTICIPANTS),
            )
        return SeamSystem(self._parts, self._codec, self._brain, self._table, self._guidance, name)

    def ports(self, manifest: Manifest) -> tuple[Port, ...]:
        channels, _, rows, columns = LATENT
        carry = Port("carry", "state", (channels, 1, rows, columns))
        return (*signal_ports(manifest), carry, Port("carry_mask", "state", (1,)))

    @torch.no_grad()
    def condition(self, inputs: Arrays) -> Condition:
        given = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in inputs.items()}
        tokens, pooled, rows, start, level = self._encode(
            given["eeg"],
            given["eeg_mask"],
            given["fmri"],
            given["fmri_mask"],
            torch.tensor([self._number]),
            given["carry"],
            given["carry_mask"],
        )
        words = torch.from_numpy(self._table[rows.numpy()].astype(np.float32))
        return Condition(tokens=tokens, pooled=pooled, memory=words, start=start, start_level=level)

    def negative(self, condition: Condition) -> Condition:
        """The mean brain."""
        brain = self._step.brain(len(condition.tokens))
        return Condition(tokens=brain["tokens"], pooled=brain["pooled"], memory=brain["words"])

    @torch.no_grad()
    def sample(self, condition: Condition, noise: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
        """Denoise chunk by chunk; the step is guided away from its negative itself."""
        tokens = condition.tokens
        pooled = condition.pooled
        words = condition.memory
        level = condition.start_level
        share = level[:, :, None, None, None]
        whole = (1 - share) * condition.start + share * torch.from_numpy(noise)
        past = torch.zeros_like(whole[:, :, :1])
        chunks = []
        for latent in whole.split(CHUNK_FRAMES, 2):
            for now, after in pairwise([*self.levels(steps), 0.0]):
                t = now * level[:, 0]
                r = after * level[:, 0]
                latent = self._step(latent, past, tokens, pooled, words, t, r)
            past = self._keep(latent, past)
            chunks.append(latent)
        return torch.cat(chunks, 2).numpy()

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        return self._codec(torch.from_numpy(latents.astype(np.float32))).numpy()

    def levels(self, steps: int) -> list[float]:
        return [1 - step / steps for step in range(steps)]

    def memories(self) -> dict[str, Table]:
        return {"words": Table(self._table, "float16")}

    def weights(self) -> Arrays:
        learned = {f"parts.{name}": value.numpy() for name, value in self._parts.state_dict().items()}
        return learned | {f"brain.{name}": value.numpy() for name, value in self._brain.items()}

    @torch.no_grad()
    def stages(self, manifest: Manifest) -> Sequence[Stage]:
        read = {port.name: torch.zeros(1, *port.shape) for port in self.ports(manifest)}
        carry = read.pop("carry")
        carry_mask = read.pop("carry_mask")
        encoded = {
            **read,
            "subject": torch.tensor([self._number]),
            "carry": carry,
            "carry_mask": carry_mask,
        }
        channels, _, rows, columns = LATENT
        chunk = torch.zeros(1, channels, CHUNK_FRAMES, rows, columns)
        frame = torch.zeros(1, channels, 1, rows, columns)
        brain = self._step.brain(1)
        denoised = {
            "latent": chunk,
            "past": frame,
            "tokens": brain["tokens"],
            "pooled": brain["pooled"],
            "words": brain["words"],
            "t": torch.ones(1),
            "r": torch.zeros(1),
        }
        looked_up = Source("memory", memory="words", rows="encode.rows")
        drawn = ["frames", "cache_last_made", "cache_mean_made"]
        return [
            Traced("encode", self._encode, encoded, ["tokens", "pooled", "rows", "start", "start_level"]),
            Traced("denoise", self._step, denoised, ["next"], Said({"past": _PAST, "words": looked_up})),
            Traced(
                "remember",
                self._keep,
                {"latent": chunk, "past": frame},
                ["past_next"],
                Said({"past": _PAST}, {"past_next": "past"}),
            ),
            Traced("decode_first", First(self._codec), {"latent": frame}, drawn),
            Traced(
                "decode_next",
                Next(self._codec),
                {"latent": frame, "cache_last": frame, "cache_mean": frame},
                drawn,
            ),
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

    def train(self, work: Work, data: Scans, phases: dict[str, Phase]) -> Trained:
        codec = Codec(self.codec.blend)
        table = np.random.default_rng(work.seed).standard_normal((WORDS, WIDTH)).astype(np.float16)
        taught = {name: _taught(work, data, name, codec) for name in PARTICIPANTS}
        parts = self._parts(work.seed)
        log = loop.train(
            parts,
            phases,
            partial(batch, taught, torch.from_numpy(table.astype(np.float32))),
            work.stages / "training",
            _show_nothing,
            work.seed,
            self.machine,
        )
        system = SeamSystem(parts, codec, _mean_brain(parts, taught, table), table, self.generator.guidance)
        found = {name: self._of(system, data, name, taught[name]) for name in PARTICIPANTS}
        own = found.pop("one")
        return Trained(
            system=system,
            manifest=own.manifest,
            stats=own.stats,
            projection=own.projection,
            golden=own.golden,
            tables={"loss": log},
            subjects=found,
        )

    def restore(self, weights: Arrays) -> SeamSystem:
        kept: dict[str, dict[str, Tensor]] = {"parts": {}, "brain": {}}
        table = weights["memory.words"]
        for name, value in weights.items():
            part, _, rest = name.partition(".")
            if part in kept:
                kept[part][rest] = torch.from_numpy(value)
        parts = self._parts(0)
        parts.load_state_dict(kept["parts"])
        codec = Codec(self.codec.blend)
        return SeamSystem(parts, codec, kept["brain"], table, self.generator.guidance)

    def _parts(self, seed: int) -> Parts:
        torch.manual_seed(seed)
        keys = torch.randn(WORDS, POOLED)
        stems = {
            name: Stem(len(CHANNELS), self.encoder.slots, voxels)
            for name, (_, voxels) in PARTICIPANTS.items()
        }
        return Parts(stems, Head(keys), Generator(self.generator.layers))

    def _of(self, system: SeamSystem, data: Scans, name: str, taught: Arrays) -> OfSubject:
        sigmas = {str(STEPS): system.levels(STEPS)}
        manifest = replace(data.manifest(name), steps=STEPS, sigmas=sigmas, fitter="seam-fitter")
        few = golden({name: taught[name] for name in _SIGNALS})
        return OfSubject(manifest, data.stats(name), data.projection(name), few)


def _taught(work: Work, data: Scans, name: str, codec: Codec) -> Arrays:
    """Windows of a participant and the latents of what it saw; a stage of the run."""

    def make() -> Arrays:
        clips = torch.from_numpy(data.clips(TEACHING)).float() / 255
        return data.inputs(name, TEACHING) | {"latents": codec.encode(clips).numpy()}

    return work.stage(f"watched-{name}", make)


def batch(taught: dict[str, Arrays], table: Tensor, place: Place) -> dict[str, Any]:
    """Windows of the participants in turn, noisy at a level of their own."""
    names = list(PARTICIPANTS)
    name = names[place.number % len(names)]
    arrays = taught[name]
    rows = place.rows(len(arrays["latents"]))
    number, _ = PARTICIPANTS[name]
    found: dict[str, Any] = {key: torch.from_numpy(value[rows]) for key, value in arrays.items()}
    channels, _, height, width = LATENT
    noise = [
        place.draws(n).standard_normal((channels, CHUNK_FRAMES, height, width)) for n in range(len(rows))
    ]
    level = [place.draws(n).uniform(0.05, 0.95) for n in range(len(rows))]
    found["noise"] = torch.from_numpy(np.stack(noise)).float()
    found["level"] = torch.tensor(level, dtype=torch.float32)
    found["past"] = found["latents"][:, :, :1] * float(place.number % 3 == 0)
    found["subject"] = torch.tensor([number])
    found["name"] = name
    found["table"] = table
    return found


@torch.no_grad()
def _mean_brain(parts: Parts, taught: dict[str, Arrays], table: NDArray[np.float16]) -> dict[str, Tensor]:
    """What is told of the mean window of both participants."""
    channels, _, height, width = LATENT
    nothing = torch.zeros(1, channels, 1, height, width)
    told: dict[str, list[Tensor]] = {"tokens": [], "pooled": [], "words": []}
    for name, (number, _) in PARTICIPANTS.items():
        mean = {port: torch.from_numpy(taught[name][port].mean(0, keepdims=True)) for port in _SIGNALS}
        encode = Encode(parts.stems[name], parts.head).eval()
        tokens, pooled, rows, _, _ = encode(
            mean["eeg"],
            mean["eeg_mask"],
            mean["fmri"],
            mean["fmri_mask"],
            torch.tensor([number]),
            nothing,
            torch.zeros(1, 1),
        )
        told["tokens"].append(tokens)
        told["pooled"].append(pooled)
        told["words"].append(torch.from_numpy(table[rows.numpy()].astype(np.float32)))
    return {name: torch.stack(values).mean(0) for name, values in told.items()}


def _show_nothing(phase: str, step: int) -> None:
    """Draw no pictures."""


@dataclass(frozen=True)
class SeamJudge:
    """Clips against what was seen in a session that nothing was trained on."""

    makes_published: ClassVar[bool] = False

    def check(self, data: Scans) -> None:
        if data.count < 3:
            raise UsageError(
                "seam-too-few-windows",
                "three windows or more are judged, found {windows}: give more seconds.",
                windows=data.count,
            )

    def judge(self, work: Work, plan: SeamPlan, data: Scans, trained: Trained, show: Show) -> Judged:
        return self._judged(data, trained.bundle, show, "one")

    def evaluate(self, data: Scans, trained: Trained, show: Show, request: Request) -> Judged:
        return self._judged(data, trained.bundle, show, request.subject or "one")

    def _judged(self, data: Scans, bundle: Bundle, show: Show, name: str) -> Judged:
        inputs = data.inputs(name, JUDGING)
        truths = list(data.clips(JUDGING)[:, :-1])
        known = {JUDGING: data.events(JUDGING)}
        return Judged(judge_clips(show, bundle, inputs, truths, data.where(JUDGING), known))


for _name, _builder in {
    "seam-scans": Scans,
    "seam-system": SeamPlan,
    "seam-encoder": SeamEncoder,
    "seam-generator": SeamGenerator,
    "seam-codec": SeamCodec,
    "seam-judge": SeamJudge,
}.items():
    register(_name, _builder)
