"""The brain encoder: from windows of EEG and fMRI to what the video flow is conditioned on.

Both signals are reduced to features, and linear maps take the features to points of a space of pictures and
attributes. A perceptron refines the point, which then becomes a map (the clip that the signals draw, the end
of the clip before, a remembered surround), an embedding, and a confidence. Only the tokens are trained with
the flow; everything else was fitted before.
"""

import numpy as np
import torch
from torch import Tensor, nn

from rtdecode.phantom.film.film import ATTRIBUTES
from train.closed_form.refine import PREFIX, ROUTES, perceptron
from train.closed_form.space import SIZES
from train.models.compact.codec import to_patches
from train.models.compact.refiner import Refiner
from train.work import Arrays

# The attributes that a single latent frame shows well enough to compare two clips by them.
COMPARED = ("color", "background")
SEAM_FEATURES = len(COMPARED) + 2
# Latent frames that are carried over from the clip before. `stand_still` needs two of them: from one
# alone, the video frame that it shows was 4.2 grey levels off, from two 1.4.
CARRIED = 2
# Rows and columns of the corners of a latent frame.
CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])
# Weight of a remembered surround's nearness against the probability of its kind.
_NEAR = 0.5
# Enlarges the probabilities until all of them together weigh about as much as all components, whose
# variance is 1. Without it the flow drew half of the discs as squares.
_LOUD = 4.0
# The parts that are learned with the flow. Everything else was fitted before and stands still.
LEARNED = ("tokens", "null_eeg", "null_fmri")


