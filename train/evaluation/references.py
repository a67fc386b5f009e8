"""What stands beside a decoder that is judged on any film, and is made before the first session is judged.

`References` holds the ridge oracle, the forward model of the ceiling, the temperatures of the bits, and
windows of training films. Nothing of it depends on what is judged: it comes from sessions with training
seeds, in which the participant watches films of the judged kind, and for a film from a file the endless one.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from rtdecode.bundle import Bundle
from rtdecode.bundle.manifest import CAUSAL
from rtdecode.disk.clip_file import Pixels, keep
from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import KINDS, NATURAL
from rtdecode.phantom.session import PhantomSession
from train.closed_form import patch_codec
from train.closed_form.patch_codec import Codec
from train.config.run_context import progress
from train.config.training_films import DATA, REAL, training_films
from train.data.clip_grid import shown_frames
from train.data.film_windows import each_clip, on_grid
from train.data.phantom import (
    TRAINING_SEEDS,
    Participant,
    clips_of_training,
    session_arrays,
    session_spans,
    windows_of,
)
from train.evaluation.ceiling import Forward, fit_forward
from train.evaluation.film_scores import FilmWindows, describe, similarity
from train.evaluation.oracle import Oracle, fit_oracle
from train.evaluation.reconstruct import clips_of
from train.evaluation.result import Decode
from train.interface.system import System
from train.metrics.infonce import fit_temperature

# The film that stands for real ones where a session needs an endless one.
_ENDLESS = NATURAL
# Seed of the session on which temperatures and the noise of the EEG are found. It is one for training, which
# recipes leave alone.
_UNJUDGED = 999
# So many of a run's training films are searched for the nearest clips.
_FILMS = 5


@dataclass(frozen=True)
class References:
    """See the module.

    Attributes
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        Windows of films that the run was trained on; none where all are from files.
    kind : str
        The film that was watched for the others; empty for recorded data.
    oracle : Oracle or None
        None where no sessions were asked for.
    forward : Forward or None
        None where the signals were prepared offline, of which the forward model knows nothing, or recorded.
    temperature, oracle_temperature : float or None
        Of the decoder's and of the oracle's bits. They come from windows that are neither taught nor judged:
        None where there are no such.
    """

    clips: Sequence[Pixels]
    kind: str = ""
    oracle: Oracle | None = None
    forward: Forward | None = None
    temperature: float | None = None
    oracle_temperature: float | None = None


def kind_of(film: str) -> str:
    """Return the kind of film that stands for a judged one in training."""
    return film if film in KINDS else _ENDLESS


def watch(who: Participant, seed: int, seconds: float) -> PhantomSession:
    """Make a session of `seconds`; a film from a file is shown as a whole.

    Films of shapes cut anywhere, so that windows may hold cuts.
    """
    return who.session(seed, seconds if who.film in KINDS else None, "free")


# Sessions that a ridge learns from: a word for the film, and what makes the session. Those of one word show
# the same film.
Sessions = list[tuple[str, Callable[[], PhantomSession]]]


def own_sessions(bundle: Bundle, who: Participant) -> Sessions:
    """Make the sessions again that a run was trained on.

    A bundle does not say where films from files lie: those among the recorded data are found by their
    SHA-256, and others are left out.

    Parameters
    ----------
    bundle : Bundle
        Bundle of the run; its provenance names films and seeds.
    who : Participant
        Whom the run was trained on.
    """
    provenance = bundle.manifest.provenance
    recorded = {film.digest: film.source for film in training_films(REAL)} if os.environ.get(DATA) else {}
    sessions: Sessions = []
    for film in provenance.get("films", [{"film": who.film}]):
        digest = film.get("sha256")
        film_word = recorded.get(digest) if digest else film["film"]
        if film_word is None:
            continue
        watching = replace(who, film=film_word)
        seconds = film.get("seconds", provenance["seconds"])
        for seed in provenance["sessions"]:
            sessions.append((digest or f"{film_word}-{seed}", partial(watching.session, seed, seconds)))
    return sessions


def fresh_sessions(who: Participant, seeds: Sequence[int], seconds: float) -> Sessions:
    """Make sessions of training seeds.

    Parameters
    ----------
    who : Participant
        Its film is an endless one.
    seeds : sequence of int
        Seeds of the sessions, among those for training.
    seconds : float
        Length of each session.

    Raises
    ------
    UsageError
        If a seed is one for judging, or that of the session on which temperatures are found.
    """
    if not {*seeds} <= {*TRAINING_SEEDS} - {_UNJUDGED}:
        raise UsageError(
            "oracle-seeds-not-training",
            "oracle= takes seeds of training sessions, below {limit}, found {seeds}.",
            limit=_UNJUDGED,
            seeds=list(seeds),
        )
    return [(str(seed), partial(watch, who, seed, seconds)) for seed in seeds]


def ridge_of(bundle: Bundle, system: System, sessions: Sessions) -> Oracle:
    """Fit the ridge oracle.

    Parameters
    ----------
    bundle : Bundle
        Reads the signals: the same voxels for the ridge and for the decoder.
    system : System
        The decoder that it stands beside.
    sessions : list of (str, callable)
        What names the film of each session, by which windows are left out together, and what makes the
        session.
    """
    trained: list[dict[str, Any]] = []
    # Each session is made when its turn comes, so that one film at a time is in memory.
    for _, begin in progress(sessions, "sessions of the ridge"):
        session = begin()
        count = windows_of(bundle.manifest, session)
        # On disk if they are many or large.
        clips = keep(islice(each_clip(session.film, bundle.manifest), count))
        trained.append({**session_arrays(bundle, session), "clips": clips})
    length = shown_frames(bundle.manifest)
    aims = [system.targets(clip[:length] for clip in windows["clips"]) for windows in trained]
    condition_aims = [vectors.astype(np.float64) for vectors in aims if vectors is not None]
    together = np.concatenate(condition_aims) if condition_aims else None
    words = [word for word, _ in sessions]
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    films = [numbers[word] for word in words]
    return fit_oracle(trained, frames=length, carry=system.carried > 0, aims=together, films=films)


def references(
    show: Decode, bundle: Bundle, system: System, who: Participant, seconds: float, oracle: Oracle | None
) -> References:
    """Make what stands beside a decoder.

    Parameters
    ----------
    show : callable
        See `Decode`.
    bundle : Bundle
        By its grid and chain sessions become windows, and its provenance names the training films.
    system : System
        What `show` shows.
    who : Participant
        Its film is an endless one.
    seconds : float
        Length of the session on which temperatures are found.
    oracle : Oracle, optional
        See `ridge_of`.
    """
    session = watch(who, _UNJUDGED, seconds)
    inputs = session_arrays(bundle, session)
    truth = describe(on_grid(session.film, bundle.manifest), session_spans(bundle.manifest, session))
    temperature = _temperature(show(inputs, truth.where).clips, truth)
    oracle_temperature = temperature if oracle is None else _temperature(oracle.clips(inputs), truth)
    causal = bundle.manifest.chain == CAUSAL
    forward = fit_forward(bundle, session, inputs) if causal else None
    # On disk if they are many.
    clips = keep(chain.from_iterable(islice(clips_of_training(bundle), _FILMS)))
    return References(clips, who.film, oracle, forward, temperature, oracle_temperature)


def _temperature(clips: Sequence[Pixels], truth: FilmWindows) -> float:
    frames = len(truth.clips[0])
    cut = [clip[:frames] for clip in clips]
    return fit_temperature(similarity(cut, truth.clips), truth.allowed)


def recoded(system: System, bundle: Bundle, clips: Iterable[Pixels]) -> list[Pixels] | None:
    """Code clips by a system's patch codec and draw them again; None for a system without one.

    Parameters
    ----------
    system : System
        Whose codec is taken, and which draws.
    bundle : Bundle
        Its statistics may hold arrays of the codec, and its manifest says how many frames are shown.
    clips : iterable of uint8 (frame, row, column, 3)
        As the bundle has them; a frame after the window is left out of what is drawn.
    """
    arrays = {**bundle.stats, **system.weights()}
    if "codec_basis" not in arrays:
        return None
    basis = arrays["codec_basis"].astype(np.float64)
    # The columns of the basis are orthogonal, but may be scaled.
    inverse = basis / np.square(basis).sum(axis=0)
    latents = patch_codec.encode(Codec(arrays["codec_mean"], inverse.astype(np.float32)), clips)
    return [clip[: shown_frames(bundle.manifest)] for clip in clips_of(system, latents)]
