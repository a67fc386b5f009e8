"""Held-out windows that the video model draws, in the form that `train.closed_form.tuning` takes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.scores.accuracy import psnr
from train.closed_form.refine import ROUTES
from train.closed_form.tuning import TrialClips
from train.config.run_context import Arrays
from train.metrics.pixels import gradient_energy
from train.models.compact.batches import Clips
from train.models.compact.encoder import CARRIED, CompactEncoder
from train.models.compact.evidence import COLUMNS, COUNT
from train.models.compact.flow import Denoiser
from train.models.compact.system import sample
from train.parts.codecs.fitted_patch import decode, decoder_of

# Clips that are drawn at once, to bound the memory.
_AT_ONCE = 20


class HeldOutClips:
    """Clips of sessions that neither encoder nor flow was trained on, drawn from what their signals tell.

    They are drawn without carry, and the codec's reconstruction stands for the truth.

    Parameters
    ----------
    encoder : CompactEncoder
        Makes the condition of the flow, and says how much each clip is doubted.
    codec : dict
        Decodes latents, see `train.parts.codecs.fitted_patch.fit_codec`.
    clips : Clips
        All clips of these sessions.
    measured : (clip, number)
        Evidence of their windows, see `train.models.compact.evidence`.
    sampler : callable
        Settings -> the sampler that draws under them.
    steps : int
        Number of its steps.
    max_clips : int
        At most so many clips are drawn, evenly spread over the sessions.
    """

    settings: Mapping[str, Sequence[float]] = {
        "guidance": (1.0, 1.5, 2.0, 3.0),
        "calm": (0.0, 0.5, 0.8, 1.0),
        # Given by recipes, and not tuned: `benchmarks.experiments.detail` shows what each share costs.
        "detail": (1.0,),
    }
    routes: Sequence[str] = ROUTES
    preferred: str = "psnr"

    def __init__(
        self,
        encoder: CompactEncoder,
        codec: Arrays,
        clips: Clips,
        measured: NDArray[np.float64],
        sampler: Callable[[Mapping[str, float]], Denoiser],
        steps: int,
        max_clips: int,
    ) -> None:
        self._encoder = encoder
        self._sampler = sampler
        self._steps = steps
        self._decoder = decoder_of(codec)
        stride = -(-len(clips.joined) // max_clips)
        self._latents = clips.latents[::stride].astype(np.float32)
        self._glimpses = {route: glimpses[::stride] for route, glimpses in clips.glimpses.items()}
        self._cuts = torch.from_numpy(clips.cuts_told[::stride])
        self._measured = torch.from_numpy(measured[::stride].astype(np.float32))
        self.sessions = clips.sessions[::stride]
        self.truths = decode(self._decoder, self._latents)
        self.mean_clip = codec["mean_clip"]

    @torch.no_grad()
    def draw(self, route: str, settings: Mapping[str, float]) -> TrialClips:
        """Draw every clip from the glimpses of one route."""
        mask = torch.zeros(COUNT)
        mask[COLUMNS[route]] = 1
        encoder = self._encoder
        denoiser = self._sampler(settings)
        # The same noise for all settings, so that they differ in nothing else.
        rng = np.random.default_rng(0)
        latents: list[NDArray[np.float32]] = []
        doubt: list[NDArray[np.float64]] = []
        for n in range(0, len(self._latents), _AT_ONCE):
            glimpses = torch.from_numpy(self._glimpses[route][n : n + _AT_ONCE])
            way = torch.eye(len(ROUTES))[ROUTES.index(route)].expand(len(glimpses), -1)
            start = torch.from_numpy(rng.standard_normal(self._latents[n : n + _AT_ONCE].shape, np.float32))
            blank = torch.zeros_like(start[:, :, -CARRIED:])
            cuts = self._cuts[n : n + _AT_ONCE]
            condition, embedding = encoder.condition(glimpses, cuts, way, blank, torch.zeros(len(way), 1))
            latents.append(sample(denoiser, start, condition, embedding, self._steps).numpy())
            # A number that a route does not have is 0 for all windows, and so it gets no weight.
            measured = self._measured[n : n + _AT_ONCE] * mask
            doubt.append(encoder.doubt(glimpses, measured).numpy().astype(np.float64))
        return TrialClips(decode(self._decoder, np.concatenate(latents)), np.concatenate(doubt))

    def figures(self, clips: NDArray[np.uint8]) -> dict[str, float]:
        """Return PSNR against the codec's clips, dB, and how sharp the clips are beside those."""
        sharpness = float(gradient_energy(list(clips)).mean() / gradient_energy(list(self.truths)).mean())
        # Grain is as sharp as the film and nothing like it, so sharpness chooses nothing.
        return {"sharpness": sharpness, self.preferred: float(psnr(clips, self.truths).mean())}
