"""Small real bundles with random weights, for sessions that must run but not see."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.eight_bits import rounded
from rtdecode.bundle import (
    Brain,
    Bundle,
    ClipGeometry,
    EegInput,
    FmriInput,
    Manifest,
    Output,
    wiring,
    write,
)
from rtdecode.bundle.graph import Graph
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import SCHEMA, Calibration, QualityFigures, Record
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid
from rtdecode.types import Presence

SHAPE = (12, 10, 6)
AFFINE = np.array([[-3.0, 0, 0, 20], [0, 3, 0, -15], [0, 0, 3, -9], [0, 0, 0, 1]])
VOXELS = 40
LATENT = (4, 9, 4, 6)
CHANNELS = ("Fp1", "Fz", "Cz", "Oz")
LABELS = ["face", "house", "chair"]
BRAIN = Brain("brain", Presence(0.5, 0.25, 0.25))
# What each mask adds to the logits of a bundle's output `brain`, and what they begin with. Both modalities
# give a brain (0.91), EEG alone is inconsistent (0.98), and fMRI alone is neither (0.94).
_PRESENCE = {"eeg_mask": [6, 4, 0], "fmri_mask": [6, -4, 0]}
_ABSENCE = [-9, 0, 0]
_HEAD = np.random.default_rng(11).normal(500, 20, SHAPE)
_AROUND = {"embedding": [1, 1], "confidence": [1, 1]}
_STEP = {"latent": [1, *LATENT], "condition": [1, *LATENT], "step": [1], "steps": [1]}


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
    steps: int = 0,
    confidence: dict[str, Any] | None = None,
    brain: Brain | None = None,
    toil: int = 0,
    detail: float | None = None,
) -> Bundle:
    """Write a bundle whose decoder is random but whose every part is real; hop and lag are the window.

    With `steps` it denoises, carries on and says how sure it is; `toil` makes each step cost that many
    products of matrices more. With `detail` its denoiser has a port for the share of detail. With
    `brain` it tells from the masks alone whether a brain is there.
    """
    work = folder.with_name(folder.name + ".parts")
    work.mkdir(parents=True)
    rng = np.random.default_rng(7)
    grid = TimingGrid(tr if fmri else None, Fraction(125), window, window, window, Fraction(8))
    ports = _ports(grid, channels if eeg else (), fmri)
    names = ["encode.onnx", "decode_first.onnx", "decode_next.onnx", "stats.npz", "golden.npz"]
    if steps:
        ports |= {"carry": [1, LATENT[0], 1, *LATENT[2:]], "carry_mask": [1, 1]}
        onnx.save(_denoise(toil, chooses=detail is not None), work / "denoise.onnx")
        names.append("denoise.onnx")
    onnx.save(_encode(ports, labels, rng, denoised=steps > 0, tells=brain is not None), work / "encode.onnx")
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
    np.savez(work / "golden.npz", **_golden(work, ports, rng, steps, detail))
    manifest = _manifest(grid, channels if eeg else None, fmri, labels, shape, affine, simulated)
    manifest_fields = {"steps": steps, "confidence": confidence, "brain": brain, "detail": detail}
    manifest = replace(manifest, **manifest_fields, **_wired(work))
    return write(folder, manifest, {name: work / name for name in (*names, "projection.npz")})


def scan(rng: np.random.Generator) -> np.ndarray:
    """Draw a volume of a head that rests, SHAPE; in noise alone a head would be searched for in vain."""
    return (_HEAD + rng.normal(0, 1, SHAPE)).astype(np.float32)


def make_calibration(folder: Path, bundle: Bundle, volume: np.ndarray) -> Calibration:
    """Write a calibration that reads the bundle's own voxels, with a volume of its grid as reference."""
    projection = bundle.projection
    assert projection is not None
    figures = QualityFigures(0.2, 0.1, 0, 90.0, 80.0, None, 1.0, 0)
    record = Record(
        schema=SCHEMA,
        version="0",
        made_at="now",
        origin="mask",
        origin_digest="0" * 16,
        labels=None,
        features=projection.features,
        series=1,
        tr_s=float(bundle.manifest.grid.tr or 0),
        volumes=20,
        dropped=0,
        shape=list(volume.shape),
        affine=projection.affine.tolist(),
        projection=projection.digest,
        placement=None,
        figures=figures,
        files={},
    )
    parts = {
        "reference": {"volume": volume.astype(np.float32), "affine": projection.affine},
        "projection": projection.to_arrays(),
        "warmup": {"mean": bundle.stats["fmri_mean"], "scale": bundle.stats["fmri_scale"]},
    }
    return calibrations.write(folder, record, parts, {"quality.html": b"page"})


