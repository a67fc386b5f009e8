"""What the tokenizers of a trained encoder give under films, which lets newcomers be fitted to it.

`film_tokens` learns it from sessions of the participant who was trained on; a run keeps it among its
statistics, and `train.fitting.tokenizers` takes its bundle to another participant.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rtdecode.bundle import Bundle
from train.closed_form.patch_codec import scaled_codec
from train.config.run_context import Arrays, RunContext
from train.data.arrays import normalised_signals
from train.data.chain import draft_bundle
from train.data.film_stages import session_stage, some_of_each_kind
from train.data.recorded_sessions import RecordedSessions
from train.data.sets.set_node import DataSetWindows
from train.data.showing import AnyShowing
from train.data.simulated import FilmSessions
from train.fitting.film_tokens import Tokenizing, fit_film_tokens
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.material import Material
from train.parts.encoders.tokenizers import EegTokenizer, VoxelTokenizer

# The builder of the fitter (`train.config.builders`), which a bundle's manifest names.
FITTER = "tokenizer-fitter"


def film_tokens(
    work: RunContext,
    data: FilmSessions | RecordedSessions | DataSetWindows,
    material: Material,
    encoder: ConditionEncoder,
) -> Arrays:
    """Learn what the tokenizers of a trained encoder give under films, as a stage of the run.

    Returns
    -------
    dict
        Arrays of ``stats.npz``; none where the encoder has other tokenizers, and none for a data set, which
        does not tell the film between its windows.
    """
    reads = tokenizing(encoder)
    if reads is None or isinstance(data, DataSetWindows):
        return {}
    sample: list[AnyShowing] = some_of_each_kind(list(data.showings(work)))
    stats = material.stats
    draft = draft_bundle(material.manifest, stats, material.projection)

    def make() -> Arrays:
        windows = (normalised_signals(work.read(session_stage(showing)), stats) for showing in sample)
        eeg = [signals["eeg"] for signals in windows if "eeg" in signals]
        return fit_tokens(material.codec, sample, eeg, reads, draft)

    return work.stage("film-tokens", make)


def fit_tokens(
    codec: Arrays,
    showings: Sequence[AnyShowing],
    eeg: Sequence[NDArray[np.floating]],
    reads: Tokenizing,
    draft: Bundle,
) -> Arrays:
    """Learn it from sessions; the arguments are those of `train.fitting.film_tokens.fit_film_tokens`.

    Parameters
    ----------
    codec : dict
        See `train.parts.codecs.fitted_patch.fit_codec`.
    """
    return fit_film_tokens(scaled_codec(codec), showings, eeg, reads, draft).arrays()


def tokenizing(encoder: ConditionEncoder) -> Tokenizing | None:
    """Take the weights of an encoder's tokenizers; None where they are no linear ones."""
    tokenizers = getattr(encoder, "tokenizers", None)
    if not isinstance(tokenizers, nn.ModuleDict):
        return None
    shares = channels = pooled = None
    for tokenizer in tokenizers.values():
        if isinstance(tokenizer, VoxelTokenizer):
            shares = tokenizer.over_voxels.weight.detach().double().numpy()
        elif isinstance(tokenizer, EegTokenizer):
            channels = tokenizer.over_channels.weight.detach().double().numpy().T
            pooled = tokenizer.pooled.double().numpy()
        else:
            return None
    return Tokenizing(shares, channels, pooled)
