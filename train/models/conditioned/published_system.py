"""A trained system on published weights: a run holds what was trained, and a folder on disk all else."""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.checkpoint import checkpoint

from rtdecode import strict_json
from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.config.run_files import weights
from train.distillation.interval_embedding import add_spans
from train.distillation.student_weights import of_student, of_teacher, put_on
from train.interface.system import Stage
from train.models.conditioned.base import without_tokenizers
from train.models.conditioned.encoder import Encoding, Signals
from train.models.conditioned.memory import MEMORY, packed_memory, take_memory
from train.models.conditioned.system import BrainConditioned, Sampling, read_shape
from train.models.conditioned.trainable import BrainVideo
from train.parts.codecs import video_decoder
from train.parts.codecs.full_video_decoder import full_decoder
from train.parts.codecs.tiny_video_decoder import SCALE, from_published
from train.parts.codecs.video_decoder import VideoDecoder
from train.parts.generators import folders
from train.parts.generators.base import Generator
from train.targets.models import PRECISIONS, files_of
from train.trainer import adapters
from train.trainer.adapters import Adapter
from train.trainer.phases import Phase
from train.weights.folders import diffusers_model, model_settings
from train.weights.source import Source

# What draws latents: the pipeline's own autoencoder, or a tiny decoder.
FULL = "full"
TINY = "tiny"