class BrainEncoder(nn.Module):
    """Encode windows. This is what ``encode.onnx`` computes.

    A window takes one of three routes, by the modalities it has: ``both``, ``fmri`` or ``eeg``. Each
    route has its own linear map into the space of `train.closed_form.space`. A perceptron refines the points
    that the maps lead to (`train.models.compact.refiner`), and gives the probabilities of what is shown.

    The signals tell the phase of a texture badly, and a small flow does not invent one in four steps. So
    the encoder remembers surrounds (the corners) of training clips, and takes the one that best fits what
    the signals say.

    Parameters
    ----------
    arrays : dict
        The fitted weights, by name:

        - ``voxels`` (voxel, component), ``mixing`` (component, channel), ``cosines`` (sample, frequency) and
          ``{modality}_feature_mean`` make the features.
        - ``{route}_{modality}`` (feature, target) are the linear maps, ``basis`` (component, latent) draws
          the components, and ``refiner.*`` is the state of the perceptron.
        - ``heat`` (route,) divides the logits of each route. ``reads`` ([fmri, eeg]) is 1 for the modalities
          that are read.
        - ``seam_frame`` (channel, channel), ``seam_offset`` (channel, 1, row, column),
          ``discriminant_carry`` (latent, value), ``offset_carry`` (value,) and ``seam_{route}`` (feature,)
          tell whether the clip continues the one before.
        - ``confidence_{route}`` (feature,) are the weights of the confidence.
        - For ``bank``, ``bank_values`` and ``corner_mean`` see `train.models.compact.build.memory`, for
          ``still_weight`` and ``still_bias`` `train.models.compact.codec.fit_still`.
        - ``latent_shape``.

        Arrays in half precision stay in half precision.
    embedding : int
    sharpness : float
        Power of the probabilities. Above 1, the clip commits itself to the likeliest values.
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
    heat: Tensor
    reads: Tensor
    seam_frame: Tensor
    seam_offset: Tensor
    discriminant_carry: Tensor
    offset_carry: Tensor
    bank: Tensor
    bank_values: Tensor
    corner_mean: Tensor
    still_weight: Tensor
    still_bias: Tensor

    def __init__(self, arrays: Arrays, embedding: int, sharpness: float = 1.0) -> None:
        super().__init__()
        self.shape = [int(n) for n in arrays["latent_shape"]]
        self.sharpness = sharpness
        for name, value in arrays.items():
            if name != "latent_shape" and not name.startswith(PREFIX):
                kept = value if value.dtype == np.float16 else value.astype(np.float32)
                # A copy: what is written into a buffer later must not reach the caller's array.
                self.register_buffer(name, torch.from_numpy(kept.copy()))
        self.components = len(arrays["basis"])
        self.refiner = Refiner.load(perceptron(arrays))
        self.tokens = nn.Sequential(
            nn.Linear(self.components + sum(SIZES), embedding), nn.SiLU(), nn.Linear(embedding, embedding)
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
    ) -> tuple[Tensor, Tensor, Tensor]:
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
        condition : (batch, 4 channels + 3, frame, row, column)
            In this order: the clip that the signals draw; the last latent frame of the clip before, and 1
            where this clip continues it; the surround, and 1 where it counts. The rest is for the sampler
            alone: the latent frame to begin with, which shows the last video frame before, and 1 where
            there is one.
        embedding : (batch, embedding)
        confidence : (batch, 1)
        """
        there = torch.cat([m.amax(1, keepdim=True) for m in (fmri_mask, eeg_mask)], 1) * self.reads
        route = routes(there)
        places = self.place(self.fmri_features(fmri, fmri_mask), self.eeg_features(eeg))
        point = self.refiner(places, route)
        condition, embedding, values = self.condition(point, route, carry, carry_mask)
        return condition, embedding, self.confidence(values, route)

    @property
    def null(self) -> Tensor:
        """The embedding without a brain, (embedding,)."""
        return self.null_eeg + self.null_fmri

    def fmri_features(self, fmri: Tensor, mask: Tensor) -> Tensor:
        """Reduce volumes. The mean of the window's other volumes stands in for one that is missing."""
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        mean = share[:, None] @ fmri
        whole = fmri + (1 - mask)[:, :, None] * mean
        return (whole @ self.voxels.float()).flatten(1) - self.fmri_feature_mean

    def eeg_features(self, eeg: Tensor) -> Tensor:
        """Reduce EEG to the coefficients of slow cosines in mixed channels."""
        return (self.mixing @ (eeg @ self.cosines)).flatten(1) - self.eeg_feature_mean

    def place(self, fmri: Tensor, eeg: Tensor) -> Tensor:
        """Map features into the space by every route, (batch, route, target)."""
        both = fmri @ self.both_fmri.float() + eeg @ self.both_eeg.float()
        return torch.stack([both, fmri @ self.fmri_fmri.float(), eeg @ self.eeg_eeg.float()], 1)

    def condition(
        self,
        point: Tensor,
        route: Tensor,
        carry: Tensor,
        carry_mask: Tensor,
        told: tuple[Tensor, Tensor] | None = None,
        surround: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn points of the space into what the flow is conditioned on.

        Parameters
        ----------
        point : (batch, component + value)
            Refined points: components of the latents and logits of the attributes' values.
        route : (batch, 3)
            One-hot, or zeros where there is no signal.
        carry, carry_mask
            As for `forward`.
        told : (batch, value) and (batch, 1), optional
            In training: the truth, which replaces the probabilities where the second is 1. From this the
            flow learns to trust probabilities the more, the surer they are.
        surround : (batch, channel, frame, corner) and (batch, 1), optional
            In training: the true corners in place of remembered ones, shown where the second is 1.

        Returns
        -------
        condition, embedding
            As `forward` returns them.
        values : (batch, value)
            Probabilities of the attributes' values.
        """
        values = self.probabilities(point, route, self.sharpness)
        drawn = self.draw(point)
        # The seam test was fitted on probabilities that were not sharpened.
        plain = self.probabilities(point, route, 1.0)
        last = carry[:, :, -1:]
        used = carry_mask * (self.continues(drawn, plain, route, last) > 0.5).float()
        flag = used[:, :, None, None, None]
        frames = self.shape[1]
        if told is not None:
            truth, tell = told
            values = tell * truth + (1 - tell) * values
        known = carry_mask[:, :, None, None, None]
        held = (last * flag).expand(-1, -1, frames, -1, -1)
        start = (self.stand_still(carry) * known).expand(-1, -1, frames, -1, -1)
        sign = flag.expand(-1, 1, *self.shape[1:])
        # A clip that continues the one before takes its surround from there.
        corners, seen = self.remember(values, drawn, route) if surround is None else surround
        around = self.around(corners - self.corner_mean, seen * (1 - used))
        there = known.expand(-1, 1, *self.shape[1:])
        condition = torch.cat([drawn, held, sign, around, start, there], 1)
        # The routes are both, fmri, eeg, in this order.
        has_fmri = route[:, :1] + route[:, 1:2]
        has_eeg = route[:, :1] + route[:, 2:]
        told_of = self.tokens(torch.cat([point[:, : self.components], _LOUD * values], 1))
        told_of = told_of * route.sum(1, keepdim=True)
        embedding = told_of + (1 - has_eeg) * self.null_eeg + (1 - has_fmri) * self.null_fmri
        return condition, embedding, values

    def draw(self, point: Tensor) -> Tensor:
        """Draw the latents of the components alone, without the latents' mean."""
        return (point[:, : self.components] @ self.basis.float()).view(-1, *self.shape)

    def probabilities(self, point: Tensor, route: Tensor, sharpness: float) -> Tensor:
        """Return the probability of each attribute's values, (batch, value); uniform without a signal."""
        # Without a signal the heat is 0, as are the logits: the clamp then makes the softmax uniform.
        heat = (route * self.heat).sum(1, keepdim=True).clamp(min=1e-3)
        logits = point[:, self.components :] / heat
        parts = torch.split(sharpness * logits, SIZES, 1)
        return torch.cat([part.softmax(1) for part in parts], 1)

    def remember(self, values: Tensor, drawn: Tensor, route: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corners that fit best, (batch, channel, frame, corner), and whether to use them."""
        here = drawn[..., CORNERS[0], CORNERS[1]].flatten(1)
        bank = self.bank.float()
        # Mean squared difference of every window from every row of the bank, as |a|^2 + |b|^2 - 2 a b.
        apart = (
            here.square().mean(1, keepdim=True) + bank.square().mean(1)
        ) - 2 * here @ bank.T / bank.shape[1]
        # Clamped before the logarithm: the exporter to ONNX would drop the addition of 1e-9.
        fit = values.clamp(min=1e-6).log() @ self.bank_values.T - _NEAR * apart
        best = fit.argmax(1)
        return bank[best].view(-1, *self.shape[:2], 4) + self.corner_mean, route.sum(1, keepdim=True)

    def around(self, corners: Tensor, seen: Tensor) -> Tensor:
        """Lay corners out as a map of zeros, with a flag: (batch, channel + 1, frame, row, column)."""
        _, frames, rows, columns = self.shape
        flag = seen[:, :, None, None, None]
        top, bottom = (
            torch.cat([pair[..., :1], pair.new_zeros(*pair.shape[:-1], columns - 2), pair[..., 1:]], -1)
            for pair in (corners[..., :2], corners[..., 2:])
        )
        blank = top.new_zeros(*top.shape[:3], rows - 2, columns)
        laid = torch.cat([top[..., None, :], blank, bottom[..., None, :]], -2)
        return torch.cat([laid * flag, flag.expand(-1, 1, frames, rows, columns)], 1)

    def stand_still(self, carry: Tensor) -> Tensor:
        """Return a latent frame 0 that shows the end of the clip before, (batch, channel, 1, row, column)."""
        both = torch.cat([carry[:, :, 1], carry[:, :, 0]], 1)
        return to_patches(both, self.still_weight, self.still_bias)[:, :, None]

    def continues(self, drawn: Tensor, values: Tensor, route: Tensor, carry: Tensor) -> Tensor:
        """Return the probability that the clip continues the one before, (batch, 1)."""
        features = self.seam_features(drawn, values, carry)
        weights = route @ torch.stack([self.get_buffer(f"seam_{name}") for name in ROUTES])
        return (features * weights[:, :-1]).sum(1, keepdim=True).add(weights[:, -1:]).sigmoid()

    def seam_features(self, drawn: Tensor, values: Tensor, carry: Tensor) -> Tensor:
        """Compare the clip, as the signals tell it, with the end of the one before.

        Returns
        -------
        (batch, compared + 2)
            The log probability that each of `COMPARED` is the same in both clips, where a discriminant reads
            the end of the clip before; the squared difference between the mean colours of the first frame
            drawn and the last one before; the correlation of these two frames.
        """
        logits = carry.flatten(1) @ self.discriminant_carry.float() + self.offset_carry
        before = [part.softmax(1) for part in torch.split(logits, SIZES, 1)]
        pairs = zip(ATTRIBUTES, torch.split(values, SIZES, 1), before, strict=True)
        same = [(now * then).sum(1).clamp(min=1e-3).log() for name, now, then in pairs if name in COMPARED]
        last = torch.einsum("oi,bihw->bohw", self.seam_frame, carry[:, :, 0]) + self.seam_offset[:, 0]
        first = drawn[:, :, 0]
        apart = (last - first).mean((2, 3)).square().sum(1)
        size = last.square().sum((1, 2, 3)) * first.square().sum((1, 2, 3))
        alike = (last * first).sum((1, 2, 3)) / size.clamp(min=1e-6).sqrt()
        return torch.stack([*same, apart, alike], 1)

    def confidence(self, values: Tensor, route: Tensor) -> Tensor:
        """Return the probability that the clip wins its 2-way identification, (batch, 1)."""
        weights = route @ torch.stack([self.get_buffer(f"confidence_{name}") for name in ROUTES])
        return (self.doubt(values) * weights[:, :-1]).sum(1, keepdim=True).add(weights[:, -1:]).sigmoid()

    def doubt(self, values: Tensor) -> Tensor:
        """Return the entropy of each attribute's probabilities, from 0 to 1, (batch, attribute)."""
        parts = torch.split(values, SIZES, 1)
        found = [-(p * p.clamp(min=1e-9).log()).sum(1) / np.log(p.shape[1]) for p in parts]
        return torch.stack(found, 1)


def routes(there: Tensor) -> Tensor:
    """Return the one-hot route (both, fmri, eeg) of which modalities are there, (batch, [fmri, eeg]).

    A window without any modality has zeros.
    """
    fmri = there[:, :1]
    eeg = there[:, 1:]
    return torch.cat([fmri * eeg, fmri * (1 - eeg), eeg * (1 - fmri)], 1)
