"""What CineSync trains, and its losses: captions to video, brains to embeddings, brains to video."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.loop import Trainable
from train.models.cinesync.encoder import BrainEncoder
from train.parts.generators.cogvideox import VideoDiffusion
from train.parts.losses.contrastive import Contrast
from train.parts.text.words import WordTable

# The five contrastive terms: what each brings together.
CONTRASTS = {
    "fmri_frames": ("fmri", "frames"),
    "fmri_text": ("fmri", "text"),
    "eeg_frames": ("eeg", "frames"),
    "eeg_text": ("eeg", "text"),
    "fmri_eeg": ("fmri", "eeg"),
}
VIDEO = "video"
DENOISING = "denoising"
CAPTION = "caption"


class Captioned(Trainable):
    """A video model under the words of captions, for the pretraining of one that is not to be had.

    Its loss is ``video``, under the words of each clip.
    """

    offered = (VIDEO,)

    def __init__(self, video: VideoDiffusion, words: WordTable) -> None:
        super().__init__()
        self.video = video
        self.words = words

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the loss of ``latents`` under ``words``, with ``noise`` at ``level``."""
        tokens = self.words(batch["words"])
        return {VIDEO: self.video.loss(batch["latents"], batch["noise"], batch["level"], tokens)}


class FramePooling(nn.Module):
    """One vector for a clip from those of its frames, by learned weights that are the same for all clips.

    CineSync's code has it as a convolution from 33 frames to one.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((frames,), 1 / frames))

    def forward(self, frames: Tensor) -> Tensor:
        """Pool (clip, frame, embedding) to (clip, embedding) of length 1."""
        return functional.normalize((self.weights[:, None] * frames).sum(1), dim=1)


class BrainVideo(Trainable):
    """The brain encoder, the video model that it conditions, and what its class vectors are compared with.

    Parameters
    ----------
    encoder : BrainEncoder
    video : VideoDiffusion
    frames : int
        Frames of a clip that are embedded.
    normalised : bool
        Whether class vectors are brought to length 1 before they are compared. CineSync's code does not.
    words : WordTable, optional
        The words under which the video model was pretrained. With them there is the loss ``caption``.
    """

    offered = (*CONTRASTS, DENOISING, CAPTION)

    def __init__(
        self,
        encoder: BrainEncoder,
        video: VideoDiffusion,
        frames: int,
        *,
        normalised: bool = True,
        words: WordTable | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.video = video
        self.pooling = FramePooling(frames)
        self.contrasts = nn.ModuleDict({name: Contrast() for name in CONTRASTS})
        self.normalised = normalised
        self.words = words

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the losses with these names.

        The batch holds the signals with their masks; for contrastive terms ``frames`` and ``text``, the
        embeddings; for ``denoising`` the clips' ``latents``, ``noise`` and ``level``; for ``caption``, the
        error of the condition's tokens as tokens of the caption, its ``words``.
        """
        encoded = self.encoder(batch)
        found: dict[str, Tensor] = {}
        if DENOISING in names:
            found[DENOISING] = self.video.loss(
                batch["latents"], batch["noise"], batch["level"], encoded.tokens
            )
        if CAPTION in names:
            assert self.words is not None
            found[CAPTION] = (encoded.tokens - self.words(batch["words"])).square().mean()
        compared = [name for name in names if name in CONTRASTS]
        if compared:
            vectors = {name: self._brought(x) for name, x in encoded.classes.items()}
            vectors["frames"] = self.pooling(batch["frames"])
            vectors["text"] = functional.normalize(batch["text"], dim=1)
            for name in compared:
                one, other = CONTRASTS[name]
                found[name] = self.contrasts[name](vectors[one], vectors[other])
        return found

    def _brought(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=1) if self.normalised else vectors
