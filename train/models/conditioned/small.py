"""The plan of a small conditioned system: every part is trained here, from films and sessions alone.

LoRA cannot make random weights draw, and no text encoder, no SigLIP and no video model can be had without a
download. So the plan first trains a film net in place of SigLIP and, under captions, a small CogVideoX. Then
it goes on as at full scale: the brain encoders are aligned with the film net's embeddings, a low-rank adapter
of the video model learns to draw under their condition, and a student of it learns to take few steps
(`train.models.conditioned.distilled`). Everything that takes long is kept on disk, so that a stopped run goes
on after it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from rtdecode.bundle import ClipGeometry
from rtdecode.errors import UsageError
from rtdecode.scores.accuracy import identification_nway, identification_top1
from train.closed_form.patch_codec import SIDE
from train.config.builders import Later
from train.config.run_context import Arrays, RunContext
from train.data.set_windows import SetWindows
from train.data.sets.set_node import DataSetWindows
from train.data.voxel_order import STORED
from train.data.window_arrays import WindowArray
from train.distillation.student import Student, attached
from train.distillation.targets import Distillation
from train.distillation.teaching import split_phases
from train.evaluation import pictures as sheets
from train.interface.system import Trained
from train.models.conditioned import alignment, attention, batches
from train.models.conditioned.alignment import HeldOutWindows
from train.models.conditioned.base import (
    AnyWindows,
    base_provenance,
    check_phases,
    check_sizes,
    check_windows,
    read_small,
    say,
    take_encoder,
)
from train.models.conditioned.batches import Dropout, Windows
from train.models.conditioned.distilled import ClipRenderer, distil
from train.models.conditioned.drafts import drawing_manifest, select_modalities
from train.models.conditioned.encoder import MODALITIES, ConditionEncoder, Encoding, Signals, ordered
from train.models.conditioned.fittable import FITTER, film_tokens
from train.models.conditioned.material import Describe, FilmSizes, Material, of_sessions, of_set
from train.models.conditioned.memory import MemoryEncoder, table_of
from train.models.conditioned.small_system import FilmModels, Shape, SmallSystem, pack
from train.models.conditioned.system import Sampling
from train.models.conditioned.trainable import BrainVideo, Captioned, Contrasts, losses_with
from train.parts.codecs.fitted_patch import any_decoder_of, decode
from train.parts.codecs.patch import check_decodable
from train.parts.encoders import film_net
from train.parts.encoders.film_net import FilmNet
from train.parts.generators.base import Generator, VideoModel
from train.parts.text.words import Vocabulary, WordTable, line_up
from train.trainer import loop, stage_cache
from train.trainer.adapters import Adapter
from train.trainer.loader import Place
from train.trainer.loop import Machine
from train.trainer.phases import Phase, check_losses

AnyModule = TypeVar("AnyModule", bound=nn.Module)

# The phases of the film net and of the video model, which are trained apart from the brain encoders.
FILMS = "films"
PRETRAIN = "pretrain"
# Pictures and clips that go through a network at once.
_AT_ONCE = 256
# One clip of so many, the last ones, is kept from the film net, which is judged on them.
_TEST_SHARE = 10
# Clips on a sheet of samples.
_SHEET_CLIPS = 6


@dataclass(frozen=True)
class SmallPlan:
    """How a system is made at small scale. A subclass is a published system's, and names it.

    Attributes
    ----------
    encoder : Encoding
        Sizes of the brain encoder.
    video : VideoModel
        Sizes of the video model.
    films : FilmSizes
        What films are reduced to.
    sampling : Sampling
        How clips are drawn.
    dropout : Dropout
        How much of signals and captions is left out in training.
    voxels : int
        Number of voxels that are read, those that follow films best.
    normalised : bool
        See `train.models.conditioned.trainable.BrainVideo`.
    distillation : Distillation
        How the video model is distilled, for recipes with a phase that teaches a student.
    brain_seed : int
        Added to the run's seed where the brain encoder is trained: its first weights and its batches.
        Sessions, film net and the pretrained video model are those of the run's own seed.
    brain_minutes : float
        Windows of so many minutes, spread evenly over all sessions, teach the brain encoder; 0 for all. Film
        net and video model learn from all films, and voxels are chosen on all sessions.
    apart : bool
        Whether batches of brains have no two windows of one shot, where others are found.
    order : str
        In which voxels are read, see `train.data.voxel_order`.
    name : str
        What bundles of simulated and recorded sessions are called.
    contrasts : mapping
        See `train.models.conditioned.trainable.BrainVideo`.
    extra_losses : tuple of str
        Names of the other losses that a subclass has.
    video_phases : tuple of str
        Names of the phases in which the video model learns under captions, in their order.
    encoder_phases : mapping
        Name of a phase that a recipe may have, in which the encoder learns by itself -> its losses.
    """

    encoder: Encoding
    video: VideoModel
    films: FilmSizes
    sampling: Sampling
    dropout: Dropout
    voxels: int
    normalised: bool = True
    # Made where it is not given, and no default value: recipes without a student keep the values they had.
    distillation: Distillation = field(default_factory=Distillation)
    machine: Machine = field(default_factory=Machine)
    brain_seed: int = 0
    brain_minutes: Later[float] = 0.0
    apart: Later[bool] = False
    order: Later[str] = STORED

    name: ClassVar[str]
    contrasts: ClassVar[Contrasts]
    extra_losses: ClassVar[tuple[str, ...]] = ()
    video_phases: ClassVar[tuple[str, ...]] = (PRETRAIN,)
    encoder_phases: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # `train.run` asks for it where it is given films.
    learns_any_film: ClassVar[bool] = True

    def train(self, work: RunContext, data: AnyWindows, phases: dict[str, Phase]) -> Trained:
        """Train the film net and the video model, align the encoders, and adapt the video model.

        With a base, the film net and the video model are those of that run.
        """
        brains, distilling = self.divide_phases(phases, from_base=work.base is not None)
        check_read(brains, self.encoder, self.contrasts)
        self.encoder.check(self.films.tokens)
        films = self.films
        base = None if work.base is None else read_small(work.base, self)
        codec = None
        notes: list[str] = []
        if base is not None:
            codec = base.codec
            brains, notes = base.offered(brains, self.contrasts)
        if isinstance(data, DataSetWindows):
            self.check_clip(data.opened(work.data).draft.clip)
            self.check_windows(data.opened(work.data))
            material = of_set(work, data, films, self.descriptions(), codec, self.order)
        else:
            material = of_sessions(
                work, data, films, self.voxels, self.name, self.descriptions(), codec, self.order
            )
        codec = material.codec
        signals = signal_shapes(material.signals, self.encoder)
        log: list[dict[str, Any]] = []
        if base is None:
            models, windows, log = self._learn_from_films(work, material, phases)
            system_adapters = unmerged_adapters(brains)
        else:
            models = base.films
            windows = windows_of(material, models.net, models.vocabulary, films.tokens)
            system_adapters = base.adapters
        windows = replace(
            windows,
            targets=self.targets(material),
            teaching=teaching_rows(
                len(windows.latents), self.brain_minutes, float(material.manifest.grid.hop)
            ),
            shots=material.shots() if self.apart else None,
        )
        net = models.net
        video = models.video
        shape = Shape(
            signals=signals,
            latent=latent_shape(material.latents),
            embedding=films.embedding,
            conditions=films.tokens,
            every=films.every,
            frames=windows.frames.shape[1],
            adapters=system_adapters,
        )
        brain_seed = work.seed + self.brain_seed
        torch.manual_seed(brain_seed)
        encoder = self.encoder.build(signals, films.embedding, films.tokens, self.video.text)
        system = self.trainable(encoder, video, shape.frames, models.words)
        if base is None:
            _begin(encoder, models.words, windows.words)
            windows = self.remember(encoder, models.words, windows, material, brain_seed)
        else:
            take_encoder(encoder, base.encoder)
            system.pooling.load_state_dict(base.pooling.state_dict())
        encoder_log, encoder_provenance = self.begin_encoder(work, data, encoder, windows, phases, brain_seed)
        log += encoder_log
        held_out = None
        aligning = alignment.aligning(brains, self.contrasts)
        if material.held_out:
            held_frames = embedded_frames(net, material.held_out["pictures"])
            held_out = HeldOutWindows(work, held_frames, aligning, material.origin)
        log += loop.train(
            system,
            brains,
            self.draws(windows, material, models, losses_of(brains)),
            work.stages / "brains",
            partial(self._show_brains, work, system, codec, windows, held_out),
            brain_seed,
            self.machine,
        )
        tables: dict[str, Any] = {
            "loss": log,
            "notes": [{"note": text} for text in (own_identification(net, material.pictures), *notes)],
            **alignment.table(work, aligning),
        }
        weights = pack(encoder, system.pooling, models, codec, shape)
        weights |= self.notes(material)
        weights |= attention.noted(work, dict.fromkeys(row["phase"] for row in log))
        if distilling:
            student, lessons = distil(
                work,
                encoder,
                video,
                windows,
                ClipRenderer(partial(decode, any_decoder_of(codec)), codec["mean_clip"]),
                distilling,
                self,
            )
            weights |= student
            tables["loss"] += lessons.log
            tables["distillation"] = lessons.gates
        trained = self.restore(weights)
        token_statistics = film_tokens(work, data, material, encoder)
        read = encoder.modalities
        manifest = replace(material.manifest, fitter=FITTER if token_statistics else None)
        provenance = encoder_provenance | base_provenance(work)
        draft = drawing_manifest(manifest, trained, self.sampling, read, provenance)
        return Trained(
            system=trained,
            manifest=draft,
            stats=select_modalities(read, material.stats) | token_statistics,
            projection=material.projection if "fmri" in read else None,
            golden=select_modalities(read, material.golden),
            tables=tables,
            pictures={
                "samples.webp": Image.open(sheet_path(work, list(brains)[-1])),
                **alignment.pictures(work, aligning),
            },
        )

    def divide_phases(
        self, phases: Mapping[str, Phase], *, from_base: bool
    ) -> tuple[dict[str, Phase], dict[str, Phase]]:
        """Check all phases, and return those that train on brains, and those that teach a student.

        Parameters
        ----------
        phases : mapping
            All phases of the recipe, by name.
        from_base : bool
            Whether a base has film net and video model, so that no phase trains them.

        Raises
        ------
        UsageError
            If a phase is missing, or has a loss that it cannot have.
        """
        offered: dict[str, tuple[str, ...]] = {}
        if not from_base:
            offered = {FILMS: FilmNet.offered, **dict.fromkeys(self.video_phases, Captioned.offered)}
        for name, losses in offered.items():
            if name not in phases:
                raise UsageError(
                    "recipe-missing-phase",
                    "the recipe has no phase '{phase}', which a small system begins with.",
                    phase=name,
                )
            check_losses({name: phases[name]}, losses)
        for name, losses in self.encoder_phases.items():
            if name in phases:
                check_losses({name: phases[name]}, losses)
        before = {*offered, *self.encoder_phases}
        later = {name: phase for name, phase in phases.items() if name not in before}
        brains, distilling = split_distillation_phases(later)
        check_losses(brains, losses_with(self.contrasts, self.extra_losses))
        return brains, distilling

    def descriptions(self) -> Mapping[str, Describe]:
        """Name what is computed of clips beside their latents, pictures and captions: by default nothing."""
        return {}

    def targets(self, material: Material) -> Mapping[str, WindowArray]:
        """Return what the encoder learns to predict, (window, ...), from what was computed of clips."""
        return material.targets

    def notes(self, material: Material) -> Arrays:
        """Return what the run keeps beside its weights: by default nothing."""
        return {}

    def trainable(
        self, encoder: ConditionEncoder, video: Generator, frames: int, words: WordTable
    ) -> BrainVideo:
        """Say what the phases on brains train, and by which losses; so many frames of a clip are embedded."""
        pooling = encoder.frame_pooling(frames)
        return BrainVideo(encoder, video, pooling, self.contrasts, normalised=self.normalised, words=words)

    @torch.no_grad()
    def remember(
        self, encoder: ConditionEncoder, table: WordTable, windows: Windows, material: Material, seed: int
    ) -> Windows:
        """Fill the memory of an encoder that has one, by default with the captions of all windows.

        Returns
        -------
        Windows
            With the rows that they may not look up while they teach, if there are any.
        """
        if isinstance(encoder, MemoryEncoder):
            tokens = table(torch.from_numpy(windows.words))
            encoder.fill(table_of(windows.text[:], tokens.numpy()))
        return windows

    def begin_encoder(
        self,
        work: RunContext,
        data: AnyWindows,
        encoder: ConditionEncoder,
        windows: Windows,
        phases: Mapping[str, Phase],
        seed: int,
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Prepare the encoder for its windows, and train it in `encoder_phases`.

        Returns
        -------
        log : list
        provenance : dict
            What a bundle says of it. By default there is nothing to prepare or to say.
        """
        return [], {}

    def draws(
        self, windows: Windows, material: Material, models: FilmModels, losses: Mapping[str, Sequence[str]]
    ) -> Callable[[Place], Any]:
        """Say how the batches of the phases on brains are drawn; see `train.trainer.loop.train`."""
        return partial(batches.batch, windows, self.dropout, losses)

    def check_base(self, work: RunContext, data: AnyWindows, phases: dict[str, Phase]) -> None:
        """Refuse a run of other sizes or windows, and phases that would change what stays.

        Raises
        ------
        UsageError
        """
        assert work.base is not None
        check_phases(work.base, phases, (FILMS, *self.video_phases, *self.encoder_phases))
        check_sizes(work.base, self, ("encoder", "video", "films"))
        check_windows(work, data)
        brains, _ = self.divide_phases(phases, from_base=True)
        _, notes = read_small(work.base, self).offered(brains, self.contrasts)
        say(notes)

    def check_clip(self, clip: ClipGeometry) -> None:
        """Refuse clips that the codec or the video model cannot have, or of which the film net sees too few.

        Raises
        ------
        UsageError
        """
        check_decodable(clip, self.video.patch * SIDE, self.films.turn)
        _check_pictures(clip, self.films.every)

    def check_windows(self, windows: SetWindows) -> None:
        """Refuse windows of a data set that the encoder cannot read; by default there are none.

        Raises
        ------
        UsageError
        """

    def restore(self, weights: Arrays) -> SmallSystem:
        """Make the system again from the weights of a run."""
        return SmallSystem(weights, self.encoder, self.video, self.sampling)

    def _learn_from_films(
        self, work: RunContext, material: Material, phases: Mapping[str, Phase]
    ) -> tuple[FilmModels, Windows, list[dict[str, Any]]]:
        """Train the film net, and under captions the video model; return the windows and the log as well."""
        vocabulary = Vocabulary.of(material.captions)
        words = vocabulary.numbers(material.captions, self.films.tokens)
        net, log = self._learn_films(work, material.pictures, words, phases[FILMS])
        windows = windows_of(material, net, vocabulary, self.films.tokens)
        learned = {name: phases[name] for name in self.video_phases}
        captioned, rows = self._learn_video(work, windows, material.codec, vocabulary.words, learned)
        assert isinstance(captioned.words, WordTable)
        models = FilmModels(net, captioned.video, vocabulary, captioned.words)
        return models, windows, log + rows

    def _learn_films(
        self, work: RunContext, pictures: NDArray[np.uint8], words: NDArray[np.int64], phase: Phase
    ) -> tuple[FilmNet, list[dict[str, Any]]]:
        """Train the embeddings of frames and captions, on all clips but the last; return the log as well."""
        torch.manual_seed(work.seed)
        net = FilmNet(self.films.embedding, int(words.max()))
        folder = work.stages / FILMS
        taught = len(pictures) - _held(pictures)
        draw = partial(film_net.draw, pictures[:taught], words[:taught])
        log = loop.train(net, {FILMS: phase}, draw, folder, _show_nothing, work.seed, self.machine)
        return net.eval(), log

    def _learn_video(
        self,
        work: RunContext,
        windows: Windows,
        codec: Arrays,
        words: Sequence[str],
        phases: Mapping[str, Phase],
    ) -> tuple[Captioned, list[dict[str, Any]]]:
        """Train the video model under captions, unless another run has done so; return the log as well."""
        torch.manual_seed(work.seed)
        latent = latent_shape(windows.latents)
        video = self.video.generator(latent, self.sampling.shift)
        table = WordTable(len(words), self.video.text)
        line_up(table, words)
        system = Captioned(video, table)
        settings = np.array([self.dropout.words, self.sampling.shift])
        # A chunk at a time: the latents of many films may not fit into memory.
        chunks = (windows.latents[n : n + _AT_ONCE] for n in range(0, len(windows.latents), _AT_ONCE))
        log = stage_cache.train(
            system,
            phases,
            partial(batches.batch, windows, self.dropout, losses_of(phases)),
            work.stages / PRETRAIN,
            partial(self._show_captioned, work, system, codec, windows),
            work.seed,
            self.machine,
            chain([windows.words, np.array(words), settings], chunks),
        )
        return system, log

    @torch.no_grad()
    def _show_captioned(
        self, work: RunContext, system: Captioned, codec: Arrays, windows: Windows, phase: str, step: int
    ) -> None:
        """Draw a few clips from their captions."""
        system = _still(system)
        picked = _picked(windows)
        tokens = system.words(torch.from_numpy(windows.words[picked]))
        null = system.words(torch.zeros_like(torch.from_numpy(windows.words[:1])))[0]
        self._show(work, system.video, tokens, null, codec, windows.latents[picked], phase)

    @torch.no_grad()
    def _show_brains(
        self,
        work: RunContext,
        system: BrainVideo,
        codec: Arrays,
        windows: Windows,
        held_out: HeldOutWindows | None,
        phase: str,
        step: int,
    ) -> None:
        """Draw a few clips from the brain, and say how well windows that teach nothing are told apart."""
        if held_out is not None:
            held_out.show(system, phase, step)
        attention.note(work, system.encoder, windows, phase, step)
        system = _still(system)
        picked = _picked(windows)
        signals = {name: torch.from_numpy(x) for name, x in windows.normalised(picked).items()}
        tokens = system.encoder(signals).tokens
        negative = system.encoder.negative(Signals.of(windows.signals), tokens.device)
        self._show(work, system.video, tokens, negative, codec, windows.latents[picked], phase)

    def _show(
        self,
        work: RunContext,
        video: Generator,
        tokens: torch.Tensor,
        null: torch.Tensor,
        codec: Arrays,
        truth: NDArray[Any],
        phase: str,
    ) -> None:
        """Write a sheet: the truth, and clips drawn under some tokens."""
        step = video.step(null, self.sampling.guidance)
        noise = np.random.default_rng(0).standard_normal(truth.shape, np.float32)
        samples = step.sample(torch.from_numpy(noise), tokens, self.sampling.steps).numpy()
        decoder = any_decoder_of(codec)
        videos = [decode(decoder, latents) for latents in (truth.astype(np.float32), samples)]
        rows = [clips[n] for n in range(len(truth)) for clips in videos]
        sheets.rows(rows, sheets.over_clip(len(rows[0]))).save(sheet_path(work, phase))