def damage(bundle: Bundle, folder: Path) -> Path:
    """Copy a bundle with one byte of its encoder changed."""
    folder.mkdir()
    for file in bundle.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    raw = bytearray((folder / "encode.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "encode.onnx").write_bytes(raw)
    return folder


def changed(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    """Copy a bundle with other fields of its manifest."""
    files = {name: bundle.path / name for name in bundle.manifest.files}
    return write(folder, replace(bundle.manifest, **changes), files)


def in_eight_bits(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle with decode graphs that round their frames to 8 bits, as an export writes them."""
    work = folder.with_name(folder.name + ".parts")
    work.mkdir(parents=True)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    stages = dict(bundle.manifest.stages)
    for name in wiring.DECODING:
        graph = work / f"{name}.onnx"
        onnx.save(rounded(onnx.load(bundle.path / graph.name)), graph)
        _, outputs = _graph_ports(graph)
        ports = {port: Output(*kind) for port, kind in outputs.items()}
        stages[name] = replace(bundle.manifest.built[name], outputs=ports)
        files[graph.name] = graph
    return write(folder, replace(bundle.manifest, stages=stages), files)


def _ports(grid: TimingGrid, channels: tuple[str, ...], fmri: bool) -> dict[str, list[int]]:
    ports: dict[str, list[int]] = {}
    if channels:
        ports |= {"eeg": [1, len(channels), grid.samples], "eeg_mask": [1, grid.samples]}
    if fmri:
        ports |= {"fmri": [1, grid.slots, VOXELS], "fmri_mask": [1, grid.slots]}
    return ports


def _encode(
    ports: dict[str, list[int]],
    labels: list[str] | None,
    rng: np.random.Generator,
    *,
    denoised: bool,
    tells: bool,
) -> onnx.ModelProto:
    """Mean over time, a random map into the latent (or the condition), everything summed."""
    nodes = []
    weights = []
    terms = []
    widths = {
        "eeg": ports.get("eeg", [0, 0])[1],
        "fmri": VOXELS,
        "carry": int(np.prod(ports.get("carry", [0]))),
    }
    for name, shape in ports.items():
        axis = 1 if name in ("fmri", "carry_mask") else 2 if name == "carry" else len(shape) - 1
        width = widths.get(name, 1)
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
    output = "condition" if denoised else "latent"
    nodes.append(helper.make_node("Reshape", ["sum", "shape"], [output]))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, *LATENT])]
    if denoised:
        outputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in _AROUND.items()]
        weights.append(numpy_helper.from_array(np.array([1]), "axis_all"))
        nodes += [
            helper.make_node("ReduceMean", ["sum", "axis_all"], ["embedding"], keepdims=1),
            helper.make_node("Sigmoid", ["embedding"], ["confidence"]),
        ]
    if labels:
        pick = rng.normal(0, 0.1, (int(np.prod(LATENT)), len(labels))).astype(np.float32)
        weights.append(numpy_helper.from_array(pick, "W_scores"))
        nodes.append(helper.make_node("MatMul", ["sum", "W_scores"], ["logits"]))
        nodes.append(helper.make_node("Softmax", ["logits"], ["scores"]))
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, len(labels)]))
    if tells:
        mask_ports = [name for name in _PRESENCE if name in ports]
        mask_weights = np.array([_PRESENCE[name] for name in mask_ports], np.float32)
        weights.append(numpy_helper.from_array(mask_weights, "W_brain"))
        weights.append(numpy_helper.from_array(np.array([_ABSENCE], np.float32), "b_brain"))
        nodes += [
            helper.make_node("Concat", [f"f_{name}" for name in mask_ports], ["masks"], axis=1),
            helper.make_node("MatMul", ["masks", "W_brain"], ["said"]),
            helper.make_node("Add", ["said", "b_brain"], ["presence"]),
            helper.make_node("Softmax", ["presence"], ["brain"]),
        ]
        outputs.append(helper.make_tensor_value_info("brain", TensorProto.FLOAT, [1, 3]))
        if len(mask_ports) == len(_PRESENCE):
            weights.append(numpy_helper.from_array(np.array([6], np.float32), "W_by"))
            weights.append(numpy_helper.from_array(np.array([-3], np.float32), "b_by"))
            nodes += [
                helper.make_node("Mul", ["masks", "W_by"], ["said_by"]),
                helper.make_node("Add", ["said_by", "b_by"], ["presence_by"]),
                helper.make_node("Sigmoid", ["presence_by"], ["brain_by"]),
            ]
            outputs.append(helper.make_tensor_value_info("brain_by", TensorProto.FLOAT, [1, 2]))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ports.items()]
    return _model(helper.make_graph(nodes, "encode", inputs, outputs, weights))


def _denoise(toil: int, *, chooses: bool) -> onnx.ModelProto:
    """x + (condition + embedding + tanh(x) / 2 - x) / (steps - step): what it ends in depends on the way.

    With `chooses` the last step keeps a share of what is added to the condition.
    """
    values: dict[str, np.ndarray] = {
        "half": np.array([0.5], np.float32),
        "tiny": np.array([1e-30], np.float32),
    }
    values["mix"] = np.full((512, 512), 1 / 512, np.float32)
    values["cells"], values["broad"] = np.array([1, 1, 1, 1, 1]), np.array([512, 512])
    nodes = [
        helper.make_node("Sub", ["steps", "step"], ["left"]),
        helper.make_node("Tanh", ["latent"], ["bent"]),
        helper.make_node("Mul", ["bent", "half"], ["halved"]),
        helper.make_node("Reshape", ["embedding", "cells"], ["level"]),
        helper.make_node("Reshape", ["step", "cells"], ["number"]),
        helper.make_node("Expand", ["step", "broad"], ["work0"]),
        *(helper.make_node("MatMul", [f"work{n}", "mix"], [f"work{n + 1}"]) for n in range(toil)),
        helper.make_node("ReduceMean", [f"work{toil}"], ["effort"], keepdims=0),
        helper.make_node("Mul", ["effort", "tiny"], ["nothing"]),
        helper.make_node("Sum", ["level", "halved", "nothing"], ["drawn"]),
        *_share(chooses),
        helper.make_node("Add", ["condition", "kept"], ["aim"]),
        helper.make_node("Sub", ["aim", "latent"], ["way"]),
        helper.make_node("Div", ["way", "left"], ["stride"]),
        helper.make_node("Add", ["latent", "stride"], ["next"]),
    ]
    values["one"] = np.array([1], np.float32)
    shapes = _STEP | {"embedding": _AROUND["embedding"]} | ({"detail": [1]} if chooses else {})
    graph = helper.make_graph(
        nodes,
        "denoise",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, *LATENT])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    return _model(graph)


def _share(chooses: bool) -> list[onnx.NodeProto]:
    """Keep a share of what is drawn in the last step, of which one is left, and all of it before."""
    if not chooses:
        return [helper.make_node("Identity", ["drawn"], ["kept"])]
    return [
        helper.make_node("Equal", ["left", "one"], ["ends"]),
        helper.make_node("Where", ["ends", "detail", "one"], ["share"]),
        helper.make_node("Mul", ["drawn", "share"], ["kept"]),
    ]


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


def _golden(
    work: Path, ports: dict[str, list[int]], rng: np.random.Generator, steps: int, detail: float | None
) -> dict[str, np.ndarray]:
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in ports.items()}
    if steps:
        arrays["carry_mask"] = np.ones((1, 1), np.float32)
    encoded = _run(work / "encode.onnx", arrays)
    if not steps:
        return arrays | encoded
    arrays["noise"] = encoded["latent"] = rng.normal(size=(1, *LATENT)).astype(np.float32)
    conditioning = {name: encoded[name] for name in ("condition", "embedding")}
    conditioning["steps"] = np.array([steps], np.float32)
    conditioning |= {} if detail is None else {"detail": np.array([detail], np.float32)}
    for step in range(steps):
        step_inputs = {"latent": encoded["latent"], "step": np.array([step], np.float32)}
        encoded["latent"] = _run(work / "denoise.onnx", conditioning | step_inputs)["next"]
    parts = [
        _run(work / f"decode_{'next' if t else 'first'}.onnx", {"latent": encoded["latent"][:, :, t : t + 1]})
        for t in range(LATENT[1])
    ]
    frames = np.concatenate([part["frames"] for part in parts], axis=1)
    outputs = {
        name: encoded[name] for name in ("latent", "confidence", "brain", "brain_by") if name in encoded
    }
    return arrays | outputs | {"frames": frames}


def _run(graph: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph))
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def _wired(work: Path) -> dict[str, Any]:
    """Stages, states and latent of the graphs in a folder, by the names of their ports."""
    return wiring.by_name({graph.stem: _graph_ports(graph) for graph in sorted(work.glob("*.onnx"))})


def _graph_ports(file: Path) -> tuple[wiring.Ports, wiring.Ports]:
    graph = Graph(file.read_bytes(), file.name)
    return graph.inputs, graph.outputs


def _manifest(
    grid: TimingGrid,
    channels: tuple[str, ...] | None,
    fmri: bool,
    labels: list[str] | None,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    simulated: bool,
) -> Manifest:
    return Manifest(
        schema=2,
        name="test",
        recipe="none",
        recipe_digest="0" * 8,
        noise_key="5eed",
        simulated=simulated,
        note=None if simulated else "random weights",
        grid=grid,
        eeg=EegInput(list(channels), "FCz", "microvolts", EegBand()) if channels else None,
        fmri=FmriInput(VOXELS, list(shape), affine.tolist(), Baseline()) if fmri else None,
        clip=ClipGeometry(33, 64, 96, 8.0),
        latent=None,
        steps=0,
        sigmas={},
        stages={},
        states={},
        labels=labels,
        confidence=None,
        files={},
        parity={},
        provenance={},
        licence="Apache-2.0",
    )
