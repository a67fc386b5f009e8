"""A trained small system, restored from the weights of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode import strict_json
from rtdecode.disk.clip_file import Pixels
from train.config.run_context import Arrays
from train.distillation.interval_embedding import add_spans
from train.distillation.student_weights import of_student, of_teacher, put_on
from train.interface.system import Categories, Stage
from train.models.conditioned.encoder import CATEGORY_HEAD, ConditionEncoder, Encoding, Signals
from train.models.conditioned.memory import MEMORY, packed_memory, take_memory
from train.models.conditioned.system import BrainConditioned, Sampling, read_shape
from train.parts.codecs.fitted_patch import any_decoder_of, decoder_stages
from train.parts.codecs.patch import ClipDecoder, FrameDecoder
from train.parts.encoders.film_net import FilmNet, FrameNet, pictures, scaled
from train.parts.generators.base import Generator, VideoModel
from train.parts.text.categories import categories_of
from train.parts.text.words import Vocabulary, WordTable, captions
from train.trainer import adapters
from train.trainer.adapters import Adapter

_PARTS = ("encoder", "transformer", "frames", "pooling")
# What is known of captions, which only a training that begins at the run reads.
_TEXTS = "texts"
_WORDS = "words"
_VOCABULARY = "vocabulary"
# What the outputs of a head of categories are called, and how often each was shown in training.
_CATEGORY_NAMES = "category_names"
_CATEGORY_SHARE = "category_share"


@dataclass(frozen=True)
class Shape:
    """What a system's modules are made from, besides the sizes that its recipe states.

    Attributes
    ----------
    signals : Signals
        Shapes of a window's signals.
    latent : (channel, latent frame, row, column)
        Shape of a clip's latents.
    embedding : int
        Width of the class vectors.
    conditions : int
        Number of the condition's tokens.
    every, frames : int
        Every so many frames of a clip are embedded, and how many these are.
    adapters : dict
        Name -> the adapter of the video model.
    """

    signals: Signals
    latent: tuple[int, int, int, int]
    embedding: int
    conditions: int
    every: int
    frames: int
    adapters: dict[str, Adapter]


@dataclass(frozen=True)
class SmallModel:
    """The modules of a trained system. The video model of a distilled one is the student."""

    encoder: ConditionEncoder
    video: Generator
    decoder: ClipDecoder | FrameDecoder
    frames: FrameNet
    pooling: nn.Module
    distilled: bool


@dataclass(frozen=True)
class FilmModels:
    """What was learned from films alone, before any brain was read.

    Attributes
    ----------
    net : FilmNet
        Embeds frames and captions.
    video : Generator
        The video model, pretrained under captions.
    vocabulary : Vocabulary
        The words of captions; empty where a run did not keep them.
    words : WordTable
        The tokens of these words under which the video model was pretrained.
    """

    net: FilmNet
    video: Generator
    vocabulary: Vocabulary
    words: WordTable


class SmallSystem(BrainConditioned):
    """A system whose codec and video model were trained here: nothing of it was published.

    Parameters
    ----------
    weights : dict
        What `pack` made.
    encoder : Encoding
        Sizes of the brain encoder, as the recipe states them.
    video : VideoModel
        Sizes of the video model, as the recipe states them.
    sampling : Sampling
        How clips are drawn.
    adapted : bool
        Whether the video model has its adapters. Without them it is as it was pretrained.
    """

    def __init__(
        self,
        weights: Arrays,
        encoder: Encoding,
        video: VideoModel,
        sampling: Sampling,
        *,
        adapted: bool = True,
    ) -> None:
        self._weights = weights
        self._how = (encoder, video, sampling)
        self._shape = read_shape(weights, Shape)
        self.latent_shape = self._shape.latent
        self._model = _unpack(weights, self._shape, encoder, video, sampling.shift, adapted=adapted)
        super().__init__(
            self._model.encoder,
            self._model.video,
            self._shape.signals,
            sampling,
            distilled=self._model.distilled,
        )

    @torch.no_grad()
    def frames(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Decode scaled latents to frames."""
        return self._model.decoder(torch.from_numpy(latents.astype(np.float32))).numpy()

    def weights(self) -> Arrays:
        """Return the weights as they were given, without the memory, which a run keeps apart."""
        return {name: values for name, values in self._weights.items() if name != MEMORY}

    @torch.no_grad()
    def targets(self, clips: Iterable[Pixels]) -> NDArray[np.float32]:
        """Embed clips as the class vectors were trained to be, (clip, embedding) of length 1.

        Frames after the window are left out, and one clip at a time is read.
        """
        vectors = [self._model.frames(scaled(self._pictures(clip))) for clip in clips]
        return self._model.pooling(torch.stack(vectors)).numpy()

    @property
    def categories(self) -> Categories | None:
        """The categories that the encoder names; None where it names none, or the run kept no names."""
        if _CATEGORY_NAMES not in self._weights:
            return None
        return Categories(tuple(self._weights[_CATEGORY_NAMES].tolist()), self._weights[_CATEGORY_SHARE])

    @torch.no_grad()
    def category_probabilities(self, inputs: Arrays) -> NDArray[np.float32]:
        """Return how likely each category is in windows, (window, category)."""
        logits = self._encoder.without_condition(self.signals_of(inputs)).predicted[CATEGORY_HEAD]
        # The head may have more outputs than captions had words.
        return torch.sigmoid(logits)[:, : len(self._weights[_CATEGORY_NAMES])].cpu().numpy()

    def shown_categories(self, clips: Sequence[Pixels], event_words: Sequence[str]) -> NDArray[np.float32]:
        """Read from the captions of clips which categories they show, (window, category)."""
        return categories_of(captions(clips, event_words), self._weights[_CATEGORY_NAMES].tolist())

    def _pictures(self, clip: Pixels) -> NDArray[np.uint8]:
        """Take those frames of a clip that class vectors are made of, (frame, 3, 32, 48)."""
        looked_at = np.asarray(clip[:: self._shape.every], np.uint8)[: self._shape.frames]
        return pictures(looked_at[None], 1)[0]

    def without_adapters(self) -> "SmallSystem | None":
        """Return the same system with its video model as it was before it was adapted."""
        if not self._shape.adapters:
            return None
        return SmallSystem(self._weights, *self._how, adapted=False)

    @property
    def adapters(self) -> dict[str, Adapter]:
        """The adapters of the video model that stay beside its weights, by name."""
        return self._shape.adapters

    @property
    def pooling(self) -> nn.Module:
        """The pooling of the embeddings of a clip's frames."""
        return self._model.pooling

    def codec(self) -> Arrays:
        """Return the arrays of the decoder, under ``decoder.``."""
        return {name: values for name, values in self._weights.items() if name.startswith("decoder.")}

    def film_models(self) -> FilmModels:
        """Return what was learned from films alone, the video model with its adapters."""
        _, video, _ = self._how
        texts = _part(self._weights, _TEXTS)
        tokens = _part(self._weights, _WORDS)
        net = FilmNet(self._shape.embedding, _words_in(texts))
        net.frames = self._model.frames
        net.load_state_dict(texts, strict=False)
        words = WordTable(_words_in(tokens), video.text)
        words.load_state_dict(tokens, strict=False)
        # Words that no caption has room for are in the vocabulary, and not in the net's table.
        vocabulary = self._weights.get(_VOCABULARY, np.array([], np.str_))[: _words_in(texts)]
        return FilmModels(net.eval(), self._model.video, Vocabulary(vocabulary.tolist()), words)

    def teacher(self) -> "SmallSystem | None":
        """Return the system that this one was distilled from; None for one that was not distilled."""
        teacher_weights = of_teacher(self._weights)
        return None if teacher_weights is None else SmallSystem(teacher_weights, *self._how)

    def drawing(self) -> list[Stage]:
        """List the two ways to decode a latent frame."""
        return list(decoder_stages(self._model.decoder, self.latent_shape))