def windows_of(material: Material, net: FilmNet, vocabulary: Vocabulary, tokens: int) -> Windows:
    """Return the windows that teach, with their captions in numbers and the embeddings of both."""
    words = vocabulary.numbers(material.captions, tokens)
    check_words(words, vocabulary)
    return Windows(
        latents=material.latents,
        words=words,
        frames=embedded_frames(net, material.pictures),
        text=_embedded_captions(net, words),
        signals=material.signals,
        units=material.units,
    )


def check_words(words: NDArray[np.int64], vocabulary: Vocabulary) -> None:
    """Refuse captions in numbers, (caption, token, word), of which no word is known.

    Raises
    ------
    UsageError
    """
    if vocabulary.words and not words.any():
        raise UsageError(
            "captions-without-known-word",
            "none of {captions} captions holds a word of the table, which has {known_words} such as "
            "{examples}. Begin at a run whose films were captioned in the same words, or leave base= out.",
            captions=len(words),
            known_words=len(vocabulary.words),
            examples=vocabulary.words[:3],
        )


def latent_shape(latents: WindowArray) -> tuple[int, int, int, int]:
    """Return the shape of a clip's latents."""
    _, channels, times, height, width = latents.shape
    return channels, times, height, width


def split_distillation_phases(phases: Mapping[str, Phase]) -> tuple[dict[str, Phase], dict[str, Phase]]:
    """Divide phases into those that train on brains, and those that teach a student, which are checked."""
    brains, distilling = split_phases(phases, Student.offered)
    attached(distilling)
    return brains, distilling