@dataclass(frozen=True)
class PublishedVideo:
    """The folder of a pipeline.

    It has the parts ``transformer`` and ``vae`` of CogVideoX or Wan, or ``unet`` and ``vae`` of Stable
    Diffusion 1.5.

    Attributes
    ----------
    folder : str
        Path of the folder.
    licence : str
        Of its weights, as the user states it.
    precision : str
        Of its weights in memory: ``bfloat16`` or ``float32``.
    recompute : bool
        Whether the backward pass computes activations again, which takes less memory and more time.
    decoder : str
        What draws latents: ``full``, the pipeline's ``vae``, or ``tiny``, faster and less exact.
    tiny : str
        Weights of the tiny decoder: those that were published (``taecvx.pth``), or of
        ``python -m train.tiny_decoder``.
    tiny_licence : str
        Of these weights, as the user states it.
    """

    folder: str = ""
    licence: str = ""
    precision: str = "bfloat16"
    recompute: bool = True
    decoder: str = FULL
    tiny: str = ""
    tiny_licence: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                "video-precision-unknown",
                "system.video.precision must be one of {available}, found '{precision}'.",
                available=list(PRECISIONS),
                precision=self.precision,
            )
        if self.decoder not in (FULL, TINY):
            raise UsageError(
                "video-decoder-unknown",
                "system.video.decoder must be {full_decoder} or {tiny_decoder}, found '{decoder}'.",
                full_decoder=FULL,
                tiny_decoder=TINY,
                decoder=self.decoder,
            )

    def check(self) -> None:
        """Refuse a folder without a network that tokens alone condition, before anything is read.

        Raises
        ------
        UsageError
        """
        if folders.network(Path(self.folder)) is None:
            raise UsageError(
                "video-pipeline-missing",
                "system.video.folder='{folder}': the folder of a pipeline of CogVideoX or Wan was "
                "expected, with transformer/ and vae/, or of Stable Diffusion, with unet/ and vae/. Nothing "
                "is downloaded; docs/full-scale.md says what is needed. To train a small system from "
                "nothing, give scale=tiny.",
                folder=self.folder,
            )
        folders.check_folder(Path(self.folder))

    def check_latent(self, latent: tuple[int, int, int, int]) -> None:
        """Refuse latents that its network does not draw, before its weights are read.

        Raises
        ------
        UsageError
        """
        folders.check_latent(Path(self.folder), latent)

    def clip_size(self, latent: tuple[int, int], clip: tuple[int, int] | None) -> tuple[int, int]:
        """Return the rows and columns of clips that latents of so many rows and columns are drawn as.

        No weights are read for it.

        Parameters
        ----------
        latent : (row, column)
            Rows and columns of the latents.
        clip : (row, column) or None
            What the clips are to have, in pixels; None for what they have.

        Raises
        ------
        UsageError
            If there are no latents of such clips, or these are of others.
        """
        folder = Path(self.folder)
        if self.decoder == TINY:
            # Who draws with a tiny decoder may have no autoencoder in the folder.
            shrunk = SCALE
        else:
            self._check_autoencoder(model_settings(folder / "vae").get("_class_name"))
            shrunk = folders.pixels_per_latent(folder)
        # The network takes latents in patches, and would leave out what makes no whole one.
        step = shrunk * folders.patch(folder)
        of_latents = (latent[0] * shrunk, latent[1] * shrunk)
        size = clip or of_latents
        if any(side < step or side % step for side in size):
            raise UsageError(
                "clip-size-indivisible",
                "clips of {clip} pixels cannot be drawn: {folder} makes one token of {step} x {step} pixels. "
                "Sizes that fit are {near}. Give one of them to python -m train.targets (vae.size=).",
                clip=_by(size),
                folder=folder,
                step=step,
                near=" and ".join(dict.fromkeys(_by(near) for near in _near(size, step))),
            )
        if size != of_latents:
            raise UsageError(
                "clip-size-target-mismatch",
                "data.clip={clip} was asked for, and the latents are of clips of {drawn} pixels. Leave "
                "data.clip out, or compute the targets with vae.size={clip}.",
                clip=_by(size),
                drawn=_by(of_latents),
            )
        return size

    def diffusion(self, latent: tuple[int, int, int, int], shift: float) -> tuple[Generator, str]:
        """Open the network; return the digest of its weights as well."""
        self.check_latent(latent)
        video, source = folders.generator_from(
            Path(self.folder), self.licence, latent, shift, PRECISIONS[self.precision]
        )
        if self.recompute:
            # A function of this module, because diffusers' own cannot be handed to other processes.
            video.transformer.enable_gradient_checkpointing(_recomputed)
        return video, source.digest

    def check_vae(self, target: Mapping[str, Any]) -> None:
        """Refuse targets of another autoencoder: its latents may have the same shape, and mean other clips.

        Parameters
        ----------
        target : mapping
            What the targets state of their model, see `train.weights.source.Source.stated`.

        Raises
        ------
        UsageError
        """
        folder = Path(self.folder) / "vae"
        # Who draws with a tiny decoder may have no autoencoder in the folder.
        if not folder.is_dir():
            return
        digest = files_of(folder, "diffusers folder", self.licence).digest
        if target["sha256"] != digest:
            raise UsageError(
                "target-vae-other-weights",
                "the target vae was computed by an autoencoder of the digest {target_digest}, and "
                "{folder} holds one of {folder_digest}. Compute it with vae={folder}.",
                folder=folder,
                target_digest=target["sha256"][:16],
                folder_digest=digest[:16],
            )

    def drawing(self, latent: tuple[int, int, int, int]) -> tuple[VideoDecoder, Source]:
        """Open what draws latents of this shape.

        Raises
        ------
        UsageError
            If it is not there, is another one, or draws latents of another shape.
        """
        decoder, source = self._tiny(latent[0]) if self.decoder == TINY else self._full()
        video_decoder.check_turns(decoder, latent[1])
        return decoder, source

    def _tiny(self, channels: int) -> tuple[VideoDecoder, Source]:
        if not self.tiny:
            raise UsageError(
                "tiny-decoder-missing-weights",
                "system.video.decoder=tiny needs the weights of a tiny decoder. Give "
                "system.video.tiny=FILE and system.video.tiny_licence=TEXT, or "
                "system.video.decoder=full.",
            )
        decoder, source = from_published(Path(self.tiny), self.tiny_licence)
        if decoder.channels != channels:
            raise UsageError(
                "tiny-decoder-channels-mismatch",
                "the tiny decoder in {path} draws latents of {decoder_channels} channels, and the "
                "video model's have {latent_channels}. Give one that was made for this model.",
                path=self.tiny,
                decoder_channels=decoder.channels,
                latent_channels=channels,
            )
        return decoder, source

    def _full(self) -> tuple[VideoDecoder, Source]:
        model, source = diffusers_model(Path(self.folder) / "vae", licence=self.licence)
        self._check_autoencoder(type(model).__name__)
        return full_decoder(model).eval(), source

    def _check_autoencoder(self, kind: object) -> None:
        expected = folders.autoencoder_class(Path(self.folder))
        if kind != expected:
            raise UsageError(
                "video-vae-wrong-class",
                "{folder}/vae holds a {actual_class}; {expected_class} was expected.",
                folder=self.folder,
                actual_class=kind,
                expected_class=expected,
            )


