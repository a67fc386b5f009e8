"""From a window to its clip.

A window is encoded, its latent is denoised if the bundle has a denoiser, and the clean latent is drawn as
video frames, turn by turn. The graphs themselves run in `rtdecode.bundle`. Here each stage is timed for the
latency ledger, and a window whose values are not finite is refused. `SharedDecoder` loads the graphs and
decodes the bundle's golden window once: that shows whether this machine computes what the export computed,
and what a clip costs here. Any number of sessions share it, each through a `Decoder` of its own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle, engine, golden, wiring
from rtdecode.bundle.brain import BY_OUTPUT, LEAST, MODALITIES
from rtdecode.bundle.engine import Engine
from rtdecode.bundle.frames import MEAN, to_uint8
from rtdecode.bundle.graph import Value
from rtdecode.bundle.runner import Pass
from rtdecode.bundle.session import open_pass
from rtdecode.errors import BundleError, RtDecodeError
from rtdecode.types import Clip, Float, Presence, Window
from streaming.decode.deadline import Cost

# Largest distance of the sum of the probabilities of ``brain`` from 1.
_ROUNDING = 1e-3


class NonFiniteError(RtDecodeError):
    """A graph returned values that are not finite, so there is no clip to show."""


class GivenUpError(RtDecodeError):
    """A decoder elsewhere has no clip for a window: it could not be reached, or had no time for it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip and the times at which its stages were done, on the local clock.

    Attributes
    ----------
    clip : Clip
        The frames, and what else was decoded.
    started_at, encoded_at : float
        When decoding began, and when ``encode`` was done.
    denoised_at : float
        When the first latent frames were clean; all of them, unless they are denoised in chunks.
    first_frame_at : float
        When the frames of the first turn were handed over.
    last_frame_at : float
        When the frames of the last turn were handed over.
    denoising_s : float
        Time that denoising took, over all chunks.
    condition : float32, (value,), or None
        What the encoder told the next stage, if that was asked for; see `rtdecode.bundle.condition`.
    calls : list of (str, float)
        Each call of an engine, in order: its stage, and how long it took, s.
    carried_from : str or None
        Revision of the clip of the window before that it carries on from; None if it started afresh.
    wire_s : float or None
        From when the window was sent to when its clip was received, less the time at the decoder, s; None for
        a clip that was decoded here.
    bundle : str or None
        Digest of the fallback that decoded it; None for the session's own bundle.
    film : bytes or None
        The clip as MP4, of which its frames were read; None where they are as they were drawn.
    """

    clip: Clip
    started_at: float
    encoded_at: float
    denoised_at: float
    first_frame_at: float
    last_frame_at: float
    denoising_s: float
    condition: Float | None
    calls: list[tuple[str, float]]
    carried_from: str | None
    wire_s: float | None = None
    bundle: str | None = None
    film: bytes | None = None

    @property
    def stamps(self) -> dict[str, float]:
        """Times of the stages by their names in the ledger; ``denoised`` only if a step was taken."""
        return {
            "encoded": self.encoded_at,
            **({"denoised": self.denoised_at} if self.clip.steps else {}),
            "first_frame": self.first_frame_at,
            "last_frame": self.last_frame_at,
        }


class Decoding:
    """One window on its way to its clip: iterate over the frames of each turn, or call `finish`.

    Iterating yields uint8 (frame, row, column, rgb) as soon as a turn of the decode stages has drawn them.
    The window is computed as the frames are asked for.

    Parameters
    ----------
    bundle : Bundle
        Its manifest says what the graphs' outputs mean.
    window : Window
        The window that is decoded.
    opened : Pass
        The window's pass through the graphs.
    now : callable
        Reads the local clock.
    steps : int
        Denoising steps of the pass.
    detail : float or None
        Share of detail that is kept.
    carried_from : str or None
        See `Decoded`.
    tell_condition : bool
        Whether the decoded clip has its condition.
    on_whole : callable, optional
        Gets the pass once the clip is whole and finite.
    """

    def __init__(
        self,
        bundle: Bundle,
        window: Window,
        opened: Pass,
        now: Callable[[], float],
        *,
        steps: int,
        detail: float | None,
        carried_from: str | None = None,
        tell_condition: bool = False,
        on_whole: Callable[[Pass], None] | None = None,
    ) -> None:
        self._bundle = bundle
        self._window = window
        self._opened = opened
        self._now = now
        self._steps = steps
        self._detail = detail
        self._carried_from = carried_from
        self._tell_condition = tell_condition
        self._on_whole = on_whole
        self._decoded: Decoded | None = None
        self._turns = self._draw()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self._turns

    def finish(self) -> Decoded:
        """Compute what was not yet asked for, and return the whole clip.

        Raises
        ------
        NonFiniteError
            If a graph returned values that are not finite. The clips that follow do not depend on them.
        """
        for _ in self._turns:
            pass
        assert self._decoded is not None, "an error ended the iteration before"
        return self._decoded

    def carried(self) -> dict[str, Value]:
        """Return the states that the next window may carry on from, once the clip is whole."""
        return self._opened.carried()

    def _draw(self) -> Iterator[NDArray[np.uint8]]:
        window = self._window
        opened = self._opened
        started_at = self._now()
        encoded = opened.encode()
        encoded_at = self._now()
        # Values that are not finite would end as a black clip, so every stage is checked for them.
        for name, values in encoded.items():
            _check_finite(name, values, window)
        denoised_at: float | None = None
        first_at: float | None = None
        frames: list[NDArray[np.uint8]] = []
        denoising_s = 0.0
        began_at = encoded_at
        # `latents` denoises the next chunk when the loop asks for it. Each chunk is drawn before
        # that, so that the first frames need not wait for the rest.
        for latent in opened.latents():
            _check_finite("latent", latent, window)
            clean_at = self._now()
            denoised_at = clean_at if denoised_at is None else denoised_at
            denoising_s += clean_at - began_at
            for segment in opened.draw(latent):
                if opened.frames_mean is None:
                    _check_finite("frames", segment, window)
                else:
                    _check_finite(MEAN, opened.frames_mean, window)
                turn = to_uint8(segment[0])
                frames.append(turn)
                first_at = self._now() if first_at is None else first_at
                yield turn
            began_at = self._now()
        assert denoised_at is not None
        assert first_at is not None
        # Only a whole and finite clip is kept for the next window to carry on from.
        if self._on_whole is not None:
            self._on_whole(opened)
        presence = self._presence(encoded)
        clip = Clip(
            np.concatenate(frames),
            opened.latent,
            self._scores(encoded),
            self._steps,
            self._confidence(encoded, presence),
            presence,
            self._brain_by(encoded),
            self._detail,
            opened.recorded(),
        )
        last_at = self._now()
        # Read last: on a GPU the condition stays on the device until then.
        condition = opened.condition() if self._tell_condition else None
        self._decoded = Decoded(
            clip,
            started_at,
            encoded_at,
            denoised_at,
            first_at,
            last_at,
            denoising_s,
            condition,
            opened.calls,
            self._carried_from,
        )

    def _scores(self, encoded: dict[str, NDArray[Any]]) -> dict[str, float] | None:
        labels = self._bundle.manifest.labels
        if labels is None or "scores" not in encoded:
            return None
        return {
            label: float(value) for label, value in zip(labels, encoded["scores"].reshape(-1), strict=True)
        }

    def _confidence(self, encoded: dict[str, NDArray[Any]], presence: Presence | None) -> float | None:
        if self._bundle.manifest.confidence is None or (presence is not None and presence.brain < LEAST):
            return None
        return float(np.clip(encoded["confidence"].item(), 0, 1))

    def _presence(self, encoded: dict[str, NDArray[Any]]) -> Presence | None:
        if self._bundle.manifest.brain is None:
            return None
        brain, inconsistent, neither = np.clip(encoded["brain"].reshape(-1), 0, 1).tolist()
        return Presence(brain, inconsistent, neither)

    def _brain_by(self, encoded: dict[str, NDArray[Any]]) -> dict[str, float | None] | None:
        if self._bundle.manifest.brain is None or BY_OUTPUT not in encoded:
            return None
        probabilities = np.clip(encoded[BY_OUTPUT].reshape(-1), 0, 1).tolist()
        present = self._window.modalities
        return {
            name: value if name in present else None
            for name, value in zip(MODALITIES, probabilities, strict=True)
        }


class SharedDecoder:
    """The decoder of a bundle, which any number of sessions share.

    Its golden window is decoded once, when it is made. It keeps nothing between windows, so that sessions may
    use it one after another or at the same time.

    Parameters
    ----------
    bundle : Bundle
        Its graphs are loaded, and its golden window is decoded.
    now : callable
        Reads the local clock.
    loaded : Engine, optional
        The bundle's engine, if it is loaded already.

    Attributes
    ----------
    bundle : Bundle
        As given.
    engine : Engine
        What runs the bundle's graphs.
    steps : int
        Denoising steps of a clip by default; 0 for a bundle that decodes in closed form.
    detail : float or None
        Share of detail that a clip keeps by default; None for a bundle that has no choice.
    numbers_of_steps : set of int or None
        The numbers of steps that can be taken; None for any.
    cost : Cost
        What the golden window cost.
    differences : dict
        Output -> how far the golden window's was from what the bundle expects.
    runs_on : dict
        Stage -> what runs it, in words.
    notes : list of str
        What is not used although it is there and would be faster, and why; a sentence each.

    Raises
    ------
    BundleError
        If a graph is missing, cannot be run, or does not make of the golden window what the bundle expects.
    """

    def __init__(
        self, bundle: Bundle, now: Callable[[], float] = monotonic, *, loaded: Engine | None = None
    ) -> None:
        self.bundle = bundle
        self._now = now
        self.engine = engine.load(bundle) if loaded is None else loaded
        self.steps = self.engine.steps()
        self.detail = self.engine.detail()
        self.numbers_of_steps = wiring.numbers_of_steps(bundle.manifest)
        self.runs_on = self.engine.runs_on
        self.notes = self.engine.notes
        self.differences: dict[str, float] = {}
        self.cost = self._check_golden()

    def session(self, *, carry: bool = True, tell_condition: bool = False) -> "Decoder":
        """Begin a session, which decodes nothing yet; see `Decoder`."""
        return Decoder(self.bundle, self._now, carry=carry, tell_condition=tell_condition, shared=self)

    def begin(
        self,
        window: Window,
        steps: int | None = None,
        states: Mapping[str, Value] | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        tell_condition: bool = False,
    ) -> Decoding:
        """Begin to decode a window of any session, from states that the caller has.

        Parameters
        ----------
        window : Window
            The window to decode.
        steps : int, optional
            Denoising steps; by default the bundle's.
        states : dict, optional
            What it carries on from, as `Decoding.carried` gave it; by default it starts afresh.
        detail, null
            See `Decoder.decode`.
        tell_condition : bool
            Whether the decoded clip has its condition.

        Raises
        ------
        UsageError
            If `steps` cannot be taken, or `detail` cannot be kept.
        """
        count = self.engine.steps(steps)
        share = self.engine.detail(detail)
        opened = open_pass(self.engine.program, window, count, states, detail=share, null=null)
        return Decoding(
            self.bundle, window, opened, self._now, steps=count, detail=share, tell_condition=tell_condition
        )

    def _check_golden(self) -> Cost:
        """Decode the golden window, refuse a bundle that does not decode as promised, and return the cost."""
        golden_arrays = golden.first(self.bundle)
        where = str(self.bundle.golden_file)
        expected = golden.take(where, golden_arrays, ["latent"])["latent"]
        # Not through the session: the golden window must leave nothing to carry on from.
        steps = golden.steps_of(golden_arrays, self.steps)
        opened = golden.open_pass(self.engine, golden_arrays, steps, where)
        started_at = self._now()
        outputs = opened.encode()
        encoded_at = self._now()
        chunks = list(opened.latents())
        denoised_at = self._now()
        outputs["latent"] = np.concatenate(chunks, axis=2)
        # Drawn from the expected latent: a fault of an earlier stage is not told of the frames too.
        outputs["frames"] = np.concatenate(list(opened.draw(expected)), axis=1)
        drawn_at = self._now()
        clip = self.bundle.manifest.clip
        clip_shape = (1, clip.frames, clip.height, clip.width, 3)
        if outputs["frames"].shape != clip_shape:
            raise BundleError(
                "golden-clip-shape-mismatch",
                "bundle {path}: its graphs draw clips of {shape}, the clip of manifest.json is "
                "{expected_shape}. Export it again.",
                path=self.bundle.path,
                shape=outputs["frames"].shape,
                expected_shape=clip_shape,
            )
        self.differences = golden.compare(self.bundle, golden_arrays, outputs)
        if self.bundle.manifest.brain is not None:
            self._check_probabilities(outputs["brain"])
        encode_s = encoded_at - started_at
        step_s = (denoised_at - encoded_at) / max(1, steps)
        return Cost(encode_s, step_s, drawn_at - denoised_at)

    def _check_probabilities(self, brain: NDArray[Any]) -> None:
        total = float(brain.sum())
        if not (brain.min() >= -_ROUNDING and abs(total - 1) <= _ROUNDING):
            raise BundleError(
                "golden-probabilities-invalid",
                "bundle {path}: its output 'brain' is {probabilities} for the golden window, and "
                "probabilities that sum to 1 were expected. Export it again.",
                path=self.bundle.path,
                probabilities=brain.reshape(-1).tolist(),
            )


class Decoder:
    """Decode the windows of one session, one at a time.

    Parameters
    ----------
    bundle : Bundle
        What decodes the windows.
    now : callable
        Reads the local clock.
    carry : bool
        Whether a window carries on from the one before it, if the bundle can.
    tell_condition : bool
        Whether each decoded clip has its condition.
    shared : SharedDecoder, optional
        The bundle's decoder, if other sessions share it; by default it is loaded and checked.

    Attributes
    ----------
    steps, detail, numbers_of_steps, cost, differences, runs_on, notes
        Those of the `SharedDecoder`.
    at_once : int
        Windows that may be asked for before the first of them has its clip: one, as it is decoded here.
    away_since : None
        A decoder elsewhere may be away, and this one never is.
    pixels : str
        ``raw``: frames are as they were drawn.

    Raises
    ------
    BundleError
        See `SharedDecoder`.
    """

    def __init__(
        self,
        bundle: Bundle,
        now: Callable[[], float] = monotonic,
        *,
        carry: bool = True,
        tell_condition: bool = False,
        shared: SharedDecoder | None = None,
    ) -> None:
        self._bundle = bundle
        self._tell_condition = tell_condition
        self._now = now
        shared = SharedDecoder(bundle, now) if shared is None else shared
        self._engine = shared.engine
        self._session = self._engine.session(carry=carry)
        self.steps = shared.steps
        self.detail = shared.detail
        self.numbers_of_steps = shared.numbers_of_steps
        self.runs_on = shared.runs_on
        self.notes = shared.notes
        self.differences = shared.differences
        self.cost = shared.cost
        self.at_once = 1
        self.away_since: float | None = None
        self.pixels = "raw"

    def begin(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
    ) -> Decoding:
        """Begin to decode one window, whose frames come in turns; see `decode`."""
        count = self._engine.steps(steps)
        share = self._engine.detail(detail)
        opened = self._session.open(window, count, detail=share, null=null, chain=chain)
        return Decoding(
            self._bundle,
            window,
            opened,
            self._now,
            steps=count,
            detail=share,
            carried_from=self._session.carried_from,
            tell_condition=self._tell_condition,
            on_whole=None if null else partial(self._session.keep, window),
        )

    def decode(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> Decoded:
        """Decode one window; what it lacks enters as zeros under a zero mask.

        Parameters
        ----------
        window : Window
            The window to decode.
        steps : int, optional
            Denoising steps; by default the bundle's.
        detail : float, optional
            Share that is kept of what is drawn beyond what the brain told; by default the bundle's.
        null : bool
            Decode the null-brain twin instead, from the same weights and noise but without any signal. The
            clips that follow do not depend on it.
        chain : sequence of str, optional
            The revisions from which it may carry on; see `rtdecode.bundle.session.Session.open`.
        left_s : float
            Time after which a decoder elsewhere gives the window up, s; this one never does.

        Raises
        ------
        UsageError
            If `steps` cannot be taken, or `detail` cannot be kept.
        NonFiniteError
            If a graph returned values that are not finite. The clips that follow do not depend on them.
        """
        return self.begin(window, steps, detail=detail, null=null, chain=chain).finish()

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> "Future[Decoded]":
        """Decode one window as `decode` does; what is returned is done, and has its clip or its error."""
        future: Future[Decoded] = Future()
        try:
            future.set_result(self.decode(window, steps, detail=detail, chain=chain, left_s=left_s))
        except RtDecodeError as error:
            future.set_exception(error)
        return future

    def news(self) -> list[str]:
        """Return sentences on what has become of the decoder since the last call: none, as it is here."""
        return []

    def close(self) -> None:
        """End the session; there is nothing to be told."""


class AnyDecoder(Protocol):
    """What a session needs of a decoder, here or elsewhere; see `Decoder`."""

    numbers_of_steps: set[int] | None
    cost: Cost
    runs_on: dict[str, str]
    notes: list[str]
    at_once: int
    pixels: str

    @property
    def away_since(self) -> float | None:
        """Wall time since which no decoder elsewhere answers, s; None while one does."""
        ...

    def ask(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> "Future[Decoded]":
        """Ask for the clip of one window, which may come later."""
        ...

    def decode(
        self,
        window: Window,
        steps: int | None = None,
        *,
        detail: float | None = None,
        null: bool = False,
        chain: Sequence[str] | None = None,
        left_s: float = math.inf,
    ) -> Decoded:
        """Decode one window."""
        ...

    def news(self) -> list[str]:
        """Return sentences on what has become of the decoder since the last call."""
        ...

    def close(self) -> None:
        """End the session."""
        ...


def check_steps(bundle: Bundle, steps: int | None) -> int:
    """Return how many denoising steps a bundle takes when `steps` are asked for.

    Raises
    ------
    UsageError
        See `rtdecode.bundle.engine.check_steps`.
    """
    return engine.check_steps(bundle.manifest, f"bundle {bundle.path}", steps)


def check_detail(bundle: Bundle, detail: float | None) -> float | None:
    """Return the share of detail that a bundle keeps when `detail` is asked for; None where it has no choice.

    Raises
    ------
    UsageError
        See `rtdecode.bundle.engine.check_detail`.
    """
    return engine.check_detail(bundle.manifest, f"bundle {bundle.path}", detail)


def _check_finite(name: str, values: NDArray[Any], window: Window) -> None:
    # No sum with such a value is finite. Only where the sum is not are the values looked at one by one, since
    # finite ones may add up to more than their type holds.
    with np.errstate(invalid="ignore", over="ignore"):
        total = values.sum()
    if np.isfinite(total):
        return
    nonfinite = values.size - int(np.isfinite(values).sum())
    if nonfinite:
        raise NonFiniteError(
            "window-output-not-finite",
            "window {window} of run {run} has no clip: {nonfinite_count} of the {value_count} values "
            "of '{output}' are not finite. Check the bundle with `rtdecode doctor`, and export it "
            "again.",
            window=window.index,
            run=window.run,
            nonfinite_count=nonfinite,
            value_count=values.size,
            output=name,
        )
