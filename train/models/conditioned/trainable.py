"""What is trained, and its losses: captions to video, brains to embeddings, brains to video."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from train.models.conditioned.encoder import ConditionEncoder
from train.parts.generators.base import Generator
from train.parts.losses import Loss
from train.parts.losses.contrastive import Contrastive
from train.parts.losses.denoising import Denoising
from train.parts.losses.regression import Regression
from train.trainer.loop import Trainable

VIDEO = "video"
FRAME = "frame"
DENOISING = "denoising"
CAPTION = "caption"
# Names of the outputs beside the class vectors of the modalities.
FRAMES = "frames"
TEXT = "text"
TOKENS = "tokens"
# Name of a contrastive loss -> the two outputs that it brings together.
Contrasts = Mapping[str, tuple[str, str]]


class Captioned(Trainable):
    """A video model under the words of captions, for the pretraining of one that is not to be had.

    Its losses are ``video``, under the words of each clip, and ``frame``, of one frame of each by itself.

    Parameters
    ----------
    video : Generator
        The video model that is pretrained.
    words : nn.Module
        From the words of a batch to the tokens that the video model reads: a `WordTable`, or the identity
        where a batch holds these tokens.
    """

    offered = (VIDEO, FRAME)

    def __init__(self, video: Generator, words: nn.Module) -> None:
        super().__init__()
        self.video = video
        self.words = words

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the loss of ``latents`` under ``words``, with ``noise`` at ``level``."""
        outputs = {TOKENS: self.words(batch["words"])}
        return {name: Denoising(self.video)(outputs, batch) for name in names}


class BrainVideo(Trainable):
    """The brain encoder, the video model that it conditions, and what its class vectors are compared with.

    It offers the contrasts and the other losses by their names, ``denoising``, and with words ``caption``:
    the error of the condition's tokens as tokens of the caption.

    Parameters
    ----------
    encoder : ConditionEncoder
        Makes tokens and class vectors of signals.
    video : Generator
        Learns to draw latents under these tokens.
    pooling : nn.Module
        From the embeddings of a clip's frames to one of length 1, see `ConditionEncoder.frame_pooling`.
    contrasts : mapping
        Name of a loss -> the two that it compares: class vectors and what else the encoder predicts by their
        names, ``frames`` (embeddings of a clip's frames, pooled), ``text`` (embedding of its caption), and
        targets of the batch.
    temperature : float, optional
        Of the contrasts; learned by default.
    extra_losses : mapping, optional
        Name of a loss -> another one, which reads predictions of the encoder and targets of the batch.
    normalised : bool
        Whether class vectors are brought to length 1 before they are compared.
    words : nn.Module, optional
        The words under which the video model was pretrained: a `WordTable`, or the identity where a batch
        holds their tokens.
    """

    def __init__(
        self,
        encoder: ConditionEncoder,
        video: Generator,
        pooling: nn.Module,
        contrasts: Contrasts,
        *,
        temperature: float | None = None,
        extra_losses: Mapping[str, Loss] | None = None,
        normalised: bool = True,
        words: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.offered = losses_with(contrasts, extra_losses or {})
        self.encoder = encoder
        self.video = video
        self.pooling = pooling
        self.pairs = contrasts
        self.contrasts = nn.ModuleDict(
            {name: Contrastive(*pair, temperature) for name, pair in contrasts.items()}
        )
        self.normalised = normalised
        self.words = words
        self.other_losses: dict[str, Loss] = {
            DENOISING: Denoising(video),
            CAPTION: Regression(TOKENS, CAPTION),
            **(extra_losses or {}),
        }

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names.

        The batch holds the signals with their masks; for contrasts ``frames`` and ``text``, the embeddings,
        and further targets by their names; for ``denoising`` the clips' ``latents``, ``noise`` and ``level``;
        for ``caption`` its ``words``.
        """
        reads_condition = DENOISING in names or CAPTION in names
        encoded = self.encoder(batch) if reads_condition else self.encoder.without_condition(batch)
        outputs = {TOKENS: encoded.tokens, **encoded.predicted}
        if CAPTION in names:
            assert self.words is not None
            outputs[CAPTION] = self.words(batch["words"])
        losses = {name: loss(outputs, batch) for name, loss in self.other_losses.items() if name in names}
        compared = [name for name in names if name in self.contrasts]
        if compared:
            outputs |= {name: self._scaled(vectors) for name, vectors in encoded.classes.items()}
            outputs[FRAMES] = self.pooling(batch[FRAMES])
            sides = {side for name in compared for side in self.pairs[name]}
            for side in sides - {FRAMES, *encoded.classes}:
                vectors = encoded.predicted[side] if side in encoded.predicted else batch[side]
                outputs[side] = functional.normalize(vectors, dim=1)
        return losses | {name: self.contrasts[name](outputs, batch) for name in compared}

    def _scaled(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=1) if self.normalised else vectors


def losses_with(contrasts: Contrasts, extra_losses: Iterable[str] = ()) -> tuple[str, ...]:
    """Name all losses of a `BrainVideo` with some contrasts and further losses."""
    return (*contrasts, DENOISING, CAPTION, *extra_losses)


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Leave out dropout inside a ``with`` block; each part is then in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    yield
    for part, mode in modes:
        part.training = mode
