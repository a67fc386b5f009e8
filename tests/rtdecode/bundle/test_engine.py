"""One engine, several sessions: each decodes what it would decode alone."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from rtdecode.bundle import Bundle, providers
from rtdecode.bundle.engine import Engine, load, places
from rtdecode.bundle.graph import Graph, host
from rtdecode.bundle.providers import available, device_of
from rtdecode.bundle.session import Session, most_bytes
from rtdecode.errors import RtDecodeError
from rtdecode.types import Window
from streaming.decode.decoder import SharedDecoder
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.streaming.windows import window

STEPS = 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("engine") / "bundle", steps=STEPS)


def decode(session: Session, window: Window) -> np.ndarray:
    """The clean latent of a window, which the next one carries on from."""
    opened = session.open(window, STEPS)
    opened.encode()
    for _ in opened.latents():
        pass
    session.keep(window, opened)
    return opened.latent


def film(seed: int) -> list[Window]:
    """Windows of one brain; the third has no volumes."""
    return [window(index, fmri=index != 2, seed=10 * seed + index) for index in range(4)]


def test_two_sessions_on_one_engine_decode_what_each_would_alone(bundle: Bundle) -> None:
    engine = load(bundle)
    shared = [engine.session(), engine.session()]
    alone = [load(bundle).session(), load(bundle).session()]
    for pair in zip(film(1), film(2), strict=True):
        for sharing, lone, film_window in zip(shared, alone, pair, strict=True):
            np.testing.assert_array_equal(decode(sharing, film_window), decode(lone, film_window))
    first, second = (decode(session, window(4, seed=3)) for session in shared)
    assert not np.allclose(first, second), "what they carry on from differs, or this would show nothing"


def test_sessions_may_run_at_the_same_time(bundle: Bundle) -> None:
    engine = load(bundle)
    expected = [
        [decode(session, film_window) for film_window in film(n)]
        for n, session in enumerate(sessions(engine))
    ]
    with ThreadPoolExecutor(4) as pool:
        streams = [(session, film(n)) for n, session in enumerate(sessions(engine))]
        latents = list(
            pool.map(lambda stream: [decode(stream[0], film_window) for film_window in stream[1]], streams)
        )
    np.testing.assert_array_equal(np.array(latents), np.array(expected))


def sessions(engine: Engine) -> list[Session]:
    return [engine.session() for _ in range(4)]


def watched(engine: Engine, note: Callable[[str, dict[str, Any]], None]) -> None:
    """Let each graph of an engine note its stage and what it is run on."""

    def watch(stage: str, graph: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def run(arrays: dict[str, Any], stay: set[str]) -> dict[str, Any]:
            note(stage, arrays)
            return graph(arrays, stay)

        return run

    # What runs the graphs looks them up here with each call.
    engine.graphs.update({stage: watch(stage, graph) for stage, graph in engine.graphs.items()})  # type: ignore[arg-type]


def test_decoders_that_share_run_the_graphs_that_were_loaded_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(bundle)
    shared = SharedDecoder(bundle, loaded=engine)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    calls = Counter[str]()
    watched(engine, lambda stage, arrays: calls.update([stage]))
    for n_decoded, decoder in enumerate([shared.session(), shared.session()], 1):
        decoder.decode(window(0))
        assert calls.keys() == engine.graphs.keys()
        assert calls["encode"] == n_decoded
        assert calls["denoise"] == n_decoded * STEPS


def test_sessions_hold_their_states_alone(bundle: Bundle) -> None:
    engine = load(bundle)
    first = engine.session()
    second = engine.session()
    decode(first, window(0))
    states = first.snapshot()["final"][-1].states
    assert {name: host(value).shape for name, value in states.items()} == {"carry": (1, 4, 1, 4, 6)}
    assert not any(second.snapshot().values())


def test_a_session_holds_at_most_the_bytes_that_are_told(bundle: Bundle) -> None:
    """It is filled with more windows of each revision than it keeps."""
    session = load(bundle).session()
    for index in range(40):
        for revision in ("preview", "final", "refined"):
            revised_window = replace(window(index), revision=revision)
            opened = session.open(revised_window, STEPS)
            opened.encode()
            for latent in opened.latents():
                for _ in opened.draw(latent):
                    pass
            session.keep(revised_window, opened)
    states = [last.states.values() for decodes in session.snapshot().values() for last in decodes]
    n_bytes = sum(host(value).nbytes for values in states for value in values)
    once = sum(np.zeros(state.shape, state.dtype).nbytes for state in bundle.manifest.states.values())
    assert n_bytes > once > 0
    assert most_bytes(bundle.manifest) == n_bytes + once


def test_each_call_of_an_engine_is_timed(bundle: Bundle) -> None:
    opened = load(bundle).session().open(window(0), STEPS)
    opened.encode()
    (latent,) = opened.latents()
    assert [stage for stage, _ in opened.calls] == ["encode", "denoise", "denoise"]
    n_pieces = len(list(opened.draw(latent)))
    assert [stage for stage, _ in opened.calls[3:]] == ["decode_first"] + ["decode_next"] * (n_pieces - 1)
    assert all(seconds > 0 for _, seconds in opened.calls)


def test_stages_that_run_on_the_same_are_told_together() -> None:
    message = places({"encode": "the CPU", "denoise": "some GPU", "decode_first": "the CPU"})
    assert message == "encode, decode_first on the CPU; denoise on some GPU"


def test_a_session_goes_back_to_what_it_was(bundle: Bundle) -> None:
    session = load(bundle).session()
    windows = film(1)
    decode(session, windows[0])
    before = session.snapshot()
    first_pass = [decode(session, film_window) for film_window in windows[1:]]
    session.restore(before)
    second_pass = [decode(session, film_window) for film_window in windows[1:]]
    for first_latent, second_latent in zip(first_pass, second_pass, strict=True):
        np.testing.assert_array_equal(first_latent, second_latent)
    session.restore({})
    assert not np.allclose(decode(session, windows[1]), first_pass[0]), "nothing is carried on"


def test_outputs_that_stay_on_a_device_give_the_same_clips(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's memory serves as the device: the values take the way of a GPU."""
    on_host = load(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(providers, "device_of", lambda chosen: "cpu")
        on_device = load(bundle)
    conditions: list[Any] = []
    watched(on_device, lambda stage, arrays: conditions.append(arrays.get("condition")))
    host_session = on_host.session()
    device_session = on_device.session()
    for film_window in film(1):
        np.testing.assert_array_equal(decode(host_session, film_window), decode(device_session, film_window))
    opened = device_session.open(window(9), STEPS)
    assert set(opened.encode()) == {"confidence"}, "what only graphs read stays"
    condition = opened.condition()
    assert len(list(opened.latents())) == 1
    assert isinstance(conditions[-1], onnxruntime.OrtValue)
    opened = host_session.open(window(9), STEPS)
    assert set(opened.encode()) == {"condition", "embedding", "confidence"}
    np.testing.assert_array_equal(opened.condition(), condition)


def test_providers_are_those_that_were_asked_for_or_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = onnxruntime.InferenceSession
    provider_lists: list[list[str]] = []

    def noted(*arguments: Any, **options: Any) -> onnxruntime.InferenceSession:
        session = begin(*arguments, **options)
        provider_lists.append(session.get_providers())
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    engine = load(bundle, [("CPUExecutionProvider", {})])
    assert provider_lists == [["CPUExecutionProvider"]] * len(engine.graphs)
    assert "CPUExecutionProvider" in available()
    with refused(RtDecodeError, "provider-unavailable", missing=["NpuExecutionProvider"]):
        load(bundle, ["CPUExecutionProvider", ("NpuExecutionProvider", {})])
    assert device_of([("CUDAExecutionProvider", {}), "CPUExecutionProvider"]) == "cuda"
    assert device_of(["CPUExecutionProvider"]) is None


def halves(folder: Path) -> Graph:
    """A graph of half precision that doubles what it gets."""
    nodes = [helper.make_node("Add", ["given", "given"], ["twice"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2]) for name in ("given", "twice")]
    graph = helper.make_graph(nodes, "halves", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "halves.onnx")
    return Graph((folder / "halves.onnx").read_bytes(), "halves.onnx")


def test_an_output_keeps_its_type_and_an_input_takes_its_ports(tmp_path: Path) -> None:
    graph = halves(tmp_path)
    assert graph.inputs == {"given": ([2], "float16")}
    doubled = graph({"given": np.array([0.1, 3], np.float32)})["twice"]
    assert doubled.dtype == np.float16
    np.testing.assert_array_equal(doubled, 2 * np.array([0.1, 3], np.float16))


def test_an_engine_keeps_nothing_of_what_runs_through_it(bundle: Bundle) -> None:
    engine: Engine = load(bundle)
    attributes = {name: dict(vars(graph)) for name, graph in engine.graphs.items()}
    decode(engine.session(), window(0))
    assert {name: dict(vars(graph)) for name, graph in engine.graphs.items()} == attributes
