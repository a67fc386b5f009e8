"""Engines built ahead: real ones by TensorRT-RTX, which needs no GPU to build, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from export import engines
from export.run import run
from export.trace import OPSETS
from rtdecode import bundle as bundles
from rtdecode.bundle import BuiltEngine, Bundle
from rtdecode.disk.hashed_folder import digest_of, file_hash
from rtdecode.errors import BundleError, ManifestError, RtDecodeError, UsageError
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.train.tiny import tiny

# Of heads that TensorRT-RTX has a kernel for: 32 values each.
_SHAPE = [1, 4, 64, 32]


def attention(kind: int) -> ModelProto:
    """A graph of one attention node, with values of this type."""
    inputs = [helper.make_tensor_value_info(name, kind, _SHAPE) for name in ("q", "k", "v")]
    outputs = [helper.make_tensor_value_info("y", kind, _SHAPE)]
    graph = helper.make_graph([helper.make_node("Attention", ["q", "k", "v"], ["y"])], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def built_for(bundle: Bundle, stage: str) -> BuiltEngine:
    """Describe an engine of a stage as a manifest does."""
    return BuiltEngine(
        builder="tensorrt_rtx",
        version="1.7.1.116",
        compute_capability="8.0",
        stage=stage,
        file=f"engines/tensorrt_rtx-sm80/{stage}.engine",
        graph=bundle.manifest.files[bundle.manifest.built[stage].file],
        flavour="decomposed",
    )


def with_engines(bundle: Bundle, *built: BuiltEngine) -> Bundle:
    """Write a bundle again with engines that nothing built."""
    source = bundle.path.with_name("some.engine")
    source.write_bytes(b"not read before it is run" * 100)
    files = {name: bundle.path / name for name in bundle.manifest.files}
    files |= {engine.file: source for engine in built}
    return bundles.write(bundle.path, replace(bundle.manifest, engines=list(built)), files)


def with_engine(bundle: Bundle) -> Bundle:
    return with_engines(bundle, built_for(bundle, "encode"))


def test_engines_are_listed_and_hashed_and_left_out_where_there_are_none(tmp_path: Path) -> None:
    plain = make_bundle(tmp_path / "bundle")
    assert "engines" not in bundles.to_json(plain.manifest)
    assert "gpu" not in bundles.to_json(plain.manifest)
    bundle = with_engine(plain)
    (engine,) = bundle.manifest.engines
    assert engine.file in bundle.manifest.files
    assert bundle.digest != plain.digest
    assert bundles.load(bundle.path).manifest == bundle.manifest


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing"])
def test_a_damaged_engine_is_refused_by_name(harm: str, tmp_path: Path) -> None:
    bundle = with_engine(make_bundle(tmp_path / "bundle"))
    file = bundle.path / bundle.manifest.engines[0].file
    data = file.read_bytes()
    if harm == "truncated":
        file.write_bytes(data[:100])
    elif harm == "altered":
        file.write_bytes(data[:-1] + b"!")
    else:
        # Beside another file, for the folder to be there.
        file.rename(file.with_name("other.engine"))
    if harm == "missing":
        expected = refused(
            BundleError,
            "bundle-unlisted-files",
            folder=bundle.path,
            unlisted_files=["'engines/tensorrt_rtx-sm80/other.engine'"],
        )
    else:
        expected = refused(BundleError, "bundle-file-digest-mismatch", path=file)
    with expected:
        bundles.load(bundle.path)


@pytest.mark.parametrize(
    ("key", "value", "code", "values"),
    [
        (
            "builder",
            "tvm",
            "engine-builder-unknown",
            {"builder": "tvm", "available": ["tensorrt", "tensorrt_rtx"]},
        ),
        (
            "flavour",
            "sour",
            "engine-flavour-unknown",
            {"flavour": "sour", "available": ["fused", "decomposed"]},
        ),
        ("compute_capability", "80", "engine-capability-malformed", {"compute_capability": "80"}),
        ("stage", "denoise", "engine-graph-missing", {"stage": "denoise"}),
        ("file", "engines/other.engine", "bundle-file-unlisted", {"file": "engines/other.engine"}),
        ("graph", "0" * 64, "engine-graph-changed", {"graph": "encode.onnx"}),
        (
            "version",
            1,
            "json-wrong-type",
            {"location": re.compile(r"version$"), "expected_type": "text", "value": "1"},
        ),
        ("extra", "x", "json-keys-mismatch", {"unknown_keys": ["extra"]}),
    ],
)
def test_a_wrong_description_of_an_engine_is_refused(
    key: str, value: object, code: str, values: dict[str, object], tmp_path: Path
) -> None:
    bundle = with_engine(make_bundle(tmp_path / "bundle"))
    head = bundle.path / "manifest.json"
    tree = json.loads(head.read_text())
    tree["engines"][0][key] = value
    del tree["digest"]
    tree["digest"] = digest_of(tree)
    head.write_text(json.dumps(tree))
    with refused(BundleError, code, **values):
        bundles.load(bundle.path)


def test_two_engines_of_one_kind_are_refused(tmp_path: Path) -> None:
    bundle = with_engine(make_bundle(tmp_path / "bundle"))
    with refused(ManifestError, "engine-duplicate", engine="tensorrt_rtx 8.0 encode"):
        replace(bundle.manifest, engines=bundle.manifest.engines * 2)


@pytest.mark.parametrize("text", ["80", "8.x", "8.0,", ""])
def test_other_words_than_compute_capabilities_are_refused(text: str) -> None:
    assert engines.capabilities_of("8.0, 12.0") == ["8.0", "12.0"]
    with refused(UsageError, "engine-sm-malformed", sm=text):
        engines.capabilities_of(text)


def test_without_a_builder_the_command_that_installs_one_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    install = re.compile(r"\[tensorrt-rtx\]")
    with refused(RtDecodeError, "engine-builder-missing", tensorrt_rtx_command=install):
        engines.add(make_bundle(tmp_path / "bundle"))


def test_a_decomposed_attention_computes_the_same() -> None:
    fused = attention(TensorProto.FLOAT)
    plain = engines.decomposed(fused)
    assert "Attention" not in {node.op_type for node in plain.graph.node}
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(0, 1, _SHAPE).astype(np.float32) for name in ("q", "k", "v")}
    sessions = [onnxruntime.InferenceSession(model.SerializeToString()) for model in (fused, plain)]
    first, second = (np.asarray(session.run(None, inputs)[0]) for session in sessions)
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.full
def test_tensorrt_rtx_builds_engines_of_the_shipped_video_model(tmp_path: Path) -> None:
    shipped = bundles.load("phantom")
    words: list[str] = []
    bundle = engines.add(shipped, tmp_path / "bundle", ["8.0"], words.append)
    assert {engine.stage for engine in bundle.manifest.engines} == set(shipped.manifest.built)
    assert {engine.compute_capability for engine in bundle.manifest.engines} == {"8.0"}
    # Whatever else is there, the graphs and golden windows are the same files.
    digests = {name: bundle.manifest.files[name] for name in shipped.manifest.files}
    assert digests == shipped.manifest.files
    for engine in bundle.manifest.engines:
        assert file_hash(bundle.path / engine.file) == bundle.manifest.files[engine.file]
        assert (bundle.path / engine.file).stat().st_size > 100_000
    # The ports of the denoising step are those that the manifest states.
    denoise_engine = engines.of_stage(shipped, "denoise", "tensorrt_rtx", "8.0")
    stage = shipped.manifest.built["denoise"]
    assert denoise_engine.inputs == {name: (port.shape, port.dtype) for name, port in stage.inputs.items()}
    assert denoise_engine.outputs == {name: (port.shape, port.dtype) for name, port in stage.outputs.items()}
    # Built again, the engines take the place of those that are there.
    again = engines.add(bundle, None, ["8.6"], words.append)
    assert {engine.compute_capability for engine in again.manifest.engines} == {"8.6"}
    assert not (bundle.path / "engines" / "tensorrt_rtx-sm80").exists()


@pytest.mark.full
def test_a_run_exported_for_tensorrt_has_decomposed_graphs_and_engines_of_them(tmp_path: Path) -> None:
    bundle = run(tiny("compact"), tmp_path / "bundle", target="tensorrt", precision="bf16")
    manifest = bundle.manifest
    assert (manifest.flavour, manifest.precision) == ("decomposed", "bf16")
    assert {(engine.stage, engine.flavour) for engine in manifest.engines} == {
        (stage, "decomposed") for stage in manifest.built
    }
    graphs = [onnx.load(bundle.path / stage.file) for stage in manifest.built.values()]
    assert {opset.version for graph in graphs for opset in graph.opset_import} == {OPSETS["decomposed"]}
    assert not [node for graph in graphs for node in graph.graph.node if node.op_type == "Attention"]


@pytest.mark.full
def test_the_flavour_is_the_one_that_the_builder_can_make() -> None:
    # TensorRT-RTX 1.7 has a kernel of attention for half precision, and none for single precision.
    models = {kind: attention(kind) for kind in (TensorProto.FLOAT, TensorProto.FLOAT16)}
    flavours = {
        kind: engines.build("tensorrt_rtx", model.SerializeToString(), "8.0", Path("one node")).flavour
        for kind, model in models.items()
    }
    assert flavours == {TensorProto.FLOAT: "decomposed", TensorProto.FLOAT16: "fused"}


@pytest.mark.full
def test_what_the_builder_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    unknown = attention(TensorProto.FLOAT)
    unknown.graph.node[0].op_type = "Inattention"
    with refused(
        engines.NotBuiltError,
        "engine-graph-unreadable",
        builder="tensorrt_rtx",
        path="unknown",
        parser_errors=re.compile("Inattention"),
    ):
        engines.build("tensorrt_rtx", unknown.SerializeToString(), "8.0", Path("unknown"))
    # Hopper is no target of TensorRT-RTX.
    with refused(RtDecodeError, "engine-builds-all-failed", errors=re.compile("SM90 was asked for")):
        engines.add(bundles.load("phantom"), tmp_path / "bundle", ["9.0"], lambda words: None)


@pytest.mark.full
def test_ports_that_differ_from_the_manifest_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    stage = bundle.manifest.built["decode_next"]
    other = SimpleNamespace(
        path=bundle.path,
        read=bundle.read,
        mapped=bundle.mapped,
        manifest=SimpleNamespace(built={"decode_first": replace(stage, file="decode_first.onnx")}),
    )
    with refused(
        BundleError,
        "engine-build-ports-mismatch",
        stage=re.compile(r"stages\.decode_first$"),
        side="outputs",
    ):
        engines.of_stage(other, "decode_first", "tensorrt_rtx", "8.0")  # type: ignore[arg-type]


@pytest.mark.full
def test_a_bundle_gets_engines_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(make_bundle(tmp_path / "bundle").path, tmp_path / "copy")
    engines.command(str(tmp_path / "copy"), tmp_path / "made", "8.9")
    printed = capsys.readouterr()
    assert "engines/tensorrt_rtx-sm89/encode.engine: " in printed.err
    assert "3 engines" in printed.out
