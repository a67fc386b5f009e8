"""What dies, stands still, comes twice or turns out to be another: nothing is lost without being counted."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtdecode.bundle import Bundle
from rtdecode.bundle.session import to_bytes
from rtdecode.errors import BundleError, OutputError
from streaming.decode.decoder import GivenUpError, SharedDecoder
from streaming.decode.scheduler import SILENT_HOPS
from streaming.message import Message
from streaming.serve import address, token
from streaming.serve.client import RemoteDecoder
from streaming.serve.protocol import write
from tests.refusals import refused
from tests.streaming.bundles import LATENT, make_bundle
from tests.streaming.serve.messages import a_window
from tests.streaming.serve.running import remote, running, until
from tests.streaming.serve.test_command import serving
from tests.streaming.serve.test_pipelined import busy
from tests.streaming.serve.test_serve import film, greet, next_kind, opened, same
from tests.streaming.serve.test_session import job
from tests.streaming.serve.test_session import opened as output_of
from tests.streaming.session.test_acquisition import full_disk
from tests.streaming.windows import window

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("failures") / "bundle", steps=2)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


def test_a_number_that_comes_twice_is_answered_once(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        with busy(server):
            for number in (3, 4, 4):
                connection.send(write(a_window(number, carry_from=[], left_s=None)))
            until(lambda: len(server.scheduler) == 1)
        heads = [next_kind(connection).head for _ in range(6)]
        assert [head["number"] for head in heads] == [3, 3, 3, 4, 4, 4]
        connection.send(write(a_window(5, carry_from=[], left_s=None)))
        assert next_kind(connection).head["number"] == 5


def test_windows_out_of_order_are_decoded_all_the_same(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        for number in (9, 2, 5):
            connection.send(write(a_window(number, carry_from=[], left_s=None)))
        heads = [next_kind(connection).head for _ in range(9)]
        assert sorted(head["number"] for head in heads if head["kind"] == "done") == [2, 5, 9]


def test_a_billion_seconds_are_no_more_than_a_session_may_be_silent(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        with busy(server):
            for number in (1, 2):
                connection.send(write(a_window(number, carry_from=[], left_s=1e9)))
            until(lambda: len(server.scheduler) == 1)
            waiting = server.scheduler.requests[-1]
            assert waiting.deadline <= time.monotonic() + SILENT_HOPS * 4.0
        assert [next_kind(connection).head["kind"] for _ in range(3)] == ["first", "rest", "done"]


def test_states_of_another_bundle_are_refused_and_the_window_starts_afresh(shared: SharedDecoder) -> None:
    other = to_bytes({"carry": np.ones((1, LATENT[0], 2, *LATENT[2:]), np.float32)})
    message = a_window(carry_from=[6], left_s=None)
    raw = Message(message.head, message.arrays | {"states": np.frombuffer(other, np.uint8)})
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        connection.send(write(raw))
        done = [next_kind(connection) for _ in range(3)][-1]
        assert done.head["carried_from"] is None
        assert "and bundle" in done.head["note"]


def test_another_digest_after_a_reconnection_ends_the_session_with_4(
    shared: SharedDecoder, tmp_path: Path
) -> None:
    other = SharedDecoder(make_bundle(tmp_path / "other", steps=4))
    with running(shared) as server:
        decoder = remote(shared, server)
        decoder.decode(film()[0])
    with running(other, port=server.port), closing(decoder):
        for cut in film()[1:3]:
            with refused(BundleError, "decoder-bundle-mismatch") as caught:
                decoder.decode(cut)
            assert caught.value.exit_code == 4
            for digest in (other.bundle.digest, shared.bundle.digest):
                assert digest in str(caught.value)


def test_a_full_disk_at_the_edge_harms_no_decoder(shared: SharedDecoder, tmp_path: Path) -> None:
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        output = output_of(tmp_path, shared.bundle, decoder)
        output.emit(job(0))
        output.settle()
        with full_disk():
            output.emit(job(1))
            with refused(OutputError, "output-write-failed"):
                output.emit(job(2))
        output.leave_out()
        output.close()
        assert output.tally.counts["final"] == 1
        assert decoder.decode(window(3)).clip.frames.any()
        (session,) = server.scheduler.sessions
        # A window is counted once its last message is sent, which may be after the edge has it.
        until(lambda: sum(server.scheduler.counts(session).decoded.values()) == 4)
        assert sum(server.scheduler.counts(session).sent.values()) == 4


def test_a_decoder_that_is_away_for_long_is_told_once_and_found_again(shared: SharedDecoder) -> None:
    """Refused connections; that it lasts a minute is tested in full."""
    away_for(shared, 1.0)


@pytest.mark.full
def test_a_decoder_that_is_away_for_a_minute_is_found_again(shared: SharedDecoder) -> None:
    away_for(shared, 60.0)


def test_a_decoder_that_is_stuck_in_a_window_says_so(shared: SharedDecoder) -> None:
    with running(shared, hop_s=0.5) as server, closing(remote(shared, server)) as decoder:
        decoder.decode(film()[0])
        assert server.server.fault() is None
        with busy(server):
            clip = decoder.ask(film()[1], left_s=2.0)
            until(lambda: server.server.fault() is not None)
            assert "more than a hop after its time" in (server.server.fault() or "")
        clip.exception(60)
        until(lambda: server.server.fault() is None)


def away_for(shared: SharedDecoder, seconds: float) -> None:
    here = shared.session()
    with running(shared) as server:
        decoder = remote(shared, server)
        same(decoder.decode(film()[0]), here.decode(film()[0]))
    began = time.monotonic()
    threads = threading.active_count()
    given_up = 0
    while time.monotonic() < began + seconds:
        with refused(GivenUpError, "window-given-up", why="no decoder elsewhere could be reached in time"):
            # A quarter of a hop is granted besides.
            decoder.decode(film()[1], left_s=-0.8)
        given_up += 1
    assert given_up >= min(3, seconds)
    assert decoder.away_since is not None
    assert threading.active_count() <= threads
    with running(shared, port=server.port), closing(decoder):
        same(decoder.decode(film()[2]), here.decode(film()[2]))
        assert decoder.away_since is None
        away, back = decoder.news()
    assert "away since" in away
    assert "answers again" in back


@pytest.mark.full
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_decoder_that_is_killed_costs_nothing(when: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", steps=2, toil=20)
    here = SharedDecoder(bundle).session()
    secret = token.make(tmp_path / "secret")
    cuts = film(4)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(tmp_path, bundle, "--token-file", str(secret))) for _ in range(2)
        ]
        addresses = [place for _, printed in servers for place in address.parse(printed["url"])]
        decoder = stack.enter_context(
            closing(RemoteDecoder(bundle, addresses, token.read(secret), patient_hops=1000))
        )
        first = servers[0][0]
        for number, cut in enumerate(cuts):
            clip = None
            if number == 3 and when == "before":
                first.kill()
                first.wait()
            clip = decoder.ask(cut)
            if number == 3 and when == "while":
                time.sleep(0.03)
                assert not clip.done()
                first.kill()
            same(clip.result(120), here.decode(cut))
            if number == 3 and when == "after":
                first.kill()
        assert first.wait(20) == -signal.SIGKILL
        back = [sentence for sentence in decoder.news() if "answers again" in sentence]
        assert len(back) == 1


@pytest.mark.full
def test_a_decoder_that_stands_still_for_three_hops_costs_three_windows(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", steps=2, tr=Fraction(1, 2), window=Fraction(2))
    here = SharedDecoder(bundle).session()
    samples = 250
    cuts = [window(index, samples=samples, slots=4, seed=index) for index in range(6)]
    with serving(tmp_path, bundle) as (process, printed):
        secret = token.read(tmp_path / printed["token_file"])
        addresses = address.parse(printed["url"])
        with closing(RemoteDecoder(bundle, addresses, secret, patient_hops=1000)) as decoder:
            same(decoder.decode(cuts[0]), here.decode(cuts[0]))
            process.send_signal(signal.SIGSTOP)
            for cut in cuts[1:4]:
                with refused(GivenUpError, "window-given-up"):
                    decoder.decode(cut, left_s=2.0)
            process.send_signal(signal.SIGCONT)
            for cut in cuts[4:]:
                same(decoder.decode(cut), here.decode(cut))


EDGE = """
import sys, time
from pathlib import Path
from rtdecode import bundle as bundles
from streaming.serve import address, token
from streaming.serve.client import RemoteDecoder
from tests.streaming.windows import window
folder, url, secret = sys.argv[1:]
decoder = RemoteDecoder(bundles.load(folder), address.parse(url), token.read(Path(secret)))
decoder.decode(window())
print("decoded", flush=True)
time.sleep(600)
"""


@pytest.mark.full
def test_a_session_that_is_killed_is_forgotten_and_disturbs_nobody(
    shared: SharedDecoder, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("a-token-of-more-than-20-letters\n")
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        (lasting,) = server.scheduler.sessions
        url = server.address.url
        words = [sys.executable, "-c", EDGE, str(shared.bundle.path), url, str(secret)]
        edge = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert edge.stdout is not None
        assert edge.stdout.readline() == "decoded\n"
        assert len(server.scheduler.sessions) == 2
        edge.kill()
        edge.communicate()
        assert decoder.decode(window()).clip.frames.any()
        (other,) = [name for name in server.scheduler.sessions if name != lasting]
        # As if it had been heard of last 10 hops ago.
        server.scheduler.open(other, time.monotonic() - (SILENT_HOPS + 1) * 4.0)
        until(lambda: server.scheduler.sessions == [lasting])
        assert decoder.decode(window(1)).clip.frames.any()
