"""What other programs get of emitted clips: real LSL streams, real datagrams, the real client."""

import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pylsl
import pytest
from pythonosc.osc_message import OscMessage

from rtdecode.bundle import Bundle, condition
from rtdecode.errors import RtDecodeError, UsageError
from streaming import client
from streaming.client import SOURCE, Clips, SentClip, parse
from streaming.decode.deadline import Job
from streaming.decode.decoder import Decoder, SharedDecoder
from streaming.sinks.clip_emitter import ClipEmitter, open_emitter
from streaming.sinks.osc import OscSender
from streaming.sinks.publishers import Publishers, open_outputs
from streaming.sinks.session_folder import prepare
from streaming.sinks.truth import Truth
from tests.refusals import refused
from tests.streaming.bundles import BRAIN, LABELS, make_bundle
from tests.streaming.windows import window

_NUMBER = count()
# Nothing here takes so long: it only ends a test that would hang, s.
_LIMIT_S = 120.0
# The values of a clip's line that are sent as they are.
_SAME = (
    "clip",
    "run",
    "revision",
    "late",
    "window_s",
    "session_s",
    "missing",
    "eeg_quality",
    "confidence",
    "brain",
    "brain_by",
    "steps",
    "simulated",
    "bundle_simulated",
    "eeg_source",
    "detail",
)


@pytest.fixture
def name() -> str:
    return f"outputs-test-{os.getpid()}-{next(_NUMBER)}"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that denoises, and tells its confidence and whether there is a brain."""
    folder = tmp_path_factory.mktemp("b") / "plain"
    return make_bundle(folder, steps=2, confidence={"fitted_on": "held-out windows"}, brain=BRAIN)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that decodes named categories in closed form, and tells nothing else."""
    return make_bundle(tmp_path_factory.mktemp("b") / "labelled", labels=LABELS)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp_socket:
        udp_socket.bind(("127.0.0.1", 0))
        udp_socket.settimeout(_LIMIT_S)
        yield udp_socket


def until(is_done: Callable[[], bool]) -> None:
    last = time.monotonic() + _LIMIT_S
    while not is_done():
        assert time.monotonic() < last, "did not happen in time"
        time.sleep(0.02)


def emitter(bundle: Bundle, out: Path, outputs: Publishers, **how: Any) -> ClipEmitter:
    """An emitter as a session has it, with these outputs."""
    prepare(out, overwrite=False)
    decoder = Decoder(bundle, time.monotonic, tell_condition=True)
    truth = Truth(None, bundle)
    options = {"simulated": False} | how
    return open_emitter(out, "s", bundle, decoder, truth, time.monotonic, on_emitted=outputs.send, **options)


def emit(output: ClipEmitter, *revisions: str) -> None:
    """Decode a window of each revision."""
    for k, revision in enumerate(revisions):
        fmri = revision != "preview"
        output.emit(Job(window(k, revision, fmri=fmri, windowed_at=time.monotonic(), seed=k), k))
    output.settle()


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]


def inlet(stream: str) -> pylsl.StreamInlet:
    """Read a stream of this machine from now on."""
    streams: list[pylsl.StreamInfo] = []

    def is_found() -> bool:
        streams.extend(candidate for candidate in pylsl.resolve_streams(0.2) if candidate.name() == stream)
        return bool(streams)

    until(is_found)
    opened = pylsl.StreamInlet(streams[0])
    opened.open_stream(timeout=_LIMIT_S)
    return opened


def channels(opened: pylsl.StreamInlet) -> list[str]:
    """The labels of a stream's channels."""
    child = opened.info(timeout=_LIMIT_S).desc().child("channels").child("channel")
    labels = []
    while not child.empty():
        labels.append(child.child_value("label"))
        child = child.next_sibling("channel")
    return labels


def pull(opened: pylsl.StreamInlet) -> tuple[Any, float]:
    """The next sample of a stream, and its stamp."""
    sample, stamp = opened.pull_sample(timeout=_LIMIT_S)
    assert sample is not None
    assert stamp is not None
    return sample, stamp


