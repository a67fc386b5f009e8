"""`rtdecode serve` and `rtdecode stream --decoder`, as they are run."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle, State
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from streaming.decode.decoder import GivenUpError, SharedDecoder
from streaming.serve import address, command, token
from streaming.serve.client import RemoteDecoder
from streaming.serve.command import ServeOptions
from tests.refusals import refused
from tests.streaming.bundles import changed, make_bundle
from tests.streaming.sessions import TR, WINDOW, play, text, until
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("command") / "bundle", steps=2)


@contextmanager
def serving(folder: Path, bundle: Bundle, *flags: str) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """Serve in a process of its own; yield it, and what it printed."""
    words = [sys.executable, "-m", "rtdecode.cli", "serve", str(bundle.path), "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*words, "--json", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or json.dumps(process.communicate()))
    finally:
        process.kill()
        process.communicate()


def test_it_says_where_and_what_it_serves_and_ends_in_order(bundle: Bundle, tmp_path: Path) -> None:
    with serving(tmp_path, bundle, "--sessions", "2") as (process, printed):
        assert printed["digest"] == bundle.digest
        assert printed["sessions"] == 2
        assert printed["costs_s"].keys() == {"1", "2", "4"}
        assert all(0 < cost["p50_s"] <= cost["p95_s"] for cost in printed["costs_s"].values())
        file = tmp_path / printed["token_file"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        addresses = address.parse(printed["url"])
        with closing(RemoteDecoder(bundle, addresses, token.read(file), patient_hops=1000)) as decoder:
            assert decoder.decode(window()).clip.frames.any()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert token.read(file) not in out + err
        assert err == ""


def test_what_cannot_be_served_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    def serve(**changes: object) -> None:
        command.run(ServeOptions(bundle=str(bundle.path), **changes))  # type: ignore[arg-type]

    secret = token.make(tmp_path / "secret")
    with refused(UsageError, "serve-address-malformed", address="8765"):
        serve(bind="8765")
    with refused(UsageError, "serve-not-protected", address="0.0.0.0:8765") as caught:
        serve(bind="0.0.0.0:8765", token_file=secret)
    assert caught.value.exit_code == 2
    with refused(UsageError, "serve-tls-incomplete"):
        serve(tls_key=secret)
    with refused(UsageError, "serve-tls-unreadable", certificate=secret):
        serve(tls_cert=secret, tls_key=secret)
    with refused(UsageError, "token-file-unreadable", path=tmp_path / "nothing"):
        serve(token_file=tmp_path / "nothing")
    secret.chmod(0o640)
    with refused(UsageError, "token-file-not-private", mode=0o640):
        serve(token_file=secret)
    short = tmp_path / "short"
    short.touch(mode=0o600)
    short.write_text("short\n")
    with refused(UsageError, "token-file-malformed", path=short):
        serve(token_file=short)


def test_a_bundle_that_carries_too_much_is_not_served(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = State("session", [1, 4, 9, 4, 6], "float32", source="latent")
    other = changed(bundle, tmp_path / "large", states=bundle.manifest.states | {"large": large})
    monkeypatch.setattr(command, "MOST_CARRIED_BYTES", 1000)
    secret = token.make(tmp_path / "secret")
    with refused(BundleError, "states-too-large-to-send", limit_mb=0.001):
        command.run(ServeOptions(bundle=str(other.path), token_file=secret))


def test_a_machine_that_is_too_slow_for_one_session_says_so(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "measure", lambda _: {1: {"p50_s": 3.0, "p95_s": 3.5}})
    secret = token.make(tmp_path / "secret")
    with refused(RtDecodeError, "serve-machine-too-slow", slowest_s=3.5, steps=1, hop_s=4.0):
        command.run(ServeOptions(bundle=str(bundle.path), token_file=secret))


def test_a_closed_form_bundle_has_one_cost(tmp_path: Path) -> None:
    costs = command.measure(SharedDecoder(make_bundle(tmp_path / "closed")))
    assert costs.keys() == {0}


@pytest.mark.full
def test_a_decoder_that_stands_still_costs_its_windows_and_no_more(bundle: Bundle, tmp_path: Path) -> None:
    with serving(tmp_path, bundle) as (process, printed):
        secret = token.read(tmp_path / printed["token_file"])
        addresses = address.parse(printed["url"])
        with closing(RemoteDecoder(bundle, addresses, secret, patient_hops=1000)) as decoder:
            expected = decoder.decode(window(0)).clip.latent
            process.send_signal(signal.SIGSTOP)
            with refused(GivenUpError, "window-given-up", why="the decoder elsewhere did not answer in time"):
                decoder.decode(window(1), left_s=0.5)
            process.send_signal(signal.SIGCONT)
            assert np.array_equal(decoder.decode(window(0)).clip.latent, expected)
            away, back = decoder.news()
    assert "it did not answer in time" in away
    assert "answers again" in back


@pytest.mark.full
def test_a_live_session_is_decoded_by_another_process(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW, steps=2)
    with serving(tmp_path, bundle) as (_, printed):
        flags = ("--decoder", printed["url"], "--token-file", str(tmp_path / printed["token_file"]))
        ended = play(tmp_path / "session", bundle.path, *flags, "--seconds", "10", seconds=16)
    assert ended.code == 0, ended.output
    assert ended.report["runs_on"] == printed["runs_on"]
    assert ended.report["latency_ms"]["wire"]["p50"] > 0
    assert ended.report["windows"]["final"] >= 2
    assert all(clip["bundle"] == bundle.digest for clip in ended.clips)


@pytest.mark.full
def test_a_live_session_goes_on_with_the_fallback_when_its_decoder_dies(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW, steps=4)
    fallback = make_bundle(tmp_path / "fallback", tr=TR, window=WINDOW, steps=2)
    with serving(tmp_path, bundle) as (process, printed):
        flags = ["--decoder", printed["url"], "--token-file", str(tmp_path / printed["token_file"])]
        flags += ["--fallback", str(fallback.path), "--seconds", "12"]

        def during(_session: subprocess.Popen[str], out: Path) -> None:
            until(lambda: '"final"' in text(out / "clips.jsonl"))
            process.kill()

        ended = play(tmp_path / "session", bundle.path, *flags, during=during, seconds=18)
    assert ended.code == 0, ended.output
    digests = [clip["bundle"] for clip in ended.finals()]
    assert digests[0] == bundle.digest
    assert digests[-1] == fallback.digest
    counted = ended.report["windows"]
    assert counted["fallback"] == digests.count(fallback.digest) > 0
    assert counted["final"] + counted["skipped"] == counted["expected"] == 12
    assert "the fallback test decodes instead of the decoder" in ended.output
    assert "has been away since" in ended.output


@pytest.mark.full
def test_a_fallback_that_reads_another_grid_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tr=TR, window=WINDOW)
    fallback = make_bundle(tmp_path / "fallback", tr=TR, window=2 * WINDOW)
    secret = token.make(tmp_path / "secret")
    flags = ["--decoder", "ws://127.0.0.1:1", "--token-file", str(secret), "--fallback", str(fallback.path)]
    ended = play(tmp_path / "session", bundle.path, *flags, seconds=5)
    assert ended.code == 4, ended.output
    assert "grid" in ended.output
    assert not ended.out.exists()
