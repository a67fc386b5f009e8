"""The mixture of memories of CineNeuron (section 3.2): what was watched before joins what the brain says.

`MixtureOfMemories` retrieves: a router weighs three similarities, to the text, the image and the action of
each entry of a pool, and the best entries are looked up. `Integration` joins them with the brain's embedding.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rtdecode.errors import UsageError
from train.parts.encoders.transformer import Attention

# The modalities of an entry, in the order of the router's weights.
TEXT = "text"
IMAGE = "image"
ACTION = "action"
KINDS = (TEXT, IMAGE, ACTION)
# What is made of the pool: everything, the text of the best entry alone, or nothing.
FULL = "full"
TEXT_ONLY = "text"
NONE = "none"
_USES = (FULL, TEXT_ONLY, NONE)
# Windows of one clip, or within this of each other in one film, show some of the same, s.
NEAR_S = 30.0
# Where the scale of the norm begins (SANA; Xie et al. 2025, arXiv:2410.10629).
_SCALE = 0.01
EXCLUDE = "exclude"
INCLUDE = "include"
# Which entries are looked up.
BEST = "best"
RANDOM = "random"


@dataclass(frozen=True)
class MemorySizes:
    """What is remembered, and what becomes of it.

    Attributes
    ----------
    use : str
        ``full``, ``text`` (the text of the best entry is the condition) or ``none`` (an empty text stands for
        what would be retrieved).
    entries : int
        Entries of the pool: windows that teach, drawn by the run's seed.
    items : int
        The best K entries, whose images and actions are read.
    image, action : bool
        Whether images and actions are compared and read.
    integration : bool
        Whether memories and the brain's embedding are joined. Without it the embedding alone conditions.
    alpha : float
        Weight of the brain's part of the condition (equation 8).
    own : str
        ``exclude``: a window that teaches does not retrieve its own clip, nor what looks like it
        (`train.data.near_duplicates`) or lies within 30 s of it in its film; ``include`` lets it.
    rows : str
        ``best``, or ``random``: entries drawn by the bits of a window, as a control that tells nothing of
        what was watched.
    """

    use: str = FULL
    entries: int = 128
    items: int = 4
    image: bool = True
    action: bool = True
    integration: bool = True
    alpha: float = 1.0
    own: str = EXCLUDE
    rows: str = BEST

    def __post_init__(self) -> None:
        if self.use not in _USES:
            raise UsageError(
                "memory-use-unknown",
                "system.encoder.memory.use must be one of {available}, found '{use}'.",
                available=list(_USES),
                use=self.use,
            )
        if self.own not in (EXCLUDE, INCLUDE):
            raise UsageError(
                "memory-own-unknown",
                "system.encoder.memory.own must be {exclude} or {include}, found '{own}'.",
                exclude=EXCLUDE,
                include=INCLUDE,
                own=self.own,
            )
        if self.rows not in (BEST, RANDOM):
            raise UsageError(
                "memory-rows-unknown",
                "system.encoder.memory.rows must be {best} or {random}, found '{rows}'.",
                best=BEST,
                random=RANDOM,
                rows=self.rows,
            )
        if not 1 <= self.items <= self.entries:
            raise UsageError(
                "memory-items-out-of-range",
                "the {items} best entries are to be looked up (system.encoder.memory.items) in a pool of "
                "{entries} (system.encoder.memory.entries). Give at least 1 and no more than there are.",
                items=self.items,
                entries=self.entries,
            )

    @property
    def retrieves(self) -> bool:
        """Whether the pool is looked into at all."""
        return self.integration and self.use != NONE

    @property
    def compared(self) -> tuple[bool, ...]:
        """Which of `KINDS` are compared."""
        return (True, self.image, self.action)


class Retrieved(NamedTuple):
    """What was found in the pool.

    Attributes
    ----------
    rows : int64, (window, item)
        The best entries, the best first.
    scores : (window, item)
        Cosines of these entries with the window, added up with `weights`.
    weights : (window, kind)
        The router's weights of `KINDS`; they add up to 1.
    """

    rows: Tensor
    scores: Tensor
    weights: Tensor


class MixtureOfMemories(nn.Module):
    """The router, and the scores of the entries of a pool (equations 4 and 5).

    Parameters
    ----------
    width : int
        Of the tokens of the brain's embedding.
    sizes : MemorySizes
        Says how many entries are found, how, and what they are compared by.
    """

    compared: Tensor

    def __init__(self, width: int, sizes: MemorySizes) -> None:
        super().__init__()
        self.items = sizes.items
        self.draws = sizes.rows == RANDOM
        self.router = nn.Linear(width, len(KINDS))
        self.register_buffer("compared", torch.tensor(sizes.compared), persistent=False)

    def forward(
        self, tokens: Tensor, queries: Sequence[Tensor], keys: Sequence[Tensor], excluded: Tensor | None
    ) -> Retrieved:
        """Find the best entries.

        Parameters
        ----------
        tokens : (window, token, width)
            The brain's embedding.
        queries : sequence of (window, key)
            For each of `KINDS`.
        keys : sequence of (entry, key)
            For each of `KINDS`, of length 1.
        excluded : bool, (window, entry), optional
            Entries that a window may not find.
        """
        logits = self.router(tokens.mean(1)).masked_fill(~self.compared, float("-inf"))
        weights = logits.softmax(1)
        cosines = [
            functional.normalize(query, dim=1) @ key.T for query, key in zip(queries, keys, strict=True)
        ]
        scores = (weights[:, :, None] * torch.stack(cosines, dim=1)).sum(1)
        if excluded is not None:
            scores = scores.masked_fill(excluded, float("-inf"))
        if self.draws:
            rows = _drawn_rows(tokens, scores, self.items)
            return Retrieved(rows, scores.gather(1, rows), weights)
        best = scores.topk(self.items, dim=1)
        return Retrieved(best.indices, best.values, weights)


def _drawn_rows(tokens: Tensor, scores: Tensor, items: int) -> Tensor:
    """Draw entries that windows may find; a window draws the same ones whenever its tokens are the same."""
    allowed = torch.isfinite(scores).cpu().numpy()
    rows = []
    for window, is_allowed in zip(tokens.detach().float().cpu().numpy(), allowed, strict=True):
        rng = np.random.default_rng(zlib.crc32(window.tobytes()))
        rows.append(rng.choice(np.flatnonzero(is_allowed), items, replace=False))
    return torch.from_numpy(np.stack(rows)).to(scores.device)


class Integration(nn.Module):
    """Memories joined with the brain's embedding (equations 6 to 8).

    The embedding attends to the images of the retrieved entries, and to their actions, and both are added to
    it. It is normalised, mapped by a convolution that begins at zero, and added to the text of the best
    entry, which has such a convolution of its own. So the condition is that text, to the bit, before the
    first step.

    The paper's choice of the best K has no gradient. Here the values of the K entries are weighted by the
    softmax of their scores, so that the router learns.

    Parameters
    ----------
    width, heads : int
        Of the brain's embedding, and of the attention.
    keys : mapping
        Which of image and action are read -> the width of their vectors.
    tokens, conditions, text : int
        Tokens of the embedding, and number and width of the condition's tokens.
    alpha : float
        Weight of the brain's part of the condition (equation 8).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        keys: Mapping[str, int],
        tokens: int,
        conditions: int,
        text: int,
        alpha: float,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.attention = nn.ModuleDict(
            {name: Attention(width, heads, context=context) for name, context in keys.items()}
        )
        self.lengths = nn.Identity() if tokens == conditions else nn.Linear(tokens, conditions)
        self.widths = nn.Linear(width, text)
        self.scale = nn.Parameter(torch.full((text,), _SCALE))
        self.zero_brain = _zero(text)
        self.zero_text = _zero(text)

    def mapped(self, tokens: Tensor) -> Tensor:
        """Give the embedding (window, token, width) the shape of a text (window, condition, text)."""
        return self.widths(self.lengths(tokens.transpose(1, 2)).transpose(1, 2))

    def forward(
        self, tokens: Tensor, memories: Mapping[str, Tensor], scores: Tensor | None, text: Tensor
    ) -> Tensor:
        """Return the condition's tokens, (window, condition, text).

        Parameters
        ----------
        tokens : (window, token, width)
            The brain's embedding.
        memories : mapping
            ``image`` and ``action``, as far as they are read -> the vectors of the retrieved entries,
            (window, item, key).
        scores : (window, item), or None where nothing was retrieved
            Scores of the retrieved entries, see `Retrieved`.
        text : (window, condition, text)
            The text of the best entry.
        """
        joined = tokens
        for name, attention in self.attention.items():
            assert scores is not None
            joined = joined + attention(tokens, memories[name], weights=scores.softmax(1))
        # In single precision, whatever the training computes in.
        mapped = self.mapped(joined).float()
        normed = functional.rms_norm(mapped, mapped.shape[-1:], self.scale)
        return text + self.zero_text(text) + self.alpha * self.zero_brain(normed)


def _zero(width: int) -> nn.Linear:
    """Make a convolution over single tokens whose weights begin at zero (Zhang et al. 2023, ControlNet)."""
    layer = nn.Linear(width, width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
