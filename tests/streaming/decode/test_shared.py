"""One decoder that several sessions share: one golden check, frames in turns, states that move."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from rtdecode.bundle import Bundle, golden
from rtdecode.bundle.session import from_bytes, open_pass, to_bytes
from rtdecode.types import Window
from streaming.decode.decoder import Decoding, NonFiniteError, SharedDecoder
from tests.refusals import refused
from tests.streaming import rich
from tests.streaming.bundles import make_bundle
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("shared") / "bundle", steps=2)


def film(seed: int) -> list[Window]:
    return [window(index, seed=10 * seed + index) for index in range(4)]


def test_the_golden_window_is_decoded_once_for_all_sessions(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = golden.compare

    def count(*arguments: object) -> dict[str, float]:
        compared.append(arguments)
        return compare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(golden, "compare", count)
    shared = SharedDecoder(bundle)
    sessions = [shared.session() for _ in range(3)]
    assert len(compared) == 1
    assert [session.cost for session in sessions] == [shared.cost] * 3
    assert sessions[0].differences == shared.differences
    assert shared.differences["latent"] < 1e-3


def test_sessions_decode_what_each_would_alone(bundle: Bundle) -> None:
    shared = SharedDecoder(bundle)
    sessions = [shared.session(), shared.session()]
    alone = [SharedDecoder(bundle).session() for _ in sessions]
    for windows in zip(film(1), film(2), strict=True):
        for session, other, cut in zip(sessions, alone, windows, strict=True):
            clip = session.decode(cut).clip
            expected = other.decode(cut).clip
            assert np.array_equal(clip.latent, expected.latent)
            assert np.array_equal(clip.frames, expected.frames)


def test_frames_come_in_turns_as_they_are_drawn(bundle: Bundle) -> None:
    ticks = iter(range(1000))
    decoding = SharedDecoder(bundle, lambda: float(next(ticks))).begin(window())
    turns: list[np.ndarray] = []
    handed_over = []
    for frames in decoding:
        turns.append(frames)
        handed_over.append(next(ticks))
    decoded = decoding.finish()
    assert [len(frames) for frames in turns] == [1] + [4] * 8
    assert np.array_equal(np.concatenate(turns), decoded.clip.frames)
    # Nothing but the graphs of the first turn ran before it was handed over.
    assert decoded.first_frame_at == handed_over[0] - 1
    assert decoded.last_frame_at > handed_over[-1]
    assert [stage for stage, _ in decoded.calls].count("decode_next") == 8


def test_the_first_turn_of_a_chunk_is_there_before_the_next_chunk_is_denoised(tmp_path: Path) -> None:
    shared = SharedDecoder(rich.make(tmp_path / "bundle"))
    opened = open_pass(shared.engine.program, rich.window(), shared.steps)
    decoding = Decoding(
        shared.bundle, rich.window(), opened, monotonic, steps=shared.steps, detail=shared.detail
    )
    turns = iter(decoding)
    next(turns)
    calls = [stage for stage, _ in opened.calls]
    assert calls[-1] == "decode_first"
    all_calls = [stage for stage, _ in decoding.finish().calls]
    assert all_calls[: len(calls)] == calls
    assert "denoise" in all_calls[len(calls) :]


def test_a_clip_that_was_given_up_leaves_nothing(bundle: Bundle) -> None:
    shared = SharedDecoder(bundle)
    session, other = shared.session(), shared.session()
    next(iter(session.begin(window(0))))
    fresh = other.decode(window(1)).clip.latent
    assert np.array_equal(session.decode(window(1)).clip.latent, fresh)


def moved(shared: Iterator[SharedDecoder], windows: list[Window]) -> list[np.ndarray]:
    """Decode each window by another decoder, which gets what it carries on from as bytes."""
    latents = []
    raw = None
    for decoder, cut in zip(shared, windows, strict=False):
        states = None if raw is None else from_bytes(raw, decoder.bundle.manifest)
        decoding = decoder.begin(cut, states=states)
        latents.append(decoding.finish().clip.latent)
        raw = to_bytes(decoding.carried())
    return latents


def test_a_session_that_moves_with_its_states_is_the_same_to_the_bit(bundle: Bundle) -> None:
    shared = SharedDecoder(bundle)
    session = shared.session()
    expected = [session.decode(cut).clip.latent for cut in film(1)]
    latents = moved(iter([shared, SharedDecoder(bundle)] * 2), film(1))
    for latent, stayed in zip(latents, expected, strict=True):
        assert np.array_equal(latent, stayed)
    without = shared.begin(film(1)[2]).finish().clip.latent
    assert not np.allclose(without, expected[2]), "what it carries on from matters"


def test_every_kind_of_state_moves(tmp_path: Path) -> None:
    shared = SharedDecoder(rich.make(tmp_path / "bundle"))
    windows = [rich.window(index) for index in range(3)]
    session = shared.session()
    expected = [session.decode(cut).clip.latent for cut in windows]
    for latent, stayed in zip(moved(iter([shared] * 3), windows), expected, strict=True):
        assert np.array_equal(latent, stayed)


def test_a_window_that_gives_no_clip_raises_while_it_is_iterated(bundle: Bundle) -> None:
    bad = replace(window(1), eeg=np.full_like(window(1).eeg, np.nan))  # type: ignore[arg-type]
    with refused(NonFiniteError, "window-output-not-finite", window=1):
        list(SharedDecoder(bundle).begin(bad))
