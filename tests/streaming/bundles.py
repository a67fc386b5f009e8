"""Small real bundles with random weights, for sessions that must run but not see."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtdecode.bundle import Bundle, ClipGeometry, EegInput, FmriInput, Manifest, Stage, write
from rtdecode.signal.eeg import EegBand
from rtdecode.signal.volume import Baseline
from rtdecode.timing import TimingGrid

SHAPE = (12, 10, 6)
AFFINE = np.array([[-3.0, 0, 0, 20], [0, 3, 0, -15], [0, 0, 3, -9], [0, 0, 0, 1]])
VOXELS = 40
LATENT = (4, 9, 4, 6)
CHANNELS = ("Fp1", "Fz", "Cz", "Oz")
LABELS = ["face", "house", "chair"]


def make_bundle(
    folder: Path,
    *,
    eeg: bool = True,
    fmri: bool = True,
    labels: list[str] | None = None,
    channels: tuple[str, ...] = CHANNELS,
    shape: tuple[int, int, int] = SHAPE,
    affine: np.ndarray = AFFINE,
    simulated: bool = True,
    tr: Fraction = Fraction(4, 5),
    window: Fraction = Fraction(4),
) -> Bundle:
    """Write a bundle whose decoder is random but whose every part is real; hop and lag are the window."""
    work = folder.with_name(folder.name + ".parts")
    work.mkdir(parents=True)
    rng = np.random.default_rng(7)
    grid = TimingGrid(tr if fmri else None, Fraction(125), window, window, window, Fraction(8))
    ports = _ports(grid, channels if eeg else (), fmri)
    onnx.save(_encode(ports, labels, rng), work / "encode.onnx")
    onnx.save(_decode(1), work / "decode_first.onnx")
    onnx.save(_decode(4), work / "decode_next.onnx")
    voxels = np.sort(rng.choice(int(np.prod(shape)), VOXELS, replace=False))
    stats = {
        "eeg_mean": np.zeros(len(channels), np.float32),
        "eeg_scale": np.full(len(channels), 10, np.float32),
        "fmri_mean": np.full(VOXELS, 500, np.float32),
        "fmri_scale": np.full(VOXELS, 20, np.float32),
        "mean_clip": np.full((33, 64, 96, 3), 128, np.uint8),
    }
    np.savez(work / "stats.npz", **stats)
    np.savez(work / "projection.npz", voxels=voxels, shape=np.array(shape), affine=affine)
    np.savez(work / "golden.npz", **_golden(work, ports, rng))
    manifest = _manifest(grid, ports, channels if eeg else None, fmri, labels, shape, affine, simulated)
    names = ("encode.onnx", "decode_first.onnx", "decode_next.onnx", "stats.npz", "golden.npz")
    files = {name: work / name for name in (*names, "projection.npz")}
    return write(folder, manifest, files)


def damage(bundle: Bundle, folder: Path) -> Path:
    """Copy a bundle with one byte of its encoder changed."""
    folder.mkdir()
    for file in bundle.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = bytearray((folder / "encode.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "encode.onnx").write_bytes(raw)
    return folder


def with_note(bundle: Bundle, folder: Path, note: str) -> Bundle:
    """Copy a bundle with another note."""
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write(folder, replace(bundle.manifest, note=note), files)


def _ports(grid: TimingGrid, channels: tuple[str, ...], fmri: bool) -> dict[str, list[int]]:
    ports: dict[str, list[int]] = {}
    if channels:
        ports |= {"eeg": [1, len(channels), grid.samples], "eeg_mask": [1, grid.samples]}
    if fmri:
        ports |= {"fmri": [1, grid.slots, VOXELS], "fmri_mask": [1, grid.slots]}
    return ports


def _encode(
    ports: dict[str, list[int]], labels: list[str] | None, rng: np.random.Generator
) -> onnx.ModelProto:
    """Mean over time, a random map into the latent, everything summed."""
    nodes, weights, terms = [], [], []
    for name, shape in ports.items():
        axis = len(shape) - 1 if name != "fmri" else 1
        width = shape[1] if name == "eeg" else VOXELS if name == "fmri" else 1
        weight = rng.normal(0, 0.3, (width, int(np.prod(LATENT)))).astype(np.float32)
        weights += [
            numpy_helper.from_array(weight, f"W_{name}"),
            numpy_helper.from_array(np.array([axis]), f"axis_{name}"),
            numpy_helper.from_array(np.array([1, width]), f"flat_{name}"),
        ]
        nodes += [
            helper.make_node("ReduceMean", [name, f"axis_{name}"], [f"m_{name}"], keepdims=0),
            helper.make_node("Reshape", [f"m_{name}", f"flat_{name}"], [f"f_{name}"]),
            helper.make_node("MatMul", [f"f_{name}", f"W_{name}"], [f"t_{name}"]),
        ]
        terms.append(f"t_{name}")
    nodes.append(helper.make_node("Sum", terms, ["sum"]))
    weights.append(numpy_helper.from_array(np.array([1, *LATENT]), "shape"))
    nodes.append(helper.make_node("Reshape", ["sum", "shape"], ["latent"]))
    outputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, [1, *LATENT])]
    if labels:
        pick = rng.normal(0, 0.1, (int(np.prod(LATENT)), len(labels))).astype(np.float32)
        weights.append(numpy_helper.from_array(pick, "W_scores"))
        nodes.append(helper.make_node("MatMul", ["sum", "W_scores"], ["logits"]))
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"]))
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(labels)]))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ports.items()]
    return _model(helper.make_graph(nodes, "encode", inputs, outputs, weights))


def _decode(frames: int) -> onnx.ModelProto:
    """Three latent channels, enlarged and squashed, the same for each frame."""
    c, _, h, w = LATENT
    values = {
        "grid": np.array([1, c, h, w]),
        "from": np.array([0]),
        "to": np.array([3]),
        "axes": np.array([1]),
        "sizes": np.array([1, 3, 64, 96]),
        "times": np.array([1, frames, 1, 1, 1]),
        "video": np.array([1, 1, 64, 96, 3]),
    }
    nodes = [
        helper.make_node("Reshape", ["latent", "grid"], ["flat"]),
        helper.make_node("Slice", ["flat", "from", "to", "axes"], ["rgb"]),
        helper.make_node("Resize", ["rgb", "", "", "sizes"], ["large"], mode="nearest"),
        helper.make_node("Sigmoid", ["large"], ["bounded"]),
        helper.make_node("Transpose", ["bounded"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "video"], ["one"]),
        helper.make_node("Tile", ["one", "times"], ["frames"]),
    ]
    graph = helper.make_graph(
        nodes,
        "decode",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, [1, c, 1, h, w])],
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, frames, 64, 96, 3])],
        [numpy_helper.from_array(v.astype(np.int64), k) for k, v in values.items()],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _golden(work: Path, ports: dict[str, list[int]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(work / "encode.onnx"))
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in ports.items()}
    names = [port.name for port in session.get_outputs()]
    return arrays | dict(zip(names, session.run(names, arrays), strict=True))


def _manifest(
    grid: TimingGrid,
    ports: dict[str, list[int]],
    channels: tuple[str, ...] | None,
    fmri: bool,
    labels: list[str] | None,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    simulated: bool,
) -> Manifest:
    outputs = {"latent": [1, *LATENT]} | ({"scores": [1, len(labels)]} if labels else {})
    c, _, h, w = LATENT
    stages = {
        "encode": Stage("encode.onnx", ports, outputs),
        "denoise": None,
        "decode_first": Stage(
            "decode_first.onnx", {"latent": [1, c, 1, h, w]}, {"frames": [1, 1, 64, 96, 3]}
        ),
        "decode_next": Stage("decode_next.onnx", {"latent": [1, c, 1, h, w]}, {"frames": [1, 4, 64, 96, 3]}),
    }
    return Manifest(
        schema=1,
        name="test",
        recipe="none",
        recipe_digest="0" * 8,
        simulated=simulated,
        note=None if simulated else "random weights",
        grid=grid,
        eeg=EegInput(list(channels), "FCz", "microvolts", EegBand()) if channels else None,
        fmri=FmriInput(VOXELS, list(shape), affine.tolist(), Baseline()) if fmri else None,
        clip=ClipGeometry(33, 64, 96, 8.0),
        dtype="float32",
        sigmas=[],
        steps=0,
        stages=stages,
        labels=labels,
        confidence=None,
        files={},
        parity={},
        provenance={},
        licence="Apache-2.0",
    )
