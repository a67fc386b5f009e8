"""Sessions that are decoded elsewhere, on this machine: what they get is what they would get here."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.types import Window
from streaming.decode.decoder import Decoded, GivenUpError, NonFiniteError, SharedDecoder
from streaming.decode.scheduler import MOST_UNDER_WAY, SILENT_HOPS
from streaming.message import Message, encode
from streaming.serve.client import RemoteDecoder
from streaming.serve.protocol import FROM_DECODER, VersionError, read, write
from tests.refusals import refused
from tests.streaming.bundles import changed, make_bundle
from tests.streaming.serve.messages import SESSION, SHAPES, a_window
from tests.streaming.serve.running import TOKEN, Running, remote, running
from tests.streaming.windows import window


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    confidence = {"fitted_on": "a held-out run"}
    return make_bundle(tmp_path_factory.mktemp("serve") / "bundle", steps=4, confidence=confidence)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


def film(count: int = 4, seed: int = 1) -> list[Window]:
    """Previews and finals in the order of their cuts."""
    cuts = []
    for index in range(count):
        cuts.append((4.0 * index + 4, window(index, "preview", fmri=False, seed=seed + index)))
        cuts.append((4.0 * index + 8.8, window(index, seed=seed + index)))
    cuts.sort(key=lambda cut: cut[0])
    return [replace(cut, stamps={"windowed": cut_at}) for cut_at, cut in cuts]


def same(decoded: Decoded, other: Decoded) -> None:
    """Two clips are the same to the bit, with all that is told of them."""
    assert np.array_equal(decoded.clip.latent, other.clip.latent)
    assert np.array_equal(decoded.clip.frames, other.clip.frames)
    assert decoded.carried_from == other.carried_from
    for name in ("scores", "steps", "confidence", "presence", "brain_by", "detail", "recorded"):
        assert getattr(decoded.clip, name) == getattr(other.clip, name), name
    assert [stage for stage, _ in decoded.calls] == [stage for stage, _ in other.calls]


def test_a_session_elsewhere_gets_what_it_would_get_here(shared: SharedDecoder) -> None:
    here = shared.session(tell_condition=True)
    with running(shared) as server, closing(remote(shared, server, tell_condition=True)) as decoder:
        assert decoder.runs_on == shared.runs_on
        assert decoder.cost == shared.cost
        assert (decoder.steps, decoder.numbers_of_steps) == (shared.steps, shared.numbers_of_steps)
        for cut in film():
            before = time.monotonic()
            decoded = decoder.decode(cut)
            after = time.monotonic()
            expected = here.decode(cut)
            same(decoded, expected)
            assert np.array_equal(decoded.condition, expected.condition)  # type: ignore[arg-type]
            times = [decoded.started_at, decoded.encoded_at, decoded.denoised_at, decoded.first_frame_at]
            assert [before, *times, decoded.last_frame_at, after] == sorted(
                [before, *times, decoded.last_frame_at, after]
            )
            assert decoded.wire_s is not None
            assert 0 <= decoded.wire_s < after - before
        twin = decoder.decode(film()[-1], null=True)
        same(twin, here.decode(film()[-1], null=True))
        assert decoder.news() == []


def test_steps_detail_and_the_revision_to_carry_on_from_are_taken_over(tmp_path: Path) -> None:
    shared = SharedDecoder(make_bundle(tmp_path / "choosing", steps=4, detail=0.5))
    here = shared.session()
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        for cut in film(2):
            same(decoder.decode(cut, 2, detail=0.25), here.decode(cut, 2, detail=0.25))
        cut = film(3)[-1]
        same(decoder.decode(cut, chain=[]), here.decode(cut, chain=[]))


def test_a_session_without_carry_starts_every_window_afresh(shared: SharedDecoder) -> None:
    here = shared.session(carry=False)
    with running(shared) as server, closing(remote(shared, server, carry=False)) as decoder:
        for cut in film(2):
            decoded = decoder.decode(cut)
            same(decoded, here.decode(cut))
            assert decoded.carried_from is None


def test_a_closed_form_bundle_is_decoded_elsewhere(tmp_path: Path) -> None:
    shared = SharedDecoder(make_bundle(tmp_path / "closed", labels=["face", "house"]))
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        same(decoder.decode(window()), shared.session().decode(window()))


def test_sessions_share_the_decoder_and_do_not_mix(shared: SharedDecoder) -> None:
    sessions: dict[int, list[Decoded]] = {}

    def session(server: Running, seed: int) -> None:
        with closing(remote(shared, server)) as decoder:
            sessions[seed] = [decoder.decode(cut) for cut in film(3, seed)]

    with running(shared) as server:
        threads = [threading.Thread(target=session, args=(server, 10 * n)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for seed, decoded in sessions.items():
        here = shared.session()
        for clip, cut in zip(decoded, film(3, seed), strict=True):
            same(clip, here.decode(cut))


def test_a_decoder_that_was_started_again_goes_on_to_the_bit(shared: SharedDecoder) -> None:
    here = shared.session()
    cuts = film(4)
    with running(shared) as first:
        decoder = remote(shared, first)
        for cut in cuts[:4]:
            same(decoder.decode(cut), here.decode(cut))
        port = first.port
    with running(shared, port=port), closing(decoder):
        for cut in cuts[4:]:
            same(decoder.decode(cut), here.decode(cut))
        away, back = decoder.news()
    assert away.startswith("the decoder elsewhere has been away since ")
    assert back.startswith("a decoder elsewhere answers again, after ")


def test_another_address_takes_the_session_over(shared: SharedDecoder) -> None:
    here = shared.session()
    cuts = film(3)
    with running(shared) as second:
        with running(shared) as first:
            decoder = remote(shared, first, second)
            same(decoder.decode(cuts[0]), here.decode(cuts[0]))
            assert len(first.scheduler.sessions) == 1
        with closing(decoder):
            for cut in cuts[1:]:
                same(decoder.decode(cut), here.decode(cut))
            assert len(second.scheduler.sessions) == 1


def test_a_window_is_given_up_when_its_time_is_over(shared: SharedDecoder) -> None:
    with running(shared) as server:
        decoder = remote(shared, server)
        assert decoder.decode(film()[0]).clip.steps == 4
        with refused(GivenUpError, "window-given-up", why="the decoder cannot keep up"):
            decoder.decode(film()[2], left_s=0.0)
    began = time.monotonic()
    with refused(GivenUpError, "window-given-up", why="no decoder elsewhere could be reached in time"):
        decoder.decode(film()[3], left_s=0.2)
    # A quarter of a hop is granted besides.
    assert time.monotonic() - began >= 1.2
    (away,) = decoder.news()
    assert "away since" in away


def test_values_that_are_not_finite_give_no_clip_elsewhere_either(tmp_path: Path) -> None:
    shared = SharedDecoder(make_bundle(tmp_path / "bundle", steps=2))
    loud = window(1)
    assert loud.eeg is not None
    loud.eeg[0, 7] = 3e38
    loud.eeg[0, 8] = 3e38
    here, other = shared.session(), shared.session()
    for decoder_here in (here, other):
        decoder_here.decode(window(0))
    with running(shared) as server, closing(remote(shared, server)) as decoder:
        decoder.decode(window(0))
        try:
            here.decode(loud)
        except NonFiniteError as error:
            with refused(NonFiniteError, "window-output-not-finite", message=str(error)):
                decoder.decode(loud)
        else:
            pytest.fail("the window was to overflow")
        same(decoder.decode(window(2)), other.decode(window(2)))


def test_another_bundle_is_refused_with_both_digests(shared: SharedDecoder, tmp_path: Path) -> None:
    other = changed(shared.bundle, tmp_path / "other", name="other")
    with running(shared) as server, refused(BundleError, "decoder-bundle-mismatch") as caught:
        RemoteDecoder(other, [server.address], TOKEN)
    assert caught.value.exit_code == 4
    for digest in (other.digest, shared.bundle.digest):
        assert digest in str(caught.value)


def test_the_token_is_asked_for(shared: SharedDecoder) -> None:
    with running(shared) as server:
        with refused(UsageError, "decoder-token-wrong", address=server.address.url) as caught:
            remote(shared, server, token=TOKEN + "x")
        assert TOKEN not in str(caught.value)


def test_where_nobody_serves_it_says_so(shared: SharedDecoder) -> None:
    with running(shared) as server:
        pass
    with refused(RtDecodeError, "decoder-unreachable") as caught:
        remote(shared, server)
    assert server.address.url in str(caught.value)


def test_no_more_sessions_are_let_in_than_fit(shared: SharedDecoder) -> None:
    with running(shared, capacity=1) as server:
        with closing(remote(shared, server)):
            with refused(RtDecodeError, "decoder-unreachable") as caught:
                remote(shared, server)
            assert "has 1 sessions, and 1 fit" in str(caught.value)
        deadline = time.monotonic() + 20
        while server.scheduler.sessions and time.monotonic() < deadline:
            time.sleep(0.01)
        remote(shared, server).close()


def test_no_graph_is_loaded_where_a_decoder_elsewhere_is_asked(
    shared: SharedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a graph was loaded")

    with running(shared) as server:
        monkeypatch.setattr("rtdecode.bundle.graph.Graph.__init__", fail)
        with closing(remote(shared, server)) as decoder:
            assert decoder.decode(window()).clip.frames.any()


def opened(server: Running) -> ClientConnection:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return connect(server.address.url, additional_headers=headers, compression=None, proxy=None)


def greet(connection: ClientConnection, session: str = SESSION) -> Message:
    connection.send(write(Message({"kind": "hello", "release": "1.0", "session": session}, {})))
    return read(connection.recv(timeout=20), FROM_DECODER, SHAPES)


def next_kind(connection: ClientConnection) -> Message:
    return read(connection.recv(timeout=20), FROM_DECODER, SHAPES)


def test_parts_of_a_clip_come_in_turn(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        assert greet(connection).head["kind"] == "welcome"
        message = a_window(carry_from=[], left_s=None)
        connection.send(write(message))
        first, remaining, done = (next_kind(connection) for _ in range(3))
        assert [part.head["kind"] for part in (first, remaining, done)] == ["first", "rest", "done"]
        assert len(first.arrays["frames"]) == 1
        assert len(remaining.arrays["frames"]) == 32
        assert done.head["number"] == 7


def test_states_that_are_not_held_are_asked_for_and_bad_ones_are_refused(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        message = a_window(carry_from=[6], left_s=None)
        without = {name: array for name, array in message.arrays.items() if name != "states"}
        connection.send(write(Message(message.head, without)))
        assert next_kind(connection).head == {"version": 1, "kind": "unknown", "number": 7}
        connection.send(write(message))
        done = [next_kind(connection) for _ in range(3)][-1]
        assert done.head["carried_from"] == 6
        assert done.head["note"] is None
        states = message.arrays["states"].copy()
        states[-4:] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
        bad = Message({**message.head, "number": 8}, message.arrays | {"states": states})
        connection.send(write(bad))
        done = [next_kind(connection) for _ in range(3)][-1]
        assert done.head["carried_from"] is None
        assert "not finite" in done.head["note"]


def ended(connection: ClientConnection) -> Message:
    """The last message before the connection is closed."""
    last = None
    try:
        while True:
            last = next_kind(connection)
    except ConnectionClosed:
        assert last is not None
        assert last.head["kind"] == "closed"
        return last


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\1\0\0\0{", "serve-message-invalid"),
        ("text", "serve-message-invalid"),
        (write(Message({"kind": "bye", "session": "f" * 32}, {})), "serve-message-unexpected"),
        (
            write(Message({"kind": "hello", "release": "1.0", "session": SESSION}, {})),
            "serve-message-unexpected",
        ),
        (write(a_window(left_s=1e9))[:-1], "serve-message-invalid"),
    ],
)
def test_a_connection_that_breaks_the_protocol_is_closed_with_a_sentence(
    shared: SharedDecoder, raw: bytes | str, code: str
) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        connection.send(raw)
        assert ended(connection).head["code"] == code
        with closing(remote(shared, server)) as decoder:
            assert decoder.decode(window()).clip.frames.any(), "the others go on"


def test_another_version_names_both_releases_and_ends_with_4(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        head = {"version": 2, "kind": "hello", "release": "9.9", "session": SESSION}
        connection.send(encode(Message(head, {})))
        last = ended(connection)
        assert last.head["code"] == "serve-version-mismatch"
        assert "9.9" in last.head["message"]
        assert last.head["exit_code"] == VersionError.exit_code == 4


def test_the_newer_of_two_connections_of_a_session_wins(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as older, opened(server) as newer:
        greet(older)
        greet(newer)
        assert ended(older).head["code"] == "serve-session-taken-over"
        newer.send(write(a_window(carry_from=[], left_s=None)))
        assert next_kind(newer).head["kind"] == "first"


def test_a_session_that_ends_is_forgotten_and_one_that_breaks_off_is_not(shared: SharedDecoder) -> None:
    with running(shared) as server:
        with opened(server) as connection:
            greet(connection)
        with opened(server) as connection:
            greet(connection, "e" * 32)
            connection.socket.close()
        deadline = time.monotonic() + 20
        while server.scheduler.sessions != ["e" * 32] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.scheduler.sessions == ["e" * 32]
        # A session that was killed does not come back, and is forgotten after 10 hops.
        server.scheduler.open("e" * 32, time.monotonic() - (SILENT_HOPS + 1) * 4.0)
        deadline = time.monotonic() + 60
        while server.scheduler.sessions and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.scheduler.sessions == []


def test_more_windows_than_may_be_under_way_close_the_connection(shared: SharedDecoder) -> None:
    with running(shared) as server, opened(server) as connection:
        greet(connection)
        # The windows wait.
        server.decoder.released.clear()
        try:
            for number in range(MOST_UNDER_WAY + 1):
                connection.send(write(a_window(number, carry_from=[], left_s=None)))
            assert ended(connection).head["code"] == "serve-too-many-windows"
        finally:
            server.decoder.released.set()
