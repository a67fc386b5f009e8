import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rtdecode.bundle import Bundle, Input, load, write
from rtdecode.bundle.wiring import DECODING
from rtdecode.errors import BundleError
from streaming.decode.decoder import Decoder, NonFiniteError
from tests.refusals import refused
from tests.streaming.bundles import LABELS, damage, in_eight_bits, make_bundle
from tests.streaming.windows import window


def with_graph(bundle: Bundle, name: str, graph: bytes) -> Bundle:
    """Copy a bundle with another graph, so that every hash holds."""
    file = bundle.path.with_name(f"new-{name}")
    file.write_bytes(graph)
    files = {entry: bundle.path / entry for entry in bundle.manifest.files}
    return write(bundle.path.with_name("copy"), bundle.manifest, files | {name: file})


def graph_beside(location: str, place: str) -> bytes:
    """A graph that adds weights which lie in another file."""
    weights = TensorProto(name="weights", dims=[4], data_type=TensorProto.FLOAT)
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    constant = helper.make_node("Constant", [], ["weights"], value=weights)
    add = helper.make_node("Add", ["latent", "weights"], ["frames"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("latent", "frames")]
    nodes, initializers = ([add], [weights]) if place == "initializer" else ([constant, add], [])
    graph = helper.make_graph(nodes, "beside", values[:1], values[1:], initializers)
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    return model.SerializeToString()


def without(ports: dict[str, Input], name: str) -> dict[str, Input]:
    """Copy ports without one of them."""
    return {port_name: port for port_name, port in ports.items() if port_name != name}


def test_a_clip_has_the_frames_of_its_latent(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle"))
    decoded = decoder.decode(window())
    assert decoded.clip.frames.shape == (33, 64, 96, 3)
    assert decoded.clip.frames.dtype == np.uint8
    assert decoded.clip.scores is None
    low = 1 / (1 + np.exp(-decoded.clip.latent[0, 0, :, 0, 0]))
    brightness = decoded.clip.frames[:, 0, 0, 0] / 255
    assert np.allclose(brightness[0], low[0], atol=0.003)
    assert np.allclose(brightness[1:].reshape(8, 4), low[1:, None], atol=0.003)
    assert decoded.started_at <= decoded.encoded_at <= decoded.first_frame_at <= decoded.last_frame_at


def test_an_absent_modality_is_zeros_under_a_zero_mask(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle"))
    full = window()
    without = window(fmri=False)
    zeroed = window()
    zeroed.fmri[:] = 0
    zeroed.fmri_mask[:] = False
    same = decoder.decode(without).clip.latent
    assert np.array_equal(same, decoder.decode(zeroed).clip.latent)
    assert not np.allclose(same, decoder.decode(full).clip.latent)


def test_scores_carry_the_labels(tmp_path: Path) -> None:
    decoder = Decoder(make_bundle(tmp_path / "bundle", eeg=False, labels=LABELS))
    scores = decoder.decode(window(eeg=False)).clip.scores
    assert scores is not None
    assert list(scores) == LABELS
    assert sum(scores.values()) == pytest.approx(1)


def test_a_bundle_that_decodes_otherwise_than_promised_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    golden = bundle.golden()
    golden["latent"] = golden["latent"] + 0.01
    np.savez(tmp_path / "golden.npz", **golden)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    other = write(tmp_path / "other", bundle.manifest, files | {"golden.npz": tmp_path / "golden.npz"})
    with refused(BundleError, "golden-difference-too-large", output="latent"):
        Decoder(other)


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    path = damage(make_bundle(tmp_path / "bundle"), tmp_path / "damaged")
    with refused(BundleError, "bundle-file-digest-mismatch", path=path / "encode.onnx"):
        load(path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    other = with_graph(make_bundle(tmp_path / "bundle"), "decode_next.onnx", b"no graph")
    with refused(BundleError, "graph-load-failed", graph=f"bundle {other.path}/decode_next.onnx"):
        Decoder(other)


@pytest.mark.parametrize("place", ["initializer", "constant"])
@pytest.mark.parametrize("weights_folder", ["working directory", "bundle", "absolute"])
def test_weights_beside_a_graph_are_never_read(
    place: str, weights_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are there to be found, and the file that names them is what the manifest says."""
    bundle = make_bundle(tmp_path / "bundle")
    weights = np.zeros(4, np.float32).tobytes()
    location = str(tmp_path / "weights.bin") if weights_folder == "absolute" else "weights.bin"
    other = with_graph(bundle, "decode_next.onnx", graph_beside(location, place))
    for folder in (tmp_path, other.path):
        (folder / "weights.bin").write_bytes(weights)
    if weights_folder == "working directory":
        monkeypatch.chdir(tmp_path)
    graph = f"bundle {other.path}/decode_next.onnx"
    with refused(BundleError, "graph-load-failed", graph=graph, error=re.compile("[Ee]xternal data")):
        Decoder(other)


def test_what_was_hashed_is_what_runs(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    other = make_bundle(tmp_path / "other", labels=LABELS)
    (bundle.path / "encode.onnx").write_bytes((other.path / "encode.onnx").read_bytes())
    with refused(BundleError, "bundle-file-digest-mismatch", path=bundle.path / "encode.onnx"):
        Decoder(bundle)


def test_ports_other_than_the_manifests_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    stage = bundle.manifest.stages["encode"]
    assert stage is not None
    eeg = stage.inputs["eeg"]
    graph = f"bundle {bundle.path}/encode.onnx"
    for changed in (
        stage.inputs | {"eeg": replace(eeg, dtype="float16")},
        without(stage.inputs, "fmri_mask"),
    ):
        bundle.manifest.stages["encode"] = replace(stage, inputs=changed)
        with refused(BundleError, "graph-ports-mismatch", graph=graph, side="inputs", stage="encode"):
            Decoder(bundle)


def test_a_clip_other_than_the_manifests_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    clip = replace(bundle.manifest.clip, frames=34)
    with refused(BundleError, "wiring-clip-shape-mismatch", actual=(1, 33, 64, 96, 3)):
        Decoder(replace(bundle, manifest=replace(bundle.manifest, clip=clip)))


def test_labels_that_are_not_as_many_as_the_scores_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", labels=LABELS)
    short = replace(bundle.manifest, labels=LABELS[:2])
    with refused(BundleError, "wiring-scores-shape-mismatch", n_labels=2, shape=[1, 3]):
        Decoder(replace(bundle, manifest=short))


def test_a_missing_stage_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    bundle.manifest.stages["decode_first"] = None
    with refused(BundleError, "wiring-stage-missing", stage="decode_first"):
        Decoder(bundle)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_window_of_numbers_that_are_none_gives_no_clip_and_leaves_no_trace(
    value: float, steps: int, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", steps=steps)
    decoder = Decoder(bundle)
    other = Decoder(bundle)
    bad = window(1)
    assert bad.eeg is not None
    bad.eeg[0, 7] = value
    for candidate in (decoder, other):
        candidate.decode(window(0))
    with refused(NonFiniteError, "window-output-not-finite", window=1, run=0):
        decoder.decode(bad)
    latent, expected = (candidate.decode(window(2)).clip.latent for candidate in (decoder, other))
    assert np.array_equal(latent, expected)


def test_graphs_that_round_give_the_frames_that_a_session_rounds(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "bundle", steps=2)
    rounding = in_eight_bits(plain, tmp_path / "rounded")
    assert [rounding.manifest.built[name].outputs["frames"].dtype for name in DECODING] == ["uint8"] * 2
    decoders = [Decoder(plain), Decoder(rounding)]
    assert decoders[1].differences["frames"] == 0
    for k in range(2):
        plain_clip, clip = (decoder.decode(window(k, seed=k)).clip for decoder in decoders)
        assert np.ptp(plain_clip.frames) > 100
        assert np.array_equal(plain_clip.frames, clip.frames)
        assert np.array_equal(plain_clip.latent, clip.latent)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_frames_that_are_no_numbers_give_no_clip(eight_bits: bool, tmp_path: Path) -> None:
    """The latent is finite, and a graph that draws it gives 0 / 0 where it is large."""
    plain = make_bundle(tmp_path / "bundle")
    graph = onnx.load(plain.path / "decode_next.onnx")
    last = graph.graph.node[-1]
    last.output[0] = "drawn"
    limit = onnx.numpy_helper.from_array(np.array(20, np.float32), "limit")
    graph.graph.initializer.append(limit)
    graph.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["latent"], ["largest"], keepdims=0),
            helper.make_node("Less", ["largest", "limit"], ["is_small"]),
            helper.make_node("Cast", ["is_small"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["drawn", "factor"], ["numerator"]),
            helper.make_node("Div", ["numerator", "factor"], ["frames"]),
        ]
    )
    bundle = with_graph(plain, "decode_next.onnx", graph.SerializeToString())
    if eight_bits:
        bundle = in_eight_bits(bundle, tmp_path / "rounded")
    decoder = Decoder(bundle)
    decoder.decode(window(0))
    loud = window(1)
    assert loud.fmri is not None
    loud.fmri[:] *= 1000
    output = "frames_mean" if eight_bits else "frames"
    with refused(NonFiniteError, "window-output-not-finite", window=1, output=output):
        decoder.decode(loud)