@dataclass(frozen=True)
class PublishedShape:
    """What a system's modules are made from, besides what its recipe states.

    Attributes
    ----------
    signals : Signals
        Shapes of a window's signals.
    latent : (channel, latent frame, row, column)
        Shape of a clip's latents.
    embedding : int
        Width of the class vectors.
    conditions, width : int
        Number and width of the condition's tokens.
    frames : int
        Frames of a clip that were embedded.
    size : (row, column)
        Of the clips of the bundle.
    adapters : dict
        Name -> the adapter of the video model.
    transformer, decoder : str
        Digests of the weights that the training began at, and of those that draw latents.
    """

    signals: Signals
    latent: tuple[int, int, int, int]
    embedding: int
    conditions: int
    width: int
    frames: int
    size: tuple[int, int]
    adapters: dict[str, Adapter]
    transformer: str = ""
    decoder: str = ""


class PublishedSystem(BrainConditioned):
    """A system on published weights.

    Parameters
    ----------
    weights : dict
        What `packed` made.
    encoder : Encoding
        Sizes of the brain encoder, as the recipe states them.
    video : PublishedVideo
        The folder of the published weights, and how they are used.
    sampling : Sampling
        How clips are drawn.
    adapted : bool
        Whether the video model has its adapters.

    Raises
    ------
    UsageError
        If the folder holds other weights than those that the training began at.
    """

    def __init__(
        self,
        weights: Arrays,
        encoder: Encoding,
        video: PublishedVideo,
        sampling: Sampling,
        *,
        adapted: bool = True,
    ) -> None:
        video.check()
        self._weights = weights
        self._how = (encoder, video, sampling)
        shape = read_shape(weights, PublishedShape)
        self._built = shape
        self.latent_shape = shape.latent
        diffusion, digest = video.diffusion(shape.latent, sampling.shift)
        decoder, drawing = video.drawing(shape.latent)
        _check_same("transformer", shape.transformer, digest)
        _check_same("decoder", shape.decoder, drawing.digest)
        if adapted:
            for name, adapter in shape.adapters.items():
                adapters.inject(diffusion, "transformer", name, adapter)
            # What was trained, in its place.
            _fill(diffusion.transformer, weights, "transformer", strict=False)
        learned = of_student(weights) if adapted else {}
        if learned:
            add_spans(diffusion.transformer)
            put_on(diffusion.transformer, learned)
        brain_encoder = encoder.build(shape.signals, shape.embedding, shape.conditions, shape.width)
        _fill(brain_encoder, weights, "encoder", strict=True)
        take_memory(brain_encoder, weights)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(
            brain_encoder.eval(), diffusion, shape.signals, sampling, device, distilled=bool(learned)
        )
        self._drawn = ResizedClips(decoder, shape.size).to(device)

    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Decode latents to frames in the size of the bundle's clips."""
        return self._drawn.frames(latents)

    def weights(self) -> Arrays:
        """Return the weights as they were given, without the memory, which a run keeps apart."""
        return {name: values for name, values in self._weights.items() if name != MEMORY}

    def teacher(self) -> "PublishedSystem | None":
        """Return the system that this one was distilled from; None for one that was not distilled."""
        teacher_weights = of_teacher(self._weights)
        return None if teacher_weights is None else PublishedSystem(teacher_weights, *self._how)

    def without_adapters(self) -> "PublishedSystem | None":
        """Return the same system with the video model as it was published."""
        if not self._built.adapters:
            return None
        return PublishedSystem(self._weights, *self._how, adapted=False)

    def settle(self, precision: str) -> None:
        """Let go of the run's arrays too, which the modules hold."""
        super().settle(precision)
        self._weights = {}

    def move(self, device: torch.device) -> None:
        """Move what computes to a device."""
        super().move(device)
        self._drawn.to(device)

    def drawing(self) -> list[Stage]:
        """List the first turn of decoding latents, and the later ones."""
        return list(video_decoder.stages(self._drawn.decoder.cpu(), self.latent_shape, self._built.size))


