"""The image U-Net of Stable Diffusion 1.5 over the frames of a clip, as Chen et al. 2023 use it.

They (arXiv:2305.11675, section 3.4) make a video model of an image model. Convolutions and the
attention to the condition work on each frame by itself, and so frames lie in the batch of diffusers'
``UNet2DConditionModel``. The attention within a frame looks at the two frames before it instead, and at the
end of each transformer block stands an attention over the frames of a place, whose output map begins at zero.
All names of the published weights stay, and `over_frames` adds ``norm_temp`` and ``attn_temp``.
"""

from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional


class EarlierFrames:
    """A processor by which the tokens of frame i look at those of frames i - 2 and i - 1.

    Before the first frame stands the first frame: it looks at itself, and the second one at the first.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frames: int = 1,
    ) -> Tensor:
        """Let tokens (clip * frame, token, width) look at earlier frames; `frames` is their number a clip."""
        clips = hidden_states.unflatten(0, (-1, frames))
        numbers = torch.arange(frames, device=hidden_states.device)
        before = [clips[:, (numbers - back).clamp(min=0)] for back in (2, 1)]
        context = torch.cat(before, dim=2).flatten(0, 1)
        return attend(attn, hidden_states, context)


class SameFrame:
    """A processor by which tokens look at what conditions them, frame by frame."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Let tokens (row, token, width) look at others (row, other, context), or at themselves."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return attend(attn, hidden_states, context)


def attend(attn: Any, tokens: Tensor, context: Tensor) -> Tensor:
    """Compute an attention of diffusers, of tokens (row, token, width) to others (row, other, context)."""
    query = attn.to_q(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2)
    key = attn.to_k(context).unflatten(2, (attn.heads, -1)).transpose(1, 2)
    value = attn.to_v(context).unflatten(2, (attn.heads, -1)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


class FramesBlock(BasicTransformerBlock):
    """A transformer block of a U-Net whose tokens also attend over the frames of a clip."""

    norm_temp: nn.LayerNorm
    attn_temp: Attention

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        class_labels: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Add to tokens (clip * frame, token, width)."""
        frames = (cross_attention_kwargs or {})["frames"]
        assert self.attn2 is not None
        assert self.norm2 is not None
        assert self.norm3 is not None
        tokens = hidden_states
        tokens = tokens + self.attn1(self.norm1(tokens), frames=frames)
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states=encoder_hidden_states)
        tokens = tokens + self.ff(self.norm3(tokens))
        # An image has no other frames: what learns from images is the image model alone.
        if frames == 1:
            return tokens
        # (clip * token, frame, width): over the frames of each place.
        places = tokens.unflatten(0, (-1, frames)).transpose(1, 2)
        courses = places.flatten(0, 1)
        courses = courses + self.attn_temp(self.norm_temp(courses))
        return courses.unflatten(0, places.shape[:2]).transpose(1, 2).flatten(0, 1)


def over_frames(unet: UNet2DConditionModel) -> None:
    """Make a video model of an image model, in place.

    Its call then takes ``cross_attention_kwargs={"frames": n}``, with n frames of each clip after each other
    in the batch. With one frame it is the image model.
    """
    for module in list(unet.modules()):
        if type(module) is not BasicTransformerBlock:
            continue
        within = module.attn1
        width = within.query_dim
        module.norm_temp = nn.LayerNorm(width)
        module.attn_temp = Attention(width, heads=within.heads, dim_head=within.inner_dim // within.heads)
        _silence(module.attn_temp)
        # diffusers' annotation lists its own processors alone.
        processors: dict[Any, Any] = {
            within: EarlierFrames(),
            module.attn2: SameFrame(),
            module.attn_temp: SameFrame(),
        }
        for attention, processor in processors.items():
            attention.set_processor(processor)
        weight = within.to_q.weight
        module.norm_temp.to(weight.device, weight.dtype)
        module.attn_temp.to(weight.device, weight.dtype)
        module.__class__ = FramesBlock


def _silence(attention: Any) -> None:
    """Let the output map of an attention begin at zero."""
    out = attention.to_out[0]
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)