def pack(
    encoder: ConditionEncoder, pooling: nn.Module, films: FilmModels, codec: Arrays, shape: Shape
) -> Arrays:
    """Collect the weights of a trained system, in half precision, and what its encoder remembers."""
    arrays: Arrays = {}
    modules = (encoder, films.video.transformer, films.net.frames, pooling)
    for part, module in zip(_PARTS, modules, strict=True):
        arrays |= _half(part, module.state_dict())
    if films.vocabulary.words:
        arrays[_VOCABULARY] = np.array(films.vocabulary.words)
        arrays |= _half(_WORDS, films.words.state_dict()) | _half(_TEXTS, films.net.of_texts())
    arrays |= packed_memory(encoder)
    decoder = {name: value for name, value in codec.items() if name.startswith("decoder.")}
    return arrays | decoder | {"config": np.array(strict_json.dumps(asdict(shape)))}


def packed_categories(names: Sequence[str], labels: NDArray[np.floating]) -> Arrays:
    """Return what a run keeps of its categories.

    Parameters
    ----------
    names : sequence of str
        In the order of the outputs of the encoder's head.
    labels : (training window, category)
        1 where the window shows the category.
    """
    return {_CATEGORY_NAMES: np.array(names), _CATEGORY_SHARE: labels.mean(axis=0, dtype=np.float64)}


def _half(part: str, state: Mapping[str, Tensor]) -> Arrays:
    return {f"{part}.{name}": value.half().numpy() for name, value in state.items()}


def _part(weights: Arrays, part: str) -> dict[str, Tensor]:
    """Pick the weights of a part from those of a run."""
    return {
        name.removeprefix(f"{part}."): torch.from_numpy(np.asarray(value, np.float32))
        for name, value in weights.items()
        if name.startswith(f"{part}.")
    }


def _words_in(table: Mapping[str, Tensor]) -> int:
    """Count the words of a packed table, without the row that stands for none."""
    rows = [len(values) for name, values in table.items() if name.endswith("table.weight")]
    return rows[0] - 1 if rows else 0


def _unpack(
    weights: Arrays, shape: Shape, sizes: Encoding, video: VideoModel, shift: float, *, adapted: bool
) -> SmallModel:
    """Make the modules from a run's weights."""
    encoder = sizes.build(shape.signals, shape.embedding, shape.conditions, video.text)
    generator = video.generator(shape.latent, shift)
    for name, adapter in shape.adapters.items():
        adapters.inject(generator, "transformer", name, adapter)
    frames = FrameNet(shape.embedding)
    pooling = encoder.frame_pooling(shape.frames)
    for part, module in zip(_PARTS, (encoder, generator.transformer, frames, pooling), strict=True):
        module.load_state_dict(_part(weights, part))
    take_memory(encoder, weights)
    learned = of_student(weights)
    if not adapted:
        adapters.remove(generator.transformer)
    elif learned:
        add_spans(generator.transformer)
        put_on(generator.transformer, learned)
    return SmallModel(
        encoder=encoder.eval(),
        video=generator.eval(),
        decoder=any_decoder_of(weights),
        frames=frames.eval(),
        pooling=pooling.eval(),
        distilled=adapted and bool(learned),
    )