class ResizedClips(nn.Module):
    """From latents to clips in the size of the bundle.

    Parameters
    ----------
    decoder : VideoDecoder
        Decodes latents to clips in the size of the video model.
    size : (row, column)
        Size of the bundle's clips, pixels.
    """

    def __init__(self, decoder: VideoDecoder, size: tuple[int, int]) -> None:
        super().__init__()
        self.decoder = decoder
        self.size = size

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Decode latents to (clip, frame, row, column, 3) in [0, 1].

        They are decoded one clip after the other, which bounds the memory.
        """
        device = next(self.parameters()).device
        batch = torch.from_numpy(latents.astype(np.float32)).to(device)
        clips = [video_decoder.frames(self.decoder(latent[None]), self.size) for latent in batch]
        return torch.cat([clip.cpu() for clip in clips]).numpy()

    def clips(self, latents: NDArray[Any]) -> NDArray[np.uint8]:
        """Decode latents to clips of uint8, as a session emits them."""
        return np.rint(self.frames(latents) * 255).astype(np.uint8)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _near(size: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """Return the multiples of a step on both sides of a size, in rows and columns."""
    rows, columns = (max(step, side // step * step) for side in size)
    above_rows, above_columns = (-(-side // step) * step for side in size)
    return [(rows, columns), (above_rows, above_columns)]


def _check_same(part: str, expected: str, actual: str) -> None:
    """Refuse other weights than those that a run states."""
    if actual != expected:
        raise UsageError(
            "run-weights-digest-mismatch",
            "the run was trained with a {part} of the digest {expected_digest}, and its recipe now "
            "leads to one of {actual_digest}. Give the same weights.",
            part=part,
            expected_digest=expected[:16],
            actual_digest=actual[:16],
        )


def packed(system: BrainVideo, shape: PublishedShape, phases: Iterable[Phase] = ()) -> Arrays:
    """Collect what was trained, in half precision, and what is remembered.

    Of the video model these are its adapters, the weights that phases train, and those that no published one
    has. Its other weights stay where they are.
    """
    arrays: Arrays = {}
    modules = {"encoder": system.encoder, "pooling": system.pooling, "transformer": system.video.transformer}
    trained = trained_weights(system, phases)
    for part, module in modules.items():
        for name, value in module.state_dict().items():
            if part != "transformer" or ".lora_" in name or name in trained or system.video.adds(name):
                arrays[f"{part}.{name}"] = value.half().numpy()
    return arrays | packed_memory(system.encoder) | {"config": stated_shape(shape)}


def trained_weights(system: BrainVideo, phases: Iterable[Phase]) -> set[str]:
    """Name the weights of the video model that phases train themselves, and not by an adapter."""
    patterns = [pattern for phase in phases for pattern in phase.trained]
    names = [name for name, _ in system.video.transformer.named_parameters()]
    return {
        name
        for name in names
        if any(fnmatch.fnmatchcase(f"video.transformer.{name}", pattern) for pattern in patterns)
    }


def stated_shape(shape: PublishedShape) -> NDArray[np.str_]:
    """Return what a run's weights note of their modules; see `train.models.conditioned.system.read_shape`."""
    return np.array(strict_json.dumps(asdict(shape)))


def begin_at(system: BrainVideo, run: Path, transformer: str) -> dict[str, Adapter]:
    """Let a system begin at a finished run, but for the tokenizers; return the adapters that it put on.

    Parameters
    ----------
    system : BrainVideo
        Its video model has no adapters yet.
    run : Path
        Of one that was distilled, the teacher is taken.
    transformer : str
        Digest of the weights of the video model.

    Raises
    ------
    UsageError
        If the run was trained on other weights.
    """
    run_weights = weights(run)
    run_weights = of_teacher(run_weights) or run_weights
    shape = read_shape(run_weights, PublishedShape)
    _check_same("transformer", shape.transformer, transformer)
    for name, adapter in shape.adapters.items():
        adapters.inject(system.video, "transformer", name, adapter)
    _fill(system.video.transformer, run_weights, "transformer", strict=False)
    _fill(system.encoder, without_tokenizers(run_weights), "encoder", strict=False)
    _fill(system.pooling, run_weights, "pooling", strict=True)
    return shape.adapters


def _fill(module: nn.Module, weights: Arrays, part: str, *, strict: bool) -> None:
    """Load the weights of a part; if not `strict`, the module has others, which stay."""
    state = {
        name.removeprefix(f"{part}."): torch.from_numpy(np.asarray(value, np.float32))
        for name, value in weights.items()
        if name.startswith(f"{part}.")
    }
    keys = module.load_state_dict(state, strict=strict)
    if keys.unexpected_keys:
        raise UsageError(
            "run-unknown-weights",
            "the run has weights of {weight}, and the {part} has none.",
            weight=keys.unexpected_keys[0],
            part=part,
        )


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    return checkpoint(block, *inputs, use_reentrant=False)
