"""Who reaches the port and has no token gets nothing, and who has one cannot harm the others."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, UsageError
from streaming.decode.decoder import SharedDecoder
from streaming.message import Message
from streaming.serve import address, token
from streaming.serve.client import RemoteDecoder, tls_context
from streaming.serve.protocol import FROM_DECODER, MOST_BYTES, read, write
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.serve.messages import SESSION, SHAPES, a_window
from tests.streaming.serve.running import TOKEN, Running, remote, running, until
from tests.streaming.serve.test_command import serving
from tests.streaming.windows import window
from tests.test_deploy import run_check


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("security") / "bundle", steps=1)


@pytest.fixture(scope="module")
def shared(bundle: Bundle) -> SharedDecoder:
    return SharedDecoder(bundle)


def certificate(folder: Path, name: str, days: int = 2, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """Make a certificate that signs itself, and its key."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "the tests of TLS need openssl"
    cert, key, request = (folder / f"{name}.{kind}" for kind in ("pem", "key", "req"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}"]
    request_command = [openssl, "req", *curve, *subject, "-keyout", str(key), "-out", str(request)]
    signed = [openssl, "x509", "-req", "-in", str(request), "-signkey", str(key), "-out", str(cert)]
    for words in (request_command, [*signed, "-days", str(days), "-copy_extensions", "copy"]):
        subprocess.run(words, check=True, capture_output=True)
    return cert, key


@contextmanager
def encrypted(
    bundle: Bundle, cert: Path, key: Path
) -> Iterator[tuple[str, Callable[[ssl.SSLContext], RemoteDecoder]]]:
    """Serve with a certificate, by the command; yield the address, and what asks for a session."""
    secret = token.make(key.parent / "secret")
    flags = ("--tls-cert", cert, "--tls-key", key, "--token-file", secret)
    with serving(key.parent, bundle, *map(str, flags)) as (_, printed):
        assert printed["url"].startswith("wss://")
        addresses = address.parse(printed["url"])
        yield (
            printed["url"],
            lambda tls: RemoteDecoder(bundle, addresses, token.read(secret), tls=tls, patient_hops=1000),
        )


def test_an_encrypted_session_verifies_the_decoders_certificate(bundle: Bundle, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "site")
    other, _ = certificate(tmp_path, "other")
    with encrypted(bundle, cert, key) as (url, ask):
        with closing(ask(tls_context(cert))) as decoder:
            assert decoder.decode(window()).clip.frames.any()
        # The check of the container, which knows no token.
        assert run_check("gpu", port=url.rpartition(":")[2]).returncode == 0
        for authority in (other, None):
            with refused(RtDecodeError, "decoder-unreachable") as caught:
                ask(tls_context(authority))
            assert "certificate verify failed" in str(caught.value)


@pytest.mark.parametrize(
    ("how", "words"), [({"days": -1}, "expired"), ({"host": "IP:192.0.2.1"}, "not valid for '127.0.0.1'")]
)
def test_an_expired_certificate_and_one_of_another_host_are_refused(
    bundle: Bundle, tmp_path: Path, how: dict, words: str
) -> None:
    cert, key = certificate(tmp_path, "site", **how)
    with encrypted(bundle, cert, key) as (_, ask), refused(RtDecodeError, "decoder-unreachable") as caught:
        ask(tls_context(cert))
    assert words in str(caught.value)


def test_an_authority_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate\n")
    with refused(UsageError, "decoder-ca-unreadable", path=file):
        tls_context(file)


def connected(decoder_server: Running) -> ClientConnection:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return connect(decoder_server.address.url, additional_headers=headers, compression=None, proxy=None)


def greeted(connection: ClientConnection, session: str = SESSION) -> ClientConnection:
    connection.send(write(Message({"kind": "hello", "release": "1.0", "session": session}, {})))
    assert read(connection.recv(timeout=60), FROM_DECODER, SHAPES).head["kind"] == "welcome"
    return connection


def raw_request(decoder_server: Running, headers: bytes = b"") -> bytes:
    """Send an HTTP request, and return what comes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", decoder_server.port), timeout=60) as plain:
        head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        parts = []
        try:
            plain.sendall(head + key + headers + b"\r\n")
            while part := plain.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def test_nothing_is_told_without_the_token(shared: SharedDecoder) -> None:
    with running(shared) as decoder_server:
        for header in (b"", b"Authorization: Bearer wrong\r\n", b"Authorization: \xff\r\n"):
            answer = raw_request(decoder_server, header)
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"rtdecode_" not in answer
        answer = raw_request(decoder_server, f"Authorization: Bearer {TOKEN}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"rtdecode_sessions 0\n" in answer
        assert b'rtdecode_windows_skipped{kind="final"} 0\n' in answer


def test_little_is_read_of_who_has_not_shown_the_token(shared: SharedDecoder) -> None:
    with running(shared) as decoder_server:
        long = b"".join(b"X-%d: " % n + b"x" * 2000 + b"\r\n" for n in range(5))
        assert raw_request(decoder_server, long) == b""


def test_connections_that_send_nothing_are_closed_and_keep_nobody_out(shared: SharedDecoder) -> None:
    with running(shared, greeting_s=2.0) as decoder_server, ExitStack() as stack:
        place = ("127.0.0.1", decoder_server.port)
        silent = [stack.enter_context(socket.create_connection(place)) for _ in range(200)]
        with closing(remote(shared, decoder_server)) as decoder:
            assert decoder.decode(window()).clip.frames.any()
        for plain in silent:
            plain.settimeout(60)
            assert plain.recv(1) == b""


def test_who_shows_the_token_and_says_nothing_is_closed(shared: SharedDecoder) -> None:
    with (
        running(shared, greeting_s=0.5) as decoder_server,
        connected(decoder_server) as connection,
        pytest.raises(ConnectionClosed, match=r"no greeting came within 0\.5 s"),
    ):
        connection.recv(timeout=60)


def answers(connection: ClientConnection, raw: bytes, times: int) -> list[Message]:
    """Send a message again and again, and return the answers until the connection is closed."""
    received: list[Message] = []
    for _ in range(times):
        try:
            connection.send(raw)
            received.append(read(connection.recv(timeout=60), FROM_DECODER, SHAPES))
        except ConnectionClosed:
            break
    return received


def test_a_message_of_17_mb_closes_the_connection(shared: SharedDecoder) -> None:
    with running(shared) as decoder_server, connected(decoder_server) as connection:
        greeted(connection)
        assert answers(connection, bytes(MOST_BYTES + 1_000_000), 1) == []
        assert connection.close_code == 1009


def test_more_messages_than_a_session_needs_close_the_connection(shared: SharedDecoder) -> None:
    """Each is answered at once, as the states that it names are not held."""
    # However long the answers take, no hop passes.
    with running(shared, hop_s=1e6) as decoder_server, connected(decoder_server) as connection:
        greeted(connection)
        message = a_window(carry_from=[3], left_s=None)
        arrays = {name: array for name, array in message.arrays.items() if name != "states"}
        heads = [answer.head for answer in answers(connection, write(Message(message.head, arrays)), 100)]
        assert [head["kind"] for head in heads] == ["unknown"] * 20 + ["closed"]
        assert heads[-1]["code"] == "serve-too-many-messages"


def test_who_does_not_read_is_cut_off_and_takes_no_memory(shared: SharedDecoder) -> None:
    """A client stops reading once sixteen messages wait, and then the sockets fill: a clip has 600 kB."""
    with (
        running(shared, scheduler_hop_s=0.02, hop_s=1.0, messages_a_hop=1000) as decoder_server,
        connected(decoder_server) as connection,
    ):
        scheduler = decoder_server.scheduler
        greeted(connection)
        before = psutil.Process().memory_info().rss
        is_open = True
        number = 0
        while is_open and number < 10_000:
            number += 1
            try:
                connection.send(write(a_window(number, carry_from=[], left_s=None)))
            except (ConnectionClosed, OSError):
                is_open = False
            until(lambda: len(scheduler) < 2)
        assert not is_open
        assert psutil.Process().memory_info().rss - before < 200e6
        with closing(remote(shared, decoder_server)) as decoder:
            assert decoder.decode(window()).clip.frames.any()


def test_no_token_is_written_or_printed(shared: SharedDecoder, capfd: pytest.CaptureFixture[str]) -> None:
    with running(shared) as decoder_server:
        with closing(remote(shared, decoder_server)) as decoder:
            decoder.decode(window())
        with pytest.raises(RtDecodeError) as caught:
            RemoteDecoder(shared.bundle, [decoder_server.address], "another-token-of-20-letters")
    printed = "".join(capfd.readouterr())
    for secret in (TOKEN, "another-token-of-20-letters"):
        assert secret not in printed + str(caught.value) + repr(caught.value)
