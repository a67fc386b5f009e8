"""What a clip costs the processor outside of its graphs: as it was, and as it is.

    python -m benchmarks.host_time [--json] [--write] [--clips 20] [--size 480x720]

A small bundle draws clips of 33 frames, from latents of the published shape, by graphs that compute next to
nothing. The same window is decoded, in turn, with frames of single precision as version 0.1 did (every value
of every frame looked at, clipped, scaled, rounded and cast on the host), with such frames today, and with
frames that the graphs round to 8 bits. What counts is the process's CPU time from the window to the clip,
without that of the graphs. Encoding to H.264 is measured apart: it runs beside the next window.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks.full_size import frame_size
from benchmarks.result_files import RESULTS, write
from export import eight_bits
from export.run import wired
from rtdecode import bundle as bundles
from rtdecode import strict_json
from rtdecode.bundle import Bundle, ClipGeometry, engine, golden
from rtdecode.bundle.graph import Graph, Value
from rtdecode.bundle.wiring import DECODING
from rtdecode.disk.video import write_mp4
from rtdecode.types import Window
from streaming.decode import decoder as decoding
from streaming.decode.decoder import Decoded, SharedDecoder

# At most so much of what the old way took.
LARGEST_SHARE = 0.2
_OUT = RESULTS / "host_time.json"
_CHANNELS = 16
_FRAMES = 33
# Frames of a latent frame after the first, and rows or columns of pixels of one of latents.
_FRAMES_EACH = 4
_PIXELS = 8
_CLIPS = 20
_WARM = 2


def main() -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_time", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help="write results/host_time.json")
    parser.add_argument("--clips", type=int, default=_CLIPS, help="how many are decoded each way")
    parser.add_argument("--size", default="480x720", help="rows and columns of a frame")
    arguments = parser.parse_args()
    figures = measure(frame_size(arguments.size, _PIXELS), arguments.clips)
    if arguments.write:
        write(_OUT, figures)
    if arguments.json:
        Console().print_json(strict_json.dumps(figures))
    else:
        Console().print(table(figures))


def measure(size: tuple[int, int], clips: int) -> dict[str, Any]:
    """Decode clips of a size in every way.

    Returns
    -------
    dict
        ``ms``: way -> CPU time of a clip at p50 and p95, ms. ``ratio``: of 8 bits to the old way, of medians;
        ``most``; ``same_frames``; ``encoding_ms``, at p50.
    """
    with tempfile.TemporaryDirectory() as place:
        plain, rounding = pair(Path(place), size)
        window = golden.window(plain)
        single, eight = (Way(bundle) for bundle in (plain, rounding))
        milliseconds: dict[str, list[float]] = {"old": [], "single precision": [], "8 bits": []}
        encoding: list[float] = []
        same = True
        for number in range(_WARM + clips):
            with _every_value_looked_at():
                old, before_s = single.clip(window)
            today, single_s = single.clip(window)
            new, eight_s = eight.clip(window)
            began = time.process_time()
            write_mp4(Path(place) / "clip.mp4", new.clip.frames, plain.manifest.clip.fps)
            encoded_s = time.process_time() - began
            same = same and _is_same(old, new) and _is_same(today, new)
            if number >= _WARM:
                for name, seconds in zip(milliseconds, (before_s, single_s, eight_s), strict=True):
                    milliseconds[name].append(1e3 * seconds)
                encoding.append(1e3 * encoded_s)
    medians = {name: float(np.median(values)) for name, values in milliseconds.items()}
    return {
        "frames": [_FRAMES, *size, 3],
        "clips": clips,
        "ms": {name: _percentiles(values) for name, values in milliseconds.items()},
        "ratio": round(medians["8 bits"] / medians["old"], 4),
        "most": LARGEST_SHARE,
        "same_frames": same,
        "encoding_ms": _percentiles(encoding)["p50"],
    }


class Way:
    """A decoder whose graphs tell how much CPU time they take."""

    def __init__(self, bundle: Bundle) -> None:
        loaded = engine.load(bundle)
        self._inside_s = 0.0
        for stage, graph in loaded.graphs.items():
            loaded.graphs[stage] = cast("Graph", self._timed(graph))
        self._decoder = SharedDecoder(bundle, loaded=loaded).session()

    def clip(self, window: Window) -> tuple[Decoded, float]:
        """Decode a window; return its clip, and the CPU time outside of the graphs, s."""
        self._inside_s = 0.0
        began = time.process_time()
        decoded = self._decoder.decode(window)
        return decoded, time.process_time() - began - self._inside_s

    def _timed(self, graph: Callable[..., dict[str, Value]]) -> Callable[..., dict[str, Value]]:
        def call(arrays: Mapping[str, Value], stay: Collection[str] = ()) -> dict[str, Value]:
            began = time.process_time()
            outputs = graph(arrays, stay)
            self._inside_s += time.process_time() - began
            return outputs

        # What else is read of a graph.
        call.runs_on = "the CPU"  # type: ignore[attr-defined]
        return call


def pair(folder: Path, size: tuple[int, int]) -> tuple[Bundle, Bundle]:
    """Write the bundle with frames of single precision, and with frames of 8 bits."""
    shipped = bundles.load("haxby")
    latent = [1, _CHANNELS, 1 + (_FRAMES - 1) // _FRAMES_EACH, size[0] // _PIXELS, size[1] // _PIXELS]
    graphs = {
        "encode": _encode(shipped),
        "denoise": _denoise(latent),
        "decode_first": _decode(latent, size, 1),
        "decode_next": _decode(latent, size, _FRAMES_EACH),
    }
    clip = ClipGeometry(_FRAMES, *size, 8.0)
    manifest = replace(shipped.manifest, clip=clip, labels=None, steps=1, states={}, fitter=None)
    files = {name: shipped.path / name for name in ("stats.npz", "projection.npz")}
    random = np.random.default_rng(0)
    noise = random.standard_normal(latent).astype(np.float32)
    signals = {name: shipped.golden()[name][:1] for name in ("fmri", "fmri_mask")}
    np.savez(folder / "golden.npz", latent=noise / 2, noise=noise, allow_pickle=False, **signals)
    files["golden.npz"] = folder / "golden.npz"
    written: list[Bundle] = []
    for name in ("single", "eight"):
        if name == "eight":
            for stage in DECODING:
                eight_bits.rounded(graphs[stage])
        for stage, graph in graphs.items():
            files[f"{stage}.onnx"] = folder / f"{name}-{stage}.onnx"
            onnx.save(graph, files[f"{stage}.onnx"])
        written.append(bundles.write(folder / name, wired(manifest, graphs), files))
    return written[0], written[1]


def _encode(shipped: Bundle) -> ModelProto:
    """Make a condition of nothing but a mean of the volumes."""
    ports = shipped.manifest.built["encode"].inputs
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, port.shape) for name, port in ports.items()
    ]
    outputs = [helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 1, 1])]
    nodes = [
        helper.make_node("ReduceMean", ["fmri"], ["mean"], keepdims=1),
        helper.make_node("ReduceMean", ["fmri_mask"], ["share"], keepdims=0),
        helper.make_node("Mul", ["mean", "share"], ["condition"]),
    ]
    return _model(nodes, "encode", inputs, outputs, {})


def _denoise(latent: list[int]) -> ModelProto:
    """Halve the noise."""
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, latent)]
    outputs = [helper.make_tensor_value_info("next", TensorProto.FLOAT, latent)]
    nodes = [helper.make_node("Mul", ["latent", "half"], ["next"])]
    return _model(nodes, "denoise", inputs, outputs, {"half": np.array(0.5, np.float32)})


def _decode(latent: list[int], size: tuple[int, int], frames: int) -> ModelProto:
    """Enlarge three channels and squash them, the same for each frame."""
    _, channels, _, rows, columns = latent
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, [1, channels, 1, rows, columns])]
    outputs = [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, frames, *size, 3])]
    nodes = [
        helper.make_node("Reshape", ["latent", "flat"], ["planes"]),
        helper.make_node("Slice", ["planes", "first", "third", "axis"], ["colours"]),
        helper.make_node("Resize", ["colours", "", "", "sizes"], ["large"], mode="linear"),
        helper.make_node("Sigmoid", ["large"], ["bounded"]),
        helper.make_node("Transpose", ["bounded"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "video"], ["picture"]),
        helper.make_node("Tile", ["picture", "times"], ["frames"]),
    ]
    values = {
        "flat": [1, channels, rows, columns],
        "first": [0],
        "third": [3],
        "axis": [1],
        "sizes": [1, 3, *size],
        "video": [1, 1, *size, 3],
        "times": [1, frames, 1, 1, 1],
    }
    weights = {name: np.array(value, np.int64) for name, value in values.items()}
    return _model(nodes, "decode", inputs, outputs, weights)


def _model(
    nodes: list[onnx.NodeProto],
    name: str,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[Any]],
) -> ModelProto:
    tensors = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@contextmanager
def _every_value_looked_at() -> Iterator[None]:
    """Let a decoder look for values that are not finite as it did in 0.1: one by one."""
    today = decoding._check_finite

    def one_by_one(name: str, values: NDArray[Any], window: Window) -> None:
        n_nonfinite = values.size - int(np.isfinite(values).sum())
        if n_nonfinite:
            today(name, values, window)

    decoding._check_finite = one_by_one
    try:
        yield
    finally:
        decoding._check_finite = today


def _is_same(before: Decoded, after: Decoded) -> bool:
    return bool(np.array_equal(before.clip.frames, after.clip.frames))


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def table(figures: dict[str, Any]) -> Table:
    """Lay out the figures as they are printed."""
    laid = Table("ms of CPU time a clip", "p50", "p95", title_justify="left")
    for name, values in figures["ms"].items():
        laid.add_row(name, str(values["p50"]), str(values["p95"]))
    laid.add_row("8 bits over old", str(figures["ratio"]), f"at most {figures['most']}")
    laid.add_row("encoding, beside the next window", str(figures["encoding_ms"]), "")
    return laid


if __name__ == "__main__":
    main()
