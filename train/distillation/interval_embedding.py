"""Tell a video model of diffusers how far a step goes, besides the noise level at which it begins.

Each of these models turns the noise level into waves, and the waves into a vector that modulates its layers.
A second embedding of waves is added to that vector (as in Boffi et al. 2024, arXiv:2406.07507, and in Geng et
al. 2025, arXiv:2505.13447). It begins with zeros, so that the model is what it was before.
"""

from torch import Tensor, nn

from rtdecode.errors import UsageError

# The names of the parameters that are added have this in them.
SPAN = ".span."


class Spanned(nn.Module):
    """A time embedding of diffusers that may also be told how far a step goes.

    Parameters
    ----------
    own : TimestepEmbedding
        The model's own time embedding.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        first = embedding.get_submodule("linear_1")
        last = embedding.get_submodule("linear_2")
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        width = last.out_features
        silent = nn.Linear(width, width)
        nn.init.zeros_(silent.weight)
        nn.init.zeros_(silent.bias)
        self.own = embedding
        self.span = nn.Sequential(nn.Linear(first.in_features, width), nn.SiLU(), silent)
        self.span.to(first.weight.device, first.weight.dtype)

    def forward(self, waves: Tensor, span: Tensor | None = None) -> Tensor:
        """Embed noise levels, and spans where they are told.

        Parameters
        ----------
        waves : (row, wave)
            Of the noise level. Where a model hands on no second argument (Wan), (row, 2, wave) has the waves
            of the span behind them.
        span : (row, wave), optional
            Waves of the span.

        Returns
        -------
        (row, value), or (row, 1, value) for waves of three axes
        """
        if waves.ndim == 3:
            waves, span = waves.split(1, dim=1)
        embedded = self.own(waves)
        if span is None:
            return embedded
        # What learns is in single precision, whatever the precision of the rest.
        kind = next(self.span.parameters()).dtype
        return embedded + self.span(span.to(kind)).to(embedded.dtype)


def add_spans(model: nn.Module) -> None:
    """Put spans on the time embedding of a model, in place.

    Raises
    ------
    UsageError
        If the model has no time embedding of diffusers.
    """
    # Imported where it is used: it takes seconds.
    from diffusers.models.embeddings import TimestepEmbedding

    embedding_names = [
        name for name, module in model.named_modules() if isinstance(module, TimestepEmbedding)
    ]
    if not embedding_names:
        raise UsageError(
            "distillation-missing-timestep-embedding",
            "a {model_class} has no TimestepEmbedding of diffusers, and cannot be told how far a "
            "step goes. Distil a CogVideoX, a Wan or a UNet of diffusers.",
            model_class=type(model).__name__,
        )
    # The first one is that of the noise level; models that continue a picture have another one.
    name = embedding_names[0]
    model.set_submodule(name, Spanned(model.get_submodule(name)))