def next_message(receiver: socket.socket) -> tuple[str, list[Any]]:
    """The address and the arguments of the next OSC message."""
    message = OscMessage(receiver.recv(65536))
    return message.address, list(message.params)


def test_every_revision_reaches_a_client_with_the_values_of_its_line(
    plain: Bundle, tmp_path: Path, name: str
) -> None:
    outputs = open_outputs(name, None, plain.manifest)
    output = emitter(plain, tmp_path / "out", outputs)
    with Clips(name, timeout=_LIMIT_S) as clips:
        emit(output, "preview", "final", "refined")
        received = [next(clips) for _ in range(3)]
    output.close()
    outputs.close()
    written = lines(tmp_path / "out")
    assert [clip.revision for clip in received] == ["preview", "final", "refined"]
    for clip, line in zip(received, written, strict=True):
        sent = {key: getattr(clip, key) for key in _SAME}
        spans = {key: tuple(line[key]) for key in ("window_s", "session_s")}
        assert sent == {key: line[key] for key in _SAME} | spans
        assert clip.scores is None
        assert clip.beyond_floor_ms == line["t_ms"]["emitted"]
    assert received[1].beyond_floor_ms == written[1]["latency_ms"]["beyond_floor"]
    assert received[1].brain is not None
    assert received[1].confidence is not None
    assert received[0].sent_at < received[1].sent_at < received[2].sent_at <= pylsl.local_clock()


def test_condition_and_scores_come_beside_the_clip_and_name_their_channels(
    labelled: Bundle, tmp_path: Path, name: str
) -> None:
    outputs = open_outputs(name, None, labelled.manifest)
    streams = [inlet(f"{name}-{kind}") for kind in ("clips", "condition", "scores")]
    _, vector, scores = streams
    assert channels(vector) == [f"latent-{k}" for k in range(4)]
    assert channels(scores) == LABELS
    assert [stream.info(timeout=_LIMIT_S).type() for stream in streams] == ["Markers", "Condition", "Scores"]
    output = emitter(labelled, tmp_path / "out", outputs)
    emit(output, "final", "final")
    for k, line in enumerate(lines(tmp_path / "out")):
        samples = [pull(stream) for stream in streams]
        assert len({stamp for _, stamp in samples}) == 1, "one clip has one time stamp"
        message, condition_, probabilities = (sample for sample, _ in samples)
        assert json.loads(message[0])["clip"] == k
        assert json.loads(message[0])["scores"] == line["scores"]
        assert probabilities == pytest.approx(list(line["scores"].values()), abs=1e-6)
        latent = np.load(tmp_path / "out" / line["latent"])
        assert condition_ == pytest.approx(latent.mean((0, 2, 3, 4)), abs=1e-5)
    output.close()
    outputs.close()


def test_a_stream_says_nothing_of_the_session_but_its_name(plain: Bundle, tmp_path: Path, name: str) -> None:
    outputs = open_outputs(name, None, plain.manifest)
    opened = inlet(f"{name}-clips")
    about = opened.info(timeout=_LIMIT_S)
    assert about.source_id() == f"{SOURCE}{name}-clips"
    assert about.desc().child_value("manufacturer") == "rtdecode"
    output = emitter(plain, tmp_path / "out", outputs)
    emit(output, "final")
    sample, _ = pull(opened)
    assert set(json.loads(sample[0])) == {*_SAME, "beyond_floor_ms"}
    assert str(tmp_path) not in sample[0]
    assert sample[0] == json.dumps(json.loads(sample[0]), separators=(",", ":")), "it is compact"
    output.close()
    outputs.close()


def test_the_condition_is_what_the_denoiser_is_told_in_brief(plain: Bundle) -> None:
    labels = condition.labels(plain.manifest)
    assert labels == [*(f"condition-{k}" for k in range(4)), "embedding-0"]
    shared = SharedDecoder(plain)
    decoder = shared.session(tell_condition=True)
    opened = shared.engine.session().open(window(3, seed=3), 2)
    encoded = opened.encode()
    expected = [*encoded["condition"].mean((0, 2, 3, 4)), *encoded["embedding"].reshape(-1)]
    decoded = decoder.decode(window(3, seed=3))
    assert decoded.condition is not None
    assert decoded.condition.dtype == np.float32
    np.testing.assert_allclose(decoded.condition, expected, rtol=1e-5)
    tokens = np.arange(12.0).reshape(1, 3, 4)
    np.testing.assert_array_equal(condition.vector({"tokens": tokens}), [4, 5, 6, 7])
    assert condition.vector({}).shape == (0,)


