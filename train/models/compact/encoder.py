"""The brain encoder: from windows of EEG and fMRI to what the video flow is conditioned on.

Both signals are reduced to features, and linear maps take the features to points of a space of pictures
(`train.closed_form.film_space`). The EEG also tells when the film cuts, and by the onset of a shot what it
shows. A perceptron makes of all this what each latent frame shows, a glimpse. Glimpses then become a map (the
clip that the signals draw, how it varies, the end of the clip before), an embedding, and a confidence. Only
the tokens are trained with the flow; everything else was fitted before.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.closed_form.cuts import BINS, TAPS
from train.closed_form.patch_codec import FRAMES
from train.closed_form.refine import PREFIX, ROUTES, perceptron
from train.closed_form.structure import CHANNELS
from train.config.run_context import Arrays
from train.models.compact import evidence
from train.models.compact.refiner import Refiner
from train.parts.codecs.patch import to_patches

SEAM_FEATURES = 3
# Numbers that the confidence is computed from: two sizes of the glimpses, and the evidence.
DOUBT = 2 + evidence.COUNT
# Latent frames that are carried over from the clip before. `stand_still` needs two of them: from one
# alone, the video frame that it shows was 4.2 grey levels off, from two 1.4.
CARRIED = 2
# Probability that a clip continues the one before, below which it begins with a cut. Above it the sampler
# lets it dissolve from the one before, which is less wrong where nothing was cut.
_CUT = 0.1
# The parts that are learned with the flow. Everything else was fitted before and stands still.
LEARNED = ("tokens", "null_eeg", "null_fmri")


class CompactEncoder(nn.Module):
    """Encode windows. This is what ``encode.onnx`` computes.

    A window takes one of three routes, by the modalities it has: ``both``, ``fmri`` or ``eeg``. Each
    route has its own linear map into the space of `train.closed_form.film_space`. A perceptron refines the
    glimpses that the points stand for (`train.models.compact.refiner`).

    Parameters
    ----------
    arrays : dict
        The fitted weights, by name:

        - ``voxels`` (voxel, component), ``mixing`` (component, channel), ``cosines`` (sample, frequency) and
          ``{modality}_feature_mean`` make the features.
        - ``{route}_{modality}`` (feature, component) are the linear maps, ``basis`` (component, frame and
          value) draws glimpses from a point, ``pictures`` (picture, latent) and ``varied`` (variation, value)
          draw a frame's latents and structure tensor from a glimpse, ``latent_mean`` (latent,) is their mean,
          and ``refiner.*`` is the state of the perceptron.
        - ``reads`` ([fmri, eeg]) is 1 for the modalities that are read.
        - ``cut_bins`` (sample, bin), ``cut_kernel`` and ``cut_offset`` tell when the film cuts, see
          `train.closed_form.cuts`; ``onset_kernel`` and ``onset_offset`` tell what a shot shows, see
          `train.closed_form.onsets`.
        - ``seam_frame`` (channel, channel), ``seam_offset`` (channel, 1, row, column) and ``seam_{route}``
          (feature,) tell whether the clip continues the one before.
        - ``evidence.*`` are the arrays of `train.models.compact.evidence.Evidence`. ``neither_{route}`` and
          ``inconsistent`` are weights of its numbers, their squares and an offset, see
          `train.models.compact.presence`; ``confidence_{route}`` are the weights of the confidence.
        - For ``still_weight`` and ``still_bias`` see `train.parts.codecs.patch.fit_still`.
        - ``latent_shape``.

    embedding : int
        Width of the pooled condition.
    """

    voxels: Tensor
    mixing: Tensor
    cosines: Tensor
    fmri_feature_mean: Tensor
    eeg_feature_mean: Tensor
    both_fmri: Tensor
    both_eeg: Tensor
    fmri_fmri: Tensor
    eeg_eeg: Tensor
    basis: Tensor
    pictures: Tensor
    latent_mean: Tensor
    varied: Tensor
    reads: Tensor
    cut_bins: Tensor
    cut_kernel: Tensor
    cut_offset: Tensor
    onset_kernel: Tensor
    onset_offset: Tensor
    inconsistent: Tensor
    seam_frame: Tensor
    seam_offset: Tensor
    still_weight: Tensor
    still_bias: Tensor

    def __init__(self, arrays: Arrays, embedding: int) -> None:
        super().__init__()
        self.shape = [int(n) for n in arrays["latent_shape"]]
        for name, value in arrays.items():
            if name != "latent_shape" and not name.startswith((PREFIX, evidence.PREFIX)):
                # A copy: what is written into a buffer later must not reach the caller's array. In single
                # precision, because the exporter drops the name of what it casts itself.
                self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))
        self.refiner = Refiner.load(perceptron(arrays), self.shape[1])
        measured = {
            name.removeprefix(evidence.PREFIX): value
            for name, value in arrays.items()
            if name.startswith(evidence.PREFIX)
        }
        self.evidence = evidence.Evidence(measured, len(arrays["mixing"]))
        self.tokens = nn.Sequential(
            nn.Linear(arrays["basis"].shape[1], embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.null_eeg = nn.Parameter(0.02 * torch.randn(embedding))
        self.null_fmri = nn.Parameter(0.02 * torch.randn(embedding))

    def forward(
        self,
        eeg: Tensor,
        eeg_mask: Tensor,
        fmri: Tensor,
        fmri_mask: Tensor,
        carry: Tensor,
        carry_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """Encode windows.

        Parameters
        ----------
        eeg, eeg_mask, fmri, fmri_mask
            (batch, channel, sample), (batch, sample), (batch, slot, voxel), (batch, slot).
        carry : (batch, channel, 2, row, column)
            Last latent frames of the clip before.
        carry_mask : (batch, 1)
            1 where there is one.

        Returns
        -------
        condition : (batch, 3 channels + 12, frame, row, column)
            In this order: the clip that the signals draw; the last latent frame of the clip before, and 1
            where this clip continues it; the structure tensor that the signals draw; the probability of a
            cut at each of the four video frames of a latent frame, the same everywhere. The rest is for the
            sampler alone: the latent frame to begin with, which shows the last video frame before, and 1
            where there is one and the clip does not begin with a cut.
        embedding : (batch, embedding)
        confidence : (batch, 1)
        brain : (batch, 3)
            Probabilities that the window holds a brain that can be read, signals that do not belong together,
            or neither.
        brain_by : (batch, 2)
            For EEG and fMRI, whether the modality is one of a brain that can be read: 1 if it is, 0 if not
            or if there is none. Left out by weights of before 0.2.
        """
        has_signal = torch.cat([m.amax(1, keepdim=True) for m in (fmri_mask, eeg_mask)], 1) * self.reads
        route = routes(has_signal)
        volumes = self.without_holes(fmri, fmri_mask)
        of_fmri = self.fmri_features(volumes)
        of_eeg = self.eeg_features(eeg)
        places = self.place(of_fmri, of_eeg)
        cuts, onsets = self.shots(eeg)
        glimpses = self.refiner(self.led(places), cuts, onsets, route)
        measured, in_range = self.evidence(eeg, volumes, of_eeg, of_fmri, places, self.voxels)
        condition, embedding = self.condition(glimpses, cuts, route, carry, carry_mask)
        confidence = self.confidence(glimpses, measured, route)
        outputs = [condition, embedding, confidence, self.presence(measured, in_range, route)]
        return (*outputs, in_range * has_signal.flip(1)) if self.evidence.by_modality else tuple(outputs)

    def measure(self, eeg: Tensor, fmri: Tensor, fmri_mask: Tensor) -> Tensor:
        """Measure windows of both modalities, in the numbers' own units, (batch, number)."""
        volumes = self.without_holes(fmri, fmri_mask)
        of_fmri = self.fmri_features(volumes)
        of_eeg = self.eeg_features(eeg)
        return self.evidence.raw(eeg, volumes, of_eeg, of_fmri, self.place(of_fmri, of_eeg), self.voxels)

    @property
    def null(self) -> Tensor:
        """The embedding without a brain, (embedding,)."""
        return self.null_eeg + self.null_fmri

    @property
    def flow_channels(self) -> int:
        """Number of channels of the condition that the flow sees."""
        return 2 * self.shape[0] + 1 + CHANNELS + FRAMES

    def without_holes(self, fmri: Tensor, mask: Tensor) -> Tensor:
        """Put the mean of the window's other volumes where one is missing."""
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        mean = share[:, None] @ fmri
        return fmri + (1 - mask)[:, :, None] * mean

    def fmri_features(self, fmri: Tensor) -> Tensor:
        """Reduce volumes to components of the voxels."""
        return (fmri @ self.voxels).flatten(1) - self.fmri_feature_mean

    def eeg_features(self, eeg: Tensor) -> Tensor:
        """Reduce EEG to the coefficients of slow cosines in mixed channels."""
        return (self.mixing @ (eeg @ self.cosines)).flatten(1) - self.eeg_feature_mean

    def shots(self, eeg: Tensor) -> tuple[Tensor, Tensor]:
        """Tell of shots: the probability of a cut at each video frame, and what begins there if one does.

        Returns
        -------
        cuts : (batch, frame)
        onsets : (batch, frame, value)
        """
        mixed = functional.pad(self.mixing @ (eeg @ self.cut_bins), (0, TAPS - BINS))
        odds = functional.conv1d(mixed, self.cut_kernel, self.cut_offset, stride=BINS)[:, 0]
        onsets = functional.conv1d(mixed, self.onset_kernel, self.onset_offset, stride=BINS)
        return odds.sigmoid(), onsets.transpose(1, 2)

    def led(self, places: Tensor) -> Tensor:
        """Return the glimpses that points stand for, (batch, route, frame, value)."""
        return (places @ self.basis).unflatten(2, (self.shape[1], -1))

    def place(self, fmri: Tensor, eeg: Tensor) -> Tensor:
        """Map features into the space by every route, (batch, route, component)."""
        both = fmri @ self.both_fmri + eeg @ self.both_eeg
        return torch.stack([both, fmri @ self.fmri_fmri, eeg @ self.eeg_eeg], 1)

    @property
    def learned(self) -> dict[str, Tensor]:
        """What is learned with the flow, name -> value. Participants of one training share it."""
        return {name: value for name, value in self.state_dict().items() if name.split(".")[0] in LEARNED}

    @property
    def seams(self) -> Tensor:
        """The weights of the test for a seam, (route, feature and offset)."""
        return torch.stack([self.get_buffer(f"seam_{name}") for name in ROUTES])

    def condition(
        self,
        glimpses: Tensor,
        cuts: Tensor,
        route: Tensor,
        carry: Tensor,
        carry_mask: Tensor,
        seams: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Turn refined glimpses into what the flow is conditioned on.

        Parameters
        ----------
        glimpses : (batch, frame, value)
            What the signals tell of each latent frame, as `refiner` returns it.
        cuts : (batch, video frame)
            Probability of a cut. Ignored without EEG.
        route : (batch, 3)
            One-hot, or zeros where there is no signal.
        carry, carry_mask
            As for `forward`.
        seams : (route, feature and offset), optional
            Those of another participant, whose signals the glimpses come from. All else is shared.

        Returns
        -------
        condition, embedding
            As `forward` returns them.
        """
        # The routes are both, fmri, eeg, in this order.
        has_fmri = route[:, :1] + route[:, 1:2]
        has_eeg = route[:, :1] + route[:, 2:]
        eeg_cuts = has_eeg * cuts
        # Without any signal the flow does not even get the average film.
        latents = self.draw(glimpses) * route.sum(1).view(-1, 1, 1, 1, 1)
        last = carry[:, :, -1:]
        continuing = self.continues(eeg_cuts, latents, route, last, self.seams if seams is None else seams)
        flag = (carry_mask * (continuing > 0.5).float())[:, :, None, None, None]
        uncut = (carry_mask * (continuing > _CUT).float())[:, :, None, None, None]
        frames = self.shape[1]
        previous = (last * flag).expand(-1, -1, frames, -1, -1)
        start = (self.stand_still(carry) * uncut).expand(-1, -1, frames, -1, -1)
        sign = flag.expand(-1, 1, *self.shape[1:])
        start_mask = uncut.expand(-1, 1, *self.shape[1:])
        cut = self.draw_cuts(eeg_cuts)
        condition = torch.cat(
            [latents, previous, sign, self.draw_structure(glimpses), cut, start, start_mask], 1
        )
        tokens = self.tokens(glimpses.flatten(1)) * route.sum(1, keepdim=True)
        embedding = tokens + (1 - has_eeg) * self.null_eeg + (1 - has_fmri) * self.null_fmri
        return condition, embedding

    def draw(self, glimpses: Tensor) -> Tensor:
        """Draw the latents of glimpses, (batch, channel, frame, row, column)."""
        channels, _, *sides = self.shape
        frames = glimpses[:, :, : len(self.pictures)] @ self.pictures + self.latent_mean
        return frames.unflatten(2, (channels, *sides)).transpose(1, 2)

    def draw_structure(self, glimpses: Tensor) -> Tensor:
        """Draw the structure tensor, in its scale and without its mean, (batch, 6, frame, row, column)."""
        frames = glimpses[:, :, len(self.pictures) :] @ self.varied
        return frames.unflatten(2, (CHANNELS, *self.shape[2:])).transpose(1, 2)

    def draw_cuts(self, cuts: Tensor) -> Tensor:
        """Arrange the cuts of video frames on the grid of the latents, (batch, 4, frame, row, column)."""
        # Latent frame 0 is the first video frame alone, and the last one may end after the window.
        after = FRAMES * (self.shape[1] - 1) + 1 - cuts.shape[1]
        padded = functional.pad(cuts, (FRAMES - 1, after))
        frames = padded.unflatten(1, (self.shape[1], FRAMES)).transpose(1, 2)
        return frames[:, :, :, None, None].expand(-1, -1, *self.shape[1:])

    def stand_still(self, carry: Tensor) -> Tensor:
        """Return a latent frame 0 that shows the end of the clip before, (batch, channel, 1, row, column)."""
        both = torch.cat([carry[:, :, 1], carry[:, :, 0]], 1)
        return to_patches(both, self.still_weight, self.still_bias)[:, :, None]

    def continues(self, cuts: Tensor, latents: Tensor, route: Tensor, carry: Tensor, seams: Tensor) -> Tensor:
        """Return the probability that the clip continues the one before, (batch, 1)."""
        features = self.seam_features(cuts, latents, carry)
        weights = route @ seams
        return (features * weights[:, :-1]).sum(1, keepdim=True).add(weights[:, -1:]).sigmoid()

    def seam_features(self, cuts: Tensor, latents: Tensor, carry: Tensor) -> Tensor:
        """Compare the clip that the signals draw with the end of the one before.

        Returns
        -------
        (batch, 3)
            The probability of a cut at the first frame; the squared difference between the mean colours of
            the first frame drawn and the last one before; the correlation of these two frames about the mean
            picture.
        """
        last = torch.einsum("oi,bihw->bohw", self.seam_frame, carry[:, :, 0]) + self.seam_offset[:, 0]
        first = latents[:, :, 0]
        colour_difference = (last - first).mean((2, 3)).square().sum(1)
        mean = self.latent_mean.view_as(first[0])
        before = last - mean
        after = first - mean
        size = before.square().sum((1, 2, 3)) * after.square().sum((1, 2, 3))
        alike = (before * after).sum((1, 2, 3)) / size.clamp(min=1e-6).sqrt()
        return torch.stack([cuts[:, 0], colour_difference, alike], 1)

    def presence(self, measured: Tensor, in_range: Tensor, route: Tensor) -> Tensor:
        """Return the probabilities of a brain, of signals that do not belong together, and of neither.

        Parameters
        ----------
        measured, in_range
            As `evidence.Evidence` returns them.
        route : (batch, 3)
            One-hot, or zeros where there is no signal.
        """
        terms = torch.cat([measured, measured.square()], 1)
        weights = route @ torch.stack([self.get_buffer(f"neither_{name}") for name in ROUTES])
        nothing = (terms * weights[:, :-1]).sum(1, keepdim=True).add(weights[:, -1:]).sigmoid()
        # The regressions hold within what they were fitted to, and are believed nowhere else.
        of_eeg, of_fmri = in_range.split(1, 1)
        within = route[:, :1] * of_eeg * of_fmri + route[:, 1:2] * of_fmri + route[:, 2:] * of_eeg
        readable = within * (1 - nothing)
        inconsistent = (terms @ self.inconsistent[:-1, None] + self.inconsistent[-1]).sigmoid() * route[:, :1]
        return torch.cat([readable * (1 - inconsistent), readable * inconsistent, 1 - readable], 1)

    def confidence(self, glimpses: Tensor, measured: Tensor, route: Tensor) -> Tensor:
        """Return the probability that the clip wins its 2-way identification, (batch, 1)."""
        weights = route @ torch.stack([self.get_buffer(f"confidence_{name}") for name in ROUTES])
        doubt = self.doubt(glimpses, measured)
        return (doubt * weights[:, :-1]).sum(1, keepdim=True).add(weights[:, -1:]).sigmoid()

    def doubt(self, glimpses: Tensor, measured: Tensor) -> Tensor:
        """Return what the confidence is computed from, (batch, `DOUBT`)."""
        return torch.cat([self.sizes(glimpses), measured], 1)

    def sizes(self, glimpses: Tensor) -> Tensor:
        """Return the logarithms of the sizes of the latents' and the structure tensor's parts, (batch, 2).

        Glimpses lie near the mean where the signals say little, so their size measures what the signals say.
        """
        latent_size = glimpses[:, :, : len(self.pictures)].square().mean((1, 2))
        structure_size = glimpses[:, :, len(self.pictures) :].square().mean((1, 2))
        return torch.stack([latent_size, structure_size], 1).clamp(min=1e-6).log()


def routes(has_signal: Tensor) -> Tensor:
    """Return the one-hot route (both, fmri, eeg) by which modalities a window has, (batch, [fmri, eeg]).

    A window without any modality has zeros.
    """
    fmri = has_signal[:, :1]
    eeg = has_signal[:, 1:]
    return torch.cat([fmri * eeg, fmri * (1 - eeg), eeg * (1 - fmri)], 1)
