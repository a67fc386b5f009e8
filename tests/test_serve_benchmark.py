"""The figures of a decoder that many sessions share."""

import socket
import threading
import time

import numpy as np
import pytest

from benchmarks import serve, serve_sessions
from benchmarks.serve_windows import paced, random_windows
from rtdecode import bundle as bundles


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return serve.schedule(seconds=60.0)


def test_the_scheduler_meets_its_bars_on_a_virtual_clock(rows: list[dict]) -> None:
    assert serve.misses(rows) == []
    assert [(row["load"], row["cuts"]) for row in rows] == [
        (load, cuts) for load in (0.8, 1.5, 2.2) for cuts in ("evenly", "together")
    ]
    for row in rows:
        assert row["windows"] == pytest.approx(8 * 60 / row["hop_s"], abs=8)
        assert sum(row["steps"].values()) == pytest.approx(1, abs=1e-4)


def test_a_figure_that_misses_its_bar_is_named(rows: list[dict]) -> None:
    bad = {"skipped": 0.04, "late": 0.02, "fairness": 0.5, "steps": {"4": 0.98, "2": 0.02}}
    sentences = serve.misses([row | bad for row in rows])
    assert len(sentences) == 2 * (3 + 3 + 2)
    assert sentences[0] == "load 0.8, cut evenly: skipped is 0.04, and at most 0.0% was asked for"
    assert any("late is 0.02" in sentence for sentence in sentences)
    assert any("at least 99% with four" in sentence for sentence in sentences)


def test_the_same_seed_gives_the_same_figures(rows: list[dict]) -> None:
    assert serve.row(2.2, "together", 60.0, 1) == rows[-1]
    assert serve.row(2.2, "together", 60.0, 2) != rows[-1]


def test_windows_are_held_back_to_their_pace() -> None:
    windows = list(random_windows(bundles.load("phantom"), 4))
    began_at = time.monotonic()
    assert list(paced(windows, 0.1)) == windows
    assert time.monotonic() - began_at >= 0.3
    assert [window.revision for window in windows] == ["preview", "final"] * 2


def test_a_forwarder_delays_limits_and_loses_nothing() -> None:
    sent = np.random.default_rng(1).bytes(200_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                received = b""
                while len(received) < len(sent):
                    received += connection.recv(65_536)
                connection.sendall(received[::-1])

        thread = threading.Thread(target=answer)
        thread.start()
        with serve_sessions.forwarder(port, 0.05, 20.0) as far:
            with socket.create_connection(("127.0.0.1", far)) as connection:
                began_at = time.monotonic()
                connection.sendall(sent)
                back = b""
                while piece := connection.recv(65_536):
                    back += piece
            took_s = time.monotonic() - began_at
        thread.join()
    assert back == sent[::-1]
    # 1.6 Mbit each way at 20 Mbit/s, and a round trip of 100 ms.
    assert took_s >= 0.16 + 0.1


def test_latency_is_held_against_an_echo_where_the_machine_is_noisy() -> None:
    figures = {"added_ms": {"p50": 9.0, "p99": 15.0}, "ratio": 1.8, "probe_ms": {"p99_ms": 2.0}}
    (sentence,) = serve.latency_misses(figures)
    assert sentence == "latency p50 is 9.0, and at most 8.0 ms was asked for"
    noisy = figures | {"probe_ms": {"p99_ms": 30.0}}
    assert serve.latency_misses(noisy) == []
    assert len(serve.latency_misses(noisy | {"ratio": 2.1})) == 1


def test_sessions_that_come_and_go_for_20_s_leave_no_memory_behind() -> None:
    figures = serve_sessions.soak("phantom", 20)
    assert figures["sessions"] > 4
    assert figures["growth"] <= serve_sessions.LARGEST_GROWTH


@pytest.mark.full
def test_kills_a_link_and_sessions_that_come_and_go() -> None:
    figures = serve_sessions.kills("phantom", 2)
    assert figures["back"] == 2
    assert figures["clips"] + sum(figures["given_up"].values()) == figures["windows"]
    figures = serve_sessions.link("phantom", 50, 20, 6)
    assert figures["lost"] == 0
    assert figures["wire_s"]["p50"] > 0.05
    figures = serve_sessions.soak("phantom", 120)
    assert figures["sessions"] > 4
    assert figures["growth"] <= serve_sessions.LARGEST_GROWTH
