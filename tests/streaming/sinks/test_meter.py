import pytest

from streaming.sinks import meter
from tests.streaming.windows import window

STAMPS = {"acquired": 99.9, "windowed": 100.0, "encoded": 100.03, "first_frame": 100.04}
STAMPS |= {"last_frame": 100.06, "emitted": 100.09, "stop": 95.0}


def test_durations_of_a_final() -> None:
    costs = {"volume_to_vector": 9.5, "eeg_push": None}
    latency_ms = meter.durations(window(windowed_at=100.0), 100.02, STAMPS, costs, live=True)
    assert latency_ms == pytest.approx(
        {
            "volume_to_vector": 9.5,
            "eeg_push": None,
            "encode": 10,
            "denoise": None,
            "first_frame": 40,
            "last_frame": 60,
            "beyond_floor": 100,
            "beyond_floor_preview": None,
            "since_stimulus": 5090,
            "wire": None,
        }
    )


def test_a_preview_has_its_own_name_beyond_the_floor() -> None:
    latency_ms = meter.durations(window(revision="preview", windowed_at=100.0), 100.02, STAMPS, {}, live=True)
    assert latency_ms["beyond_floor"] is None
    assert latency_ms["beyond_floor_preview"] == pytest.approx(100)


def test_on_a_virtual_clock_only_decoding_is_known() -> None:
    latency_ms = meter.durations(window(windowed_at=5.0), 100.02, STAMPS, {}, live=False)
    assert {name for name, value in latency_ms.items() if value is not None} == {
        "encode",
        "first_frame",
        "last_frame",
    }
    assert latency_ms["last_frame"] == pytest.approx(40)
    assert set(meter.instants(window(), STAMPS, live=False).values()) == {None}


def test_the_time_on_the_way_to_a_decoder_elsewhere_is_told() -> None:
    latency_ms = meter.durations(window(), 100.02, STAMPS, {}, live=True, wire_s=0.0125)
    assert latency_ms["wire"] == 12.5


def test_instants_are_relative_to_the_floor() -> None:
    instants = meter.instants(window(windowed_at=100.0), STAMPS, live=True)
    assert list(instants) == list(meter.INSTANTS)
    assert instants["emitted"] == pytest.approx(100)
    assert instants["parsed"] is None


def test_percentiles() -> None:
    collected = meter.Meter()
    for n in range(1, 101):
        collected.add({"encode": float(n), "eeg_push": None})
    summary = collected.summary()
    assert summary["eeg_push"] is None
    assert summary["encode"] == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01, "max": 100})


def test_denoising_is_told_where_there_was_a_step() -> None:
    stamps = STAMPS | {"denoised": 100.035}
    assert meter.durations(window(), 100.02, stamps, {}, live=False)["denoise"] == pytest.approx(5)
    assert "denoised" not in meter.instants(window(), stamps, live=True)


def test_of_a_long_session_the_newest_values_count() -> None:
    counted = meter.Meter(n_newest=5)
    for value in range(13):
        counted.add({"encode": float(value)})
    assert counted.summary()["encode"] == pytest.approx({"p50": 10, "p95": 11.8, "p99": 11.96, "max": 12})
