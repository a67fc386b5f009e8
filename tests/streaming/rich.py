"""A small real bundle in which every kind of port, state and stage has its part, and what it must give.

The film has 7 frames of 16 x 24 pixels. Its latent, (2, 4, 2, 3), is denoised in two chunks of two frames.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from rtdecode.bundle import (
    Bundle,
    ClipGeometry,
    EegInput,
    Input,
    Manifest,
    Memory,
    Output,
    Stage,
    State,
    Subject,
    write,
)
from rtdecode.bundle.graph import Graph
from rtdecode.bundle.noise import noise
from rtdecode.signal.eeg.band import EegBand
from rtdecode.timing import TimingGrid
from rtdecode.types import Window

CHANNELS = ("Fz", "Cz", "Pz")
OTHER_CHANNELS = ("Fz", "Pz")
SAMPLES = 50
LATENT = (1, 2, 4, 2, 3)
CHUNK = (1, 2, 2, 2, 3)
FRAME = (1, 2, 1, 2, 3)
SIGMAS = {"2": [1.0, 0.5], "1": [1.0]}
LEVEL = 0.75
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
KEY = "c0ffee"
# Where the ports of each stage get their values; state ports stand apart.
_SOURCES = {
    "front": {"eeg": "eeg"},
    "encode": {"features": "front.features", "who": "subject"},
    "denoise": {
        "latent": "start",
        "condition": "encode.condition",
        "t": "t",
        "r": "r",
        "chunk": "chunk",
        "fresh": "noise",
    },
    "remember": {"latent": "denoise.next", "chunk": "chunk"},
    "decode_first": {"latent": "denoise.next"},
    "decode_next": {"latent": "denoise.next"},
}
_READ = {
    "mood": ("mood", False),
    "mood_there": ("mood", True),
    "kv": ("kv", False),
    "ticks": ("ticks", False),
    "a": ("a", False),
    "b": ("b", False),
}
_WRITTEN = {
    "mood_next": "mood",
    "kv_next": "kv",
    "ticks_next": "ticks",
    "a_first": "a",
    "b_first": "b",
    "a_next": "a",
    "b_next": "b",
}
STATES = {
    "mood": State("session", [1, 1], "float32"),
    "kv": State("window", [1, 1], "float32"),
    "ticks": State("chunk", [1, 1], "float32"),
    "a": State("window", [1, 1], "float32"),
    "b": State("window", [1, 1], "float32"),
}


def make(folder: Path, *, weights_beside: bool = False) -> Bundle:
    """Write the bundle; the decode stages lie in a folder, and the second subject in one of its own."""
    work = folder.with_name(folder.name + ".parts")
    work.mkdir(parents=True)
    graphs = {"front": _front(3), "encode": _encode(1.0, 3), "denoise": _denoise(), "remember": _remember()}
    graphs |= {"decode_first": _decode(first=True), "decode_next": _decode(first=False)}
    files: dict[str, Path] = {}
    stages: dict[str, Stage | None] = {}
    for name, graph in graphs.items():
        stages[name] = _kept(work, f"engines/{name}.onnx", name, graph, files, weights_beside=weights_beside)
    other: dict[str, Stage] = {}
    for name, graph in {"front": _front(2), "encode": _encode(2.0, 2)}.items():
        other[name] = _kept(work, f"subjects/two/{name}.onnx", name, graph, files)
    _save(work, "memory/words.npy", files, ROWS)
    for where, channels in (("", CHANNELS), ("subjects/two/", OTHER_CHANNELS)):
        count = len(channels)
        _save(work, f"{where}stats.npz", files, eeg_mean=np.zeros(count), eeg_scale=np.ones(count))
        eeg = np.random.default_rng(count).normal(size=(1, count, SAMPLES)).astype(np.float32)
        gain = 1.0 if not where else 2.0
        who = 7.0 if not where else 8.0
        start = noise(KEY, 3, 3, LATENT)
        latent, _, frames = expected(eeg, start, 2, gain=gain, who=who, mood=None, key=(0, 0))
        golden = {"eeg": eeg, "noise": start, "mood": np.zeros((1, 1)), "mood_mask": np.zeros((1, 1))}
        _save(work, f"{where}golden.npz", files, **golden, latent=latent, frames=frames)
    manifest = replace(_manifest(), stages=stages, subjects={"two": _second(other)})
    return write(folder, manifest, files)


def window(index: int = 0, *, channels: int = 3, windowed_at: float = 100.0) -> Window:
    """A window of EEG alone."""
    eeg = np.random.default_rng(index).normal(size=(channels, SAMPLES)).astype(np.float32)
    return Window(
        run=0,
        index=index,
        start_s=2.0 * index,
        stop_s=2.0 * index + 2,
        session_s=2.0 * index,
        revision="final",
        eeg=eeg,
        eeg_mask=np.ones(SAMPLES, bool),
        fmri=None,
        fmri_mask=np.zeros(0, bool),
        fmri_expected=np.zeros(0, bool),
        floor_at=windowed_at,
        stamps={"windowed": windowed_at + 2 * index},
    )


def expected(
    eeg: np.ndarray,
    start: np.ndarray,
    steps: int,
    *,
    gain: float,
    who: float,
    mood: float | None,
    key: tuple[int, int],
) -> tuple[np.ndarray, float, np.ndarray]:
    """The clean latent, the mood that is carried on, and the frames, computed without any graph."""
    features = eeg.mean(axis=2)
    condition = gain * features.sum() + who + (0.0 if mood is None else mood + 1)
    words = ROWS[[features.argmax(), features.argmin()]].mean()
    evenly = [1 - step / steps for step in range(steps)]
    levels = [LEVEL * sigma for sigma in SIGMAS.get(str(steps), evenly)] + [0.0]
    chunks = []
    kv = 0.0
    for chunk in range(2):
        latent = (1 - LEVEL) * condition + LEVEL * start[:, :, 2 * chunk : 2 * chunk + 2]
        for step in range(steps):
            fresh = noise(KEY, *key, CHUNK, chunk * steps + step)
            drift = condition + words + levels[step] - levels[step + 1] + chunk + kv + 0.01 * step
            latent = 0.5 * latent + drift + 0.1 * fresh
        kv += latent.mean() + chunk
        mood = float(latent.mean())
        chunks.append(latent)
    clean = np.concatenate(chunks, axis=2)
    return clean, mood or 0.0, _frames(clean)


def _frames(latent: np.ndarray) -> np.ndarray:
    a = latent[:, :, :2].mean()
    b = 1.0
    levels = [a] * 3
    for t in (2, 3):
        mean = latent[:, :, t].mean()
        levels += [mean + 0.1 * a + 0.01 * b] * 2
        a += mean
        b += 1
    shades = 1 / (1 + np.exp(-np.array(levels)))
    return np.broadcast_to(shades[None, :, None, None, None], (1, 7, 16, 24, 3))


def _manifest() -> Manifest:
    grid = TimingGrid(None, Fraction(25), Fraction(2), Fraction(2), Fraction(0), Fraction(3))
    return Manifest(
        schema=2,
        name="rich",
        recipe="none",
        recipe_digest="0",
        noise_key=KEY,
        simulated=True,
        note=None,
        grid=grid,
        eeg=EegInput(list(CHANNELS), "FCz", "microvolts", EegBand(0.5, 10.0, 2, "none")),
        fmri=None,
        clip=ClipGeometry(7, 16, 24, 3.0),
        latent=list(LATENT),
        steps=2,
        sigmas=SIGMAS,
        stages={},
        states=STATES,
        labels=None,
        confidence=None,
        files={},
        parity={},
        provenance={},
        licence="Apache-2.0",
        memories={"words": Memory("memory/words.npy", 3, 4, "float32")},
        subject=7,
    )


def _second(stages: dict[str, Stage]) -> Subject:
    eeg = EegInput(list(OTHER_CHANNELS), "FCz", "microvolts", EegBand(0.5, 10.0, 2, "none"))
    return Subject(eeg, None, stages, number=8)


def _kept(
    work: Path,
    file: str,
    name: str,
    graph: onnx.ModelProto,
    files: dict[str, Path],
    *,
    weights_beside: bool = False,
) -> Stage:
    """Save a graph, and say how its ports are joined."""
    place = work / file
    place.parent.mkdir(parents=True, exist_ok=True)
    signature = Graph(graph.SerializeToString(), name)
    if weights_beside:
        _put_beside(graph, f"{name}.data")
    onnx.save(graph, place)
    files[file] = place
    data = place.with_name(f"{name}.data")
    data_files = [f"{Path(file).parent}/{data.name}"] if data.is_file() else []
    files |= {other: work / other for other in data_files}
    inputs = {port: _input(name, port, shape) for port, shape in signature.inputs.items()}
    outputs = {port: Output(*shape, state=_WRITTEN.get(port)) for port, shape in signature.outputs.items()}
    return Stage(file, inputs, outputs, data_files)


def _put_beside(graph: onnx.ModelProto, location: str) -> None:
    """Let the weights be saved in another file; what tells shapes stays in the graph."""
    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            set_external_data(tensor, location)


def _input(stage: str, port: str, shape: tuple[list[int], str]) -> Input:
    if port == "words":
        return Input(*shape, source="memory", memory="words", rows="encode.rows")
    if port in _READ:
        state, mask_port = _READ[port]
        return Input(*shape, source="state", state=state, there=mask_port)
    return Input(*shape, source=_SOURCES[stage][port])


def _save(work: Path, name: str, files: dict[str, Path], *rows: np.ndarray, **arrays: Any) -> None:
    place = work / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if rows:
        np.save(place, rows[0])
    else:
        np.savez(place, **{key: np.asarray(value, np.float32) for key, value in arrays.items()})
    files[name] = place


Line = tuple[str, str, str] | tuple[str, str, str, dict[str, int]]


def _graph(
    name: str,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
    lines: list[Line],
    constants: Mapping[str, Any],
) -> onnx.ModelProto:
    """Make a graph of lines: operation, inputs, output, attributes. Only ``rows`` holds whole numbers."""
    nodes = [helper.make_node(line[0], line[1].split(), [line[2]], **dict(*line[3:])) for line in lines]

    def ports(side: Mapping[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        kinds = {port: TensorProto.INT64 if port == "rows" else TensorProto.FLOAT for port in side}
        return [helper.make_tensor_value_info(port, kinds[port], side[port]) for port in side]

    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, ports(inputs), ports(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _number(value: float) -> np.ndarray:
    return np.full((1, 1), value, np.float32)


def _front(channels: int) -> onnx.ModelProto:
    lines: list[Line] = [("ReduceMean", "eeg time", "features", {"keepdims": 0})]
    shapes = {"eeg": (1, channels, SAMPLES)}
    return _graph("front", shapes, {"features": (1, channels)}, lines, {"time": np.array([2])})


def _encode(gain: float, channels: int) -> onnx.ModelProto:
    lines: list[Line] = [
        ("ReduceSum", "features column", "sum"),
        ("Mul", "sum gain", "weighed"),
        ("Add", "mood mood_there", "moved"),
        ("Sum", "weighed who moved", "condition"),
        ("ArgMax", "features", "most", {"axis": 1}),
        ("ArgMin", "features", "least", {"axis": 1}),
        ("Concat", "most least", "rows", {"axis": 1}),
        ("Expand", "condition latent", "start"),
        ("Identity", "level", "start_level"),
    ]
    constants = {
        "column": np.array([1]),
        "gain": _number(gain),
        "latent": np.array(LATENT),
        "level": _number(LEVEL),
    }
    inputs = {"features": (1, channels), "who": (1, 1), "mood": (1, 1), "mood_there": (1, 1)}
    outputs = {"condition": (1, 1), "rows": (1, 2), "start": LATENT, "start_level": (1, 1)}
    return _graph("encode", inputs, outputs, lines, constants)


def _denoise() -> onnx.ModelProto:
    lines: list[Line] = [
        ("ReduceMean", "words all", "word"),
        ("Sub", "t r", "stride"),
        ("Mul", "ticks hundredth", "count"),
        ("Sum", "condition word stride chunk kv count", "told"),
        ("Reshape", "told cells", "everywhere"),
        ("Mul", "latent half", "halved"),
        ("Mul", "fresh tenth", "noise"),
        ("Sum", "halved everywhere noise", "next"),
        ("Add", "ticks one", "ticks_next"),
    ]
    constants = {
        "all": np.array([0, 1, 2]),
        "cells": np.array([1, 1, 1, 1, 1]),
        "half": _number(0.5),
        "tenth": _number(0.1),
        "hundredth": _number(0.01),
        "one": _number(1),
    }
    small = dict.fromkeys(("condition", "t", "r", "chunk", "kv", "ticks"), (1, 1))
    inputs = {"latent": CHUNK, "fresh": CHUNK, "words": (1, 2, 4)} | small
    return _graph("denoise", inputs, {"next": CHUNK, "ticks_next": (1, 1)}, lines, constants)


def _remember() -> onnx.ModelProto:
    lines: list[Line] = [
        ("ReduceMean", "latent all", "mean", {"keepdims": 0}),
        ("Reshape", "mean one", "mood_next"),
        ("Sum", "mood_next kv chunk", "kv_next"),
    ]
    constants = {"all": np.arange(5), "one": np.array([1, 1])}
    inputs = {"latent": CHUNK, "chunk": (1, 1), "kv": (1, 1)}
    return _graph("remember", inputs, {"mood_next": (1, 1), "kv_next": (1, 1)}, lines, constants)


def _decode(*, first: bool) -> onnx.ModelProto:
    """The first call draws 3 frames of 2 latent frames, each later one 2 frames of one."""
    frames = 3 if first else 2
    lines: list[Line] = [
        ("ReduceMean", "latent all", "mean", {"keepdims": 0}),
        ("Reshape", "mean one", "level"),
    ]
    if first:
        lines += [
            ("Sigmoid", "level", "shade"),
            ("Identity", "level", "a_first"),
            ("Identity", "unit", "b_first"),
        ]
        states = {"a_first": (1, 1), "b_first": (1, 1)}
        read: dict[str, tuple[int, ...]] = {}
    else:
        lines += [
            ("Mul", "a tenth", "a_part"),
            ("Mul", "b hundredth", "b_part"),
            ("Sum", "level a_part b_part", "sum"),
            ("Sigmoid", "sum", "shade"),
            ("Add", "a level", "a_next"),
            ("Add", "b unit", "b_next"),
        ]
        states = {"a_next": (1, 1), "b_next": (1, 1)}
        read = {"a": (1, 1), "b": (1, 1)}
    lines.append(("Expand", "shade clip", "frames"))
    constants = {
        "all": np.arange(5),
        "one": np.array([1, 1]),
        "clip": np.array([1, frames, 16, 24, 3]),
        "unit": _number(1),
        "tenth": _number(0.1),
        "hundredth": _number(0.01),
    }
    inputs = {"latent": CHUNK if first else FRAME} | read
    outputs = {"frames": (1, frames, 16, 24, 3)} | states
    return _graph("decode_first" if first else "decode_next", inputs, outputs, lines, constants)
