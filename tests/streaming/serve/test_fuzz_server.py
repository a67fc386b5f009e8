"""A session that sends nonsense to a decoder harms nobody else."""

import random
from contextlib import closing

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rtdecode.bundle import Bundle
from streaming.decode.decoder import SharedDecoder
from streaming.message import Message
from streaming.serve import server
from streaming.serve.protocol import write
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.messages import SESSION, from_session
from tests.streaming.serve.running import TOKEN, Running, remote, running
from tests.streaming.serve.test_fuzz import SEED, mutated
from tests.streaming.windows import window

# The other session decodes a window after so many messages.
_ROUND = 50
_MOST_GROWTH_BYTES = 20_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("fuzz") / "bundle", steps=1)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


def connecting(decoder_server: Running) -> ClientConnection:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return connect(decoder_server.address.url, additional_headers=headers, compression=None, proxy=None)


def send_until_closed(connection: ClientConnection, raws: list[bytes], rng: random.Random) -> int:
    """Greet, and send mutated messages until the server closes the connection; return how many."""
    hello = write(Message({"kind": "hello", "release": "1.0", "session": SESSION}, {}))
    first = hello if rng.random() < 0.8 else mutated(hello, rng)
    count = 0
    try:
        connection.send(first)
        while count < _ROUND:
            count += 1
            connection.send(mutated(rng.choice(raws), rng))
            connection.recv(timeout=0.001)
    except TimeoutError:
        # The message was a window, which is being decoded.
        return count
    except ConnectionClosed:
        return count
    return count


def attack(shared: SharedDecoder, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[BaseException] = []
    handle = server.DecoderServer.connected

    async def watched(self: server.DecoderServer, connection: server.ServerConnection) -> None:
        try:
            await handle(self, connection)
        except Exception as error:
            faults.append(error)
            raise

    monkeypatch.setattr(server.DecoderServer, "connected", watched)
    rng = random.Random(SEED)
    raws = [write(message) for message in from_session().values()]
    # Random weights make of a carried latent a larger one: after hundreds of windows it would be infinite.
    with running(shared) as decoder_server, closing(remote(shared, decoder_server, carry=False)) as decoder:
        (name,) = decoder_server.scheduler.sessions
        before = None
        sent = 0
        index = 0
        while sent < count:
            for _ in range(_ROUND):
                with connecting(decoder_server) as connection:
                    sent += send_until_closed(connection, raws, rng)
            # Let it send one more window, as it may after a hop.
            decoder_server.scheduler.later_s[name] += 4.0
            assert decoder.decode(window(index)).clip.frames.any()
            index += 1
            now = psutil.Process().memory_info().rss
            # The first round loads what is loaded once.
            before = now if before is None else before
            assert now - before < _MOST_GROWTH_BYTES
    assert faults == []


def test_nonsense_leaves_the_other_sessions_alone(
    shared: SharedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack(shared, 300, monkeypatch)


@pytest.mark.full
def test_20000_messages_of_nonsense_leave_the_other_sessions_alone(
    shared: SharedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack(shared, 20_000, monkeypatch)
