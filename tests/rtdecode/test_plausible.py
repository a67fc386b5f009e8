"""Limits on what a measurement can be."""

import math

import pytest

from rtdecode import plausible


@pytest.mark.parametrize(
    ("sfreq_hz", "channels"), [(250, 1), (5000, 64), (100_000, 128), (0, 1), (38_400, 512), (1, 1024)]
)
def test_what_amplifiers_declare_is_believed(sfreq_hz: float, channels: int) -> None:
    assert plausible.stream_size(sfreq_hz, channels) is None


@pytest.mark.parametrize(
    ("sfreq_hz", "channels"),
    [
        (1e6, 64),
        (1e308, 1),
        (1e-3, 4),
        (math.inf, 1),
        (math.nan, 1),
        (-1, 64),
        (-math.inf, 64),
        (250, 0),
        (250, -1),
        (250, 100_000),
        (100_000, 1024),
    ],
)
def test_what_no_amplifier_has_is_told(sfreq_hz: float, channels: int) -> None:
    explanation = plausible.stream_size(sfreq_hz, channels)
    assert explanation is not None
    assert f"declares {channels} channels at {sfreq_hz:g} Hz" in explanation