def check_read(phases: Mapping[str, Phase], encoder: Encoding, contrasts: Contrasts) -> None:
    """Refuse losses of a modality that the encoder does not read."""
    for name, phase in phases.items():
        for loss in phase.losses:
            sides = {*contrasts.get(loss, ())}
            for modality in sorted(sides & {*MODALITIES} - {*encoder.modalities}):
                raise UsageError(
                    "loss-modality-not-encoded",
                    "phase '{phase}' asks for '{loss}', and the recipe's encoder reads no "
                    "{modality}. Leave it out of phases.{phase}.losses.",
                    phase=name,
                    loss=loss,
                    modality=modality,
                )


@torch.no_grad()
def _begin(encoder: ConditionEncoder, table: WordTable, words: NDArray[np.int64]) -> None:
    """Let the condition begin at the mean caption, so that its tokens need not be learned from brains."""
    offset = encoder.offset
    if offset is None:
        return
    total = torch.zeros_like(offset)
    for n in range(0, len(words), _AT_ONCE):
        total += table(torch.from_numpy(words[n : n + _AT_ONCE])).sum(0)
    offset.copy_(total / len(words))


def unmerged_adapters(phases: Mapping[str, Phase]) -> dict[str, Adapter]:
    """List the adapters that stay beside the weights, by the names of their phases."""
    adapters = ((name, adapter) for name, phase in phases.items() for adapter in phase.adapters.values())
    return {name: adapter for name, adapter in adapters if not adapter.merge}


