"""Attention with rotary positions by multiplication and addition alone, for transformers of diffusers.

diffusers writes turned values into slices of a tensor. In an ONNX graph that is ScatterND, several of them a
layer, which engines cannot fuse. The processors of this module compute the same values without it: give one
to ``set_attn_processor`` of the transformer that it is named after.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class WanAttention:
    """The attention of Wan without an image: of tokens among themselves, or to those that condition."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Let tokens (batch, token, width) look at themselves or at others (batch, other, width)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(context)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(context).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query = turned(query, *rotary_emb)
            key = turned(key, *rotary_emb)
        mixed = self.mixed(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attention_mask)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))

    def mixed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the values (batch, head, other, value) by attention."""
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class CogVideoXAttention:
    """The attention of CogVideoX: tokens that condition and those of the video, all among themselves."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the video's tokens and those that condition, (batch, token, width) each."""
        text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query = attn.norm_q(attn.to_q(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2))
        key = attn.norm_k(attn.to_k(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2))
        value = attn.to_v(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        if image_rotary_emb is not None:
            # Tokens that condition have no place in the video.
            query = torch.cat([query[:, :, :text], turned(query[:, :, text:], *image_rotary_emb)], dim=2)
            key = torch.cat([key[:, :, :text], turned(key[:, :, text:], *image_rotary_emb)], dim=2)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        attended = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return attended[:, text:], attended[:, :text]


def turned(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of neighbouring values by its angle (Su et al. 2021, arXiv:2104.09864, equation 34).

    Parameters
    ----------
    values : (..., 2 * pair)
        Queries or keys of an attention.
    cosines, sines : (..., 2 * pair)
        Each pair has the same one twice, as in diffusers.
    """
    first, second = values.unflatten(-1, (-1, 2)).unbind(-1)
    cosine = cosines[..., 0::2]
    sine = sines[..., 0::2]
    pairs = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return pairs.flatten(-2).to(values.dtype)
