"""The shipped bundle reads no brain from noise in the cap, however loud, through the whole chain."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle.brain import LEAST
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Clip, Float
from streaming.decode.decoder import Decoder
from train.data.chain import windows

SECONDS = 24.0


class NoisyCap(PhantomSession):
    """A session whose cap sends white noise of so many microvolts in place of EEG."""

    noise_uv = 0.0

    def eeg_blocks(self) -> Iterator[Float]:
        rng = np.random.default_rng(5)
        for block in super().eeg_blocks():
            yield (self.noise_uv * rng.standard_normal(block.shape)).astype(np.float32)


@cache
def decoder() -> Decoder:
    return Decoder(bundles.load("phantom"))


def decoded(session: PhantomSession, modalities: list[str]) -> list[Clip]:
    """The clips of a session's finals, with some of its modalities."""
    bundle = bundles.load("phantom")
    cut = windows(bundle, session.events(chunk_s=1.0), session.montage, modalities, seconds=SECONDS)
    return [decoder().decode(window).clip for window in cut]


def session(kind: type[PhantomSession] = PhantomSession) -> PhantomSession:
    return kind("easy", 1, 1210, SECONDS, film="natural")


def test_a_participant_who_watches_is_read_in_both_modalities() -> None:
    clips = decoded(session(), ["eeg", "fmri"])
    assert len(clips) == 6
    for clip in clips:
        assert clip.brain_by is not None
        assert min(value for value in clip.brain_by.values() if value is not None) > LEAST
    sure = [clip for clip in clips if clip.presence is not None and clip.presence.brain >= LEAST]
    assert len(sure) >= 4
    assert all(clip.confidence is not None for clip in sure)


@pytest.mark.parametrize(
    "noise_uv",
    [2.0, 400.0, pytest.param(20.0, marks=pytest.mark.full), pytest.param(100.0, marks=pytest.mark.full)],
)
def test_white_noise_in_the_cap_is_no_brain(noise_uv: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoisyCap, "noise_uv", noise_uv)
    for modalities in (["eeg"], ["eeg", "fmri"]):
        for clip in decoded(session(NoisyCap), modalities):
            assert clip.presence is not None
            assert clip.brain_by is not None
            assert clip.presence.brain < LEAST
            assert clip.confidence is None
            assert (clip.brain_by["eeg"] or 0) < LEAST
            if "fmri" in modalities:
                assert (clip.brain_by["fmri"] or 0) > LEAST, "the volumes are read"
            else:
                assert clip.brain_by["fmri"] is None