def losses_of(phases: Mapping[str, Phase]) -> dict[str, list[str]]:
    return {name: list(phase.losses) for name, phase in phases.items()}


def teaching_rows(
    count: int, minutes: float, hop_s: float, option: str = "brain_minutes"
) -> NDArray[np.int64] | None:
    """Choose windows of so many minutes, spread evenly; None for all. `option` is what asked for them."""
    if not minutes:
        return None
    teaching = round(60 * minutes / hop_s)
    if not 1 <= teaching <= count:
        raise UsageError(
            "brain-minutes-out-of-range",
            "system.{option}={minutes:g} asks for {teaching} windows to teach the encoder, and the "
            "sessions have {available}. Give minutes that they have, or 0 for all.",
            option=option,
            minutes=minutes,
            teaching=teaching,
            available=count,
        )
    return np.linspace(0, count - 1, teaching).round().astype(np.int64)


def _check_pictures(clip: ClipGeometry, frame_step: int) -> None:
    """Refuse clips of which the film net would see one frame: it learns from two of each."""
    # The frame after the window is not embedded.
    if clip.frames - 1 <= frame_step:
        raise UsageError(
            "film-net-frames-too-few",
            "one frame in {every} is embedded (system.films.every), two of a clip at least, and the recipe's "
            "clips have {frames} frames. Choose a window or a frame rate with more (data.grid.window, "
            "data.grid.fps), or a smaller system.films.every.",
            every=frame_step,
            frames=clip.frames,
        )