def test_osc_says_the_same(plain: Bundle, labelled: Bundle, tmp_path: Path, receiver: socket.socket) -> None:
    address = f"127.0.0.1:{receiver.getsockname()[1]}"
    outputs = open_outputs(None, address, plain.manifest)
    output = emitter(plain, tmp_path / "plain", outputs)
    emit(output, "final")
    (line,) = lines(tmp_path / "plain")
    path, values = next_message(receiver)
    assert path == "/rtdecode/clip"
    assert values[:2] == [0, "final"]
    expected = [0.0, 4.0, line["confidence"], line["brain"]]
    assert values[2:6] == pytest.approx(expected, abs=1e-6)
    assert json.loads(values[6])["session_s"] == line["session_s"]
    output.close()
    outputs.close()

    outputs = open_outputs(None, address, labelled.manifest)
    output = emitter(labelled, tmp_path / "labelled", outputs)
    emit(output, "final")
    (line,) = lines(tmp_path / "labelled")
    _, values = next_message(receiver)
    assert values[4:6] == [-1, -1], "neither is told by this bundle"
    path, values = next_message(receiver)
    assert path == "/rtdecode/scores"
    assert values[::2] == LABELS
    assert values[1::2] == pytest.approx(list(line["scores"].values()), abs=1e-6)
    output.close()
    outputs.close()


def test_an_output_that_fails_is_named_once_and_the_others_go_on(
    plain: Bundle, tmp_path: Path, receiver: socket.socket
) -> None:
    # To the address of all machines, the kernel lets no datagram out unasked.
    gone = OscSender("255.255.255.255:9")
    reachable = OscSender(f"127.0.0.1:{receiver.getsockname()[1]}")
    outputs = Publishers([gone, reachable])
    output = emitter(plain, tmp_path / "out", outputs)
    emit(output, "final", "final", "final")
    (note,) = outputs.notes()
    assert "could not be sent to OSC 255.255.255.255:9 (" in note
    assert outputs.notes() == []
    assert [next_message(receiver)[1][0] for _ in range(3)] == [0, 1, 2]
    assert len(lines(tmp_path / "out")) == 3
    output.close()
    outputs.close()


