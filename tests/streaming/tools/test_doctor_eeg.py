"""What `rtdecode doctor` concludes from what a stream sent."""

from collections.abc import Callable

import numpy as np
import pytest

from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.types import EegChunk, Montage
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import Finding
from streaming.tools.doctor_eeg import findings

SECONDS = 5.0
CHUNK_S = 0.02


@pytest.fixture(scope="module")
def phantom() -> Bundle:
    return bundles.load("phantom")


def cap(bundle: Bundle, sfreq: float = 500.0, without: int = 0) -> Montage:
    assert bundle.manifest.eeg is not None
    return Montage(tuple(bundle.manifest.eeg.channels[without:]), sfreq)


def capture(
    montage: Montage, true_hz: float, spread_uv: float = 40.0, notes: tuple[str, ...] = ()
) -> EegCapture:
    """Noise that comes at a rate of its own, stamped as it arrives."""
    rng = np.random.default_rng(0)
    size = round(CHUNK_S * true_hz)
    chunks = []
    for n in range(round(SECONDS / CHUNK_S)):
        data = rng.normal(0, spread_uv, (len(montage.channels), size)).astype(np.float32)
        stamps = 100.0 + (n * size + np.arange(size)) / true_hz
        chunks.append(EegChunk(data, stamps, 100.0 + (n + 1) * CHUNK_S))
    return EegCapture(montage, list(chunks), True, "LSL stream 'EEG'", list(notes))


def judged(bundle: Bundle, what: EegCapture) -> dict[str, Finding]:
    assert bundle.manifest.eeg is not None
    return {finding.subject: finding for finding in findings(what, bundle, bundle.manifest.eeg)}


def spoiled(what: EegCapture, spoil: Callable[[np.ndarray], None]) -> EegCapture:
    for chunk in what.chunks:
        spoil(chunk.data)
    return what


def test_what_fits_passes(phantom: Bundle) -> None:
    by_subject = judged(phantom, capture(cap(phantom), 500.0))
    assert {finding.state for finding in by_subject.values()} == {"ok"}, by_subject


def test_channels_that_are_not_there_are_interpolated_or_refused(phantom: Bundle) -> None:
    three_missing = judged(phantom, capture(cap(phantom, without=3), 500.0))["cap"]
    assert three_missing.state == "note"
    assert "61 of the bundle's 64 channels; Fp1, Fpz, Fp2 would be interpolated" in three_missing.found
    many = judged(phantom, capture(cap(phantom, without=20), 500.0))["cap"]
    assert many.state == "bad"
    assert "20 of them" in many.found


@pytest.mark.parametrize(
    ("declared", "true", "message"),
    [
        (500.0, 1000.0, "declares 500 Hz and sends 1000"),
        (1000.0, 500.0, "declares 1000 Hz and sends 500"),
        (100.0, 100.0, "bundle reads 125"),
    ],
)
def test_a_rate_that_is_not_the_declared_one_or_too_low(
    phantom: Bundle, declared: float, true: float, message: str
) -> None:
    rate = judged(phantom, capture(cap(phantom, declared), true))["rate"]
    assert rate.state == "bad"
    assert message in rate.found
    assert rate.advice.startswith("set the")


@pytest.mark.parametrize("spread_uv", [40e-6, 40e3])
def test_volts_that_are_called_microvolts_are_told_by_their_level(phantom: Bundle, spread_uv: float) -> None:
    by_subject = judged(phantom, capture(cap(phantom), 500.0, spread_uv))
    assert by_subject["level"].state == "bad"


def test_the_advice_on_a_level_holds_nothing_but_what_to_do(phantom: Bundle) -> None:
    level = judged(phantom, capture(cap(phantom), 500.0, 40e3))["level"]
    assert level.found.startswith("the EEG's standard deviation in the bundle's band is")
    assert level.advice.startswith("check the unit that the outlet declares")
    assert level.advice.endswith("the amplifier's gain")


def test_values_that_are_no_numbers_are_counted_and_the_channel_named(phantom: Bundle) -> None:
    def spoil(data: np.ndarray) -> None:
        data[2, ::2] = np.nan

    by_subject = judged(phantom, spoiled(capture(cap(phantom), 500.0), spoil))
    assert by_subject["samples"].state == "bad"
    assert by_subject["samples"].found.startswith("50% of the samples")
    assert by_subject["samples"].found.endswith("1 channel: Fp2")


def test_a_dead_channel_is_named(phantom: Bundle) -> None:
    def spoil(data: np.ndarray) -> None:
        data[8] = 0.0

    level = judged(phantom, spoiled(capture(cap(phantom), 500.0), spoil))["level"]
    assert level.state == "note"
    assert level.found.endswith("; 1 bad channel: F7")


def test_a_unit_that_was_concluded_is_said(phantom: Bundle) -> None:
    unit = judged(phantom, capture(cap(phantom), 500.0, notes=("taken as volts",)))["unit"]
    assert (unit.state, unit.found) == ("note", "taken as volts")


def test_a_stream_that_sends_nothing_is_bad(phantom: Bundle) -> None:
    silent = EegCapture(cap(phantom), [], False, "LSL stream 'EEG': 64 EEG channels", [])
    (finding,) = judged(phantom, silent).values()
    assert finding.state == "bad"
    assert "no sample came" in finding.found
    stopped = capture(cap(phantom), 500.0)
    short = EegCapture(stopped.montage, stopped.items[:5], True, stopped.state, [])
    assert judged(phantom, short)["rate"].state == "bad"