def signal_shapes(signals: Mapping[str, WindowArray], encoder: Encoding) -> Signals:
    """Return the shapes of a window's signals.

    Raises
    ------
    UsageError
        If the encoder reads a modality that there is not.
    """
    read = ordered(encoder.modalities)
    available = [name for name in read if name in signals]
    missing = [name for name in read if name not in available]
    if missing:
        raise UsageError(
            "windows-missing-modality",
            "the windows have no {modality}, which the recipe's encoder reads. Train on the other "
            "one alone with system.encoder.modalities=[{available}].",
            modality=missing[0],
            available=list(available),
        )
    return Signals.of(signals)


def _held(pictures: NDArray[np.uint8]) -> int:
    """Count the clips that are kept from the film net: two at least, to be told apart."""
    return max(2, len(pictures) // _TEST_SHARE)


@torch.no_grad()
def own_identification(net: FilmNet, pictures: NDArray[np.uint8]) -> str:
    """Say how well the film net tells clips apart that it was not trained on."""
    test_pictures = pictures[-_held(pictures) :]
    halves = []
    for half in np.array_split(test_pictures, 2, axis=1):
        vectors = net.frames(film_net.scaled(half.reshape(-1, *half.shape[2:])))
        halves.append(functional.normalize(vectors.unflatten(0, half.shape[:2]).mean(1), dim=1))
    alike = (halves[0] @ halves[1].T).numpy()
    count = len(test_pictures)
    is_other = ~np.eye(count, dtype=np.bool_)
    two = identification_nway(alike, is_other, 2).mean()
    top = identification_top1(alike, is_other).mean()
    return (
        f"film net: of {count} clips that it was not trained on, the second half is told by the first "
        f"from that of another clip in {two:.3f} (chance 0.5), and from those of all in {top:.3f} (chance "
        f"{1 / count:.3f})."
    )


@torch.no_grad()
def embedded_frames(net: FilmNet, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed the frames of clips, (clip, frame, embedding)."""
    embeddings = []
    for n in range(0, len(pictures), _AT_ONCE):
        some = pictures[n : n + _AT_ONCE]
        vectors = net.frames(film_net.scaled(some.reshape(-1, *some.shape[2:])))
        embeddings.append(vectors.unflatten(0, some.shape[:2]).numpy())
    return np.concatenate(embeddings)


@torch.no_grad()
def _embedded_captions(net: FilmNet, words: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embed captions, (clip, embedding)."""
    return net.texts(torch.from_numpy(words)).numpy()


def _still(system: AnyModule) -> AnyModule:
    """Copy a system to the CPU, without dropout: the system itself goes on training where it is."""
    return copy.deepcopy(system).cpu().eval()


def _picked(windows: Windows) -> NDArray[np.int64]:
    return np.linspace(0, len(windows.latents) - 1, _SHEET_CLIPS).astype(np.int64)


def sheet_path(work: RunContext, phase: str) -> Path:
    return work.stages / f"{phase}.png"


def _show_nothing(phase: str, step: int) -> None:
    """Draw nothing: embeddings cannot be looked at."""