def test_a_receiver_that_is_not_there_is_no_fault(plain: Bundle, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    outputs = open_outputs(None, f"127.0.0.1:{port}", plain.manifest)
    output = emitter(plain, tmp_path / "out", outputs)
    emit(output, "final", "final")
    assert outputs.notes() == []
    assert output.tally.counts["final"] == 2
    output.close()
    outputs.close()


@pytest.mark.parametrize(
    ("outlet", "osc", "code", "values"),
    [
        ("", None, "outlet-name-invalid", {"outlet": ""}),
        ("a\nb", None, "outlet-name-invalid", {"outlet": "a\nb"}),
        (None, "9000", "osc-address-malformed", {"address": "9000"}),
        (None, "127.0.0.1:0", "osc-address-malformed", {"address": "127.0.0.1:0"}),
        (None, "no-such-host.invalid:9000", "osc-host-unknown", {"host": "no-such-host.invalid"}),
    ],
)
def test_what_cannot_be_sent_to_is_refused(
    outlet: str | None, osc: str | None, code: str, values: dict[str, str], plain: Bundle
) -> None:
    with refused(UsageError, code, **values) as caught:
        open_outputs(outlet, osc, plain.manifest)
    assert caught.value.exit_code == 2


def test_osc_without_its_package_names_the_extra(plain: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # To the machinery of imports, a module that is None is not installed.
    monkeypatch.setitem(sys.modules, "pythonosc", None)
    with refused(UsageError, "osc-package-missing", install_command=re.compile("outputs")) as caught:
        open_outputs(None, "127.0.0.1:9000", plain.manifest)
    assert caught.value.exit_code == 2


def test_a_client_that_finds_nothing_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["lab-scores", "an amplifier", "an amplifier"]
    network = SimpleNamespace(
        results=lambda: [SimpleNamespace(name=lambda name=name: name) for name in names]
    )
    monkeypatch.setattr(client.pylsl, "ContinuousResolver", lambda **_: network)
    with refused(
        RtDecodeError,
        "clip-stream-missing",
        stream="lab-clips",
        wait_s=0,
        available="an amplifier, lab-scores",
        outlet="lab",
    ) as caught:
        Clips("lab", wait=0)
    assert "rtdecode stream --outlet lab" in str(caught.value), "what to type"


@pytest.mark.parametrize(
    ("stream", "seconds", "code", "values"),
    [
        ("", {}, "clip-stream-unnamed", {}),
        ("lab", {"wait": -1}, "clip-stream-wait-invalid", {"wait_s": -1, "timeout_s": None}),
        ("lab", {"wait": math.nan}, "clip-stream-wait-invalid", {"wait_s": "nan"}),
        ("lab", {"timeout": math.nan}, "clip-stream-wait-invalid", {"timeout_s": "nan"}),
    ],
)
def test_a_client_refuses_what_cannot_be(
    stream: str, seconds: dict[str, float], code: str, values: dict[str, object]
) -> None:
    with refused(UsageError, code, **values):
        Clips(stream, **seconds)


def test_a_client_waits_for_the_session_and_ends_with_it(plain: Bundle, tmp_path: Path, name: str) -> None:
    clips: list[tuple[int, str]] = []
    is_open = threading.Event()

    def listen() -> None:
        opened = Clips(name, wait=_LIMIT_S)
        is_open.set()
        clips.extend((clip.clip, clip.revision) for clip in opened)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    outputs = open_outputs(name, None, plain.manifest)
    assert is_open.wait(_LIMIT_S)
    output = emitter(plain, tmp_path / "out", outputs)
    emit(output, "final", "final")
    # The clips go out just before the streams are closed.
    outputs.close()
    output.close()
    listener.join(_LIMIT_S)
    assert not listener.is_alive()
    assert clips == [(0, "final"), (1, "final")]


def test_a_clip_that_does_not_come_is_told_and_waited_for_again(
    plain: Bundle, tmp_path: Path, name: str
) -> None:
    outputs = open_outputs(name, None, plain.manifest)
    output = emitter(plain, tmp_path / "out", outputs)
    with Clips(name, timeout=0) as clips:
        with refused(RtDecodeError, "clip-stream-timeout", stream=f"{name}-clips", timeout_s=0):
            next(clips)
        emit(output, "final")
        clips._timeout = _LIMIT_S
        assert next(clips).clip == 0
    assert list(clips) == [], "it is closed"
    output.close()
    outputs.close()


@pytest.mark.parametrize("text", ["R128", "[]", '{"clip": 3}'])
def test_what_is_no_clip_is_refused(text: str) -> None:
    with refused(RtDecodeError, "clip-stream-malformed", stream="lab-clips"):
        parse(text, 1.0, "lab-clips")


def test_a_later_version_may_send_more() -> None:
    values = dict.fromkeys(_SAME) | {"window_s": [0, 4], "session_s": [0, 4], "beyond_floor_ms": 1.5}
    clip = parse(json.dumps(values | {"mood": "blue"}), 1.0, "lab-clips")
    assert isinstance(clip, SentClip)
    assert clip.window_s == (0, 4)


def test_the_client_needs_no_large_package_but_pylsl() -> None:
    code = (
        "import sys; before = set(sys.modules); import pylsl; beside = set(sys.modules)\n"
        "import streaming.client; new = {name.split('.')[0] for name in set(sys.modules) - beside}\n"
        "heavy = {'numpy', 'scipy', 'av', 'onnxruntime', 'nibabel', 'pydicom', 'rich', 'typer', 'PIL'}\n"
        "assert not new & heavy, new & heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
