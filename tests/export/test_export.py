"""Runs become bundles whose graphs equal the run's own decoder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import eight_bits
from export.digest import digest
from export.kernels import missing
from export.parity import allowed, compare, expected, held_to
from export.run import graphs_of, run, wired
from rtdecode import bundle, installing
from rtdecode.bundle import Manifest, describe
from rtdecode.bundle.engine import load
from rtdecode.bundle.golden import STEPS, first
from rtdecode.bundle.golden import compare as compare_golden
from rtdecode.bundle.golden import decode as decode_golden
from rtdecode.bundle.golden import window as golden_window
from rtdecode.errors import BundleError, UsageError
from rtdecode.types import Window
from streaming.decode.decoder import Decoder
from tests.refusals import refused
from tests.shipped import BUNDLES
from tests.train.tiny import tiny, tiny_bundle
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import arrays, read_run
from train.evaluation.reconstruct import reconstruct
from train.interface.system import ClosedForm, Condition, System
from train.models.haxby.system import Category
from train.models.ridge.system import PatchRidge
from train.parts.generators.cogvideox import VideoDiffusion

ROOT = Path(__file__).parents[2]
HIDING = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "matplotlib", "yaml", "diffusers", "peft", "accelerate"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from rtdecode.cli import main
main()
"""


def system_of(folder: Path) -> System:
    plan = build(read_run(folder)["arguments"]["system"])
    return restored(folder, plan)


@pytest.mark.parametrize(
    ("recipe", "steps"), [("ridge", 0), ("haxby", 0), pytest.param("compact", 4, marks=pytest.mark.full)]
)
def test_a_run_becomes_a_bundle(recipe: str, steps: int) -> None:
    exported = tiny_bundle(recipe)
    manifest = exported.manifest
    assert (manifest.stages["denoise"] is not None) == (steps > 0)
    assert manifest.steps == steps
    # Of these recipes none tells its denoiser levels from a list.
    assert manifest.sigmas == {}
    assert manifest.noise_key == manifest.recipe_digest
    assert manifest.parity["status"] == "passed"
    differences = manifest.parity["largest_difference"]
    assert all(error <= allowed(name) for name, error in differences.items())
    # What the denoiser is told is held against the module that was traced.
    assert ("condition" in differences) == (steps > 0)
    assert manifest.flavour == ("fused" if steps else None)
    assert read_run(tiny(recipe))["figures"]
    assert manifest.recipe_digest == read_run(tiny(recipe))["digest"]


@pytest.mark.parametrize("recipe", ["haxby", pytest.param("compact", marks=pytest.mark.full)])
def test_exporting_twice_gives_the_same_bytes(recipe: str, tmp_path: Path) -> None:
    assert run(tiny(recipe), tmp_path / "bundle").digest == tiny_bundle(recipe).digest


@pytest.mark.parametrize(
    ("options", "code", "values"),
    [
        (
            {"target": "coreml"},
            "export-option-unsupported",
            {"option": "target", "value": "coreml", "available": ["onnx", "cuda", "tensorrt"]},
        ),
        (
            {"precision": "fp4"},
            "export-option-unsupported",
            {"option": "precision", "value": "fp4", "available": ["fp32", "bf16", "fp16", "int8", "fp8"]},
        ),
        ({"target": "tensorrt", "precision": "int8"}, "export-int8-target-unsupported", {}),
        ({"target": "cuda", "precision": "int8"}, "export-int8-target-unsupported", {"target": "cuda"}),
        ({"steps": 4}, "export-steps-without-denoiser", {"steps": 4}),
    ],
)
def test_what_is_not_built_is_said(options: dict, code: str, values: dict, tmp_path: Path) -> None:
    with refused(UsageError, code, **values):
        run(tiny("haxby"), tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


def test_a_precision_that_a_system_refuses_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Category, "refused", {"bf16": "its sums are long."})
    reason = "its sums are long."
    with refused(UsageError, "export-precision-refused", precision="bf16", explanation=reason):
        run(tiny("haxby"), tmp_path / "bundle", precision="bf16")
    assert not (tmp_path / "bundle").exists()
    assert list(VideoDiffusion.refused) == ["fp16"]
    assert "overflows" in VideoDiffusion.refused["fp16"]


def test_a_bundle_of_int8_has_passed_and_says_its_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = run(tiny("ridge"), tmp_path / "bundle", precision="int8")
    assert exported.manifest.precision == bundle.to_json(exported.manifest)["precision"] == "int8"
    parity = exported.manifest.parity
    assert parity["status"] == "passed"
    assert 30 <= parity["clip_psnr_db"] < 80
    single = tiny_bundle("ridge")
    assert "precision" not in bundle.to_json(single.manifest)
    size, whole_size = ((candidate.path / "encode.onnx").stat().st_size for candidate in (exported, single))
    assert size < 0.7 * whole_size
    describe.show(exported)
    printed = capsys.readouterr().out
    assert "int8" in printed
    assert "passed" in printed
    # A session holds the graphs to what their precision allows.
    golden = first(exported)
    outputs = decode_golden(load(exported), golden, 0, "golden.npz")
    compare_golden(exported, golden, outputs)
    outputs["frames"] = 1 - outputs["frames"]
    with refused(BundleError, "golden-psnr-too-low", output="frames", precision="int8", min_psnr_db=30.0):
        compare_golden(exported, golden, outputs)
    outputs["latent"] = -outputs["latent"]
    with refused(BundleError, "golden-psnr-too-low", output="latent"):
        compare_golden(exported, golden, outputs)
    with refused(
        BundleError,
        "manifest-precision-unknown",
        available=["fp32", "bf16", "fp16", "int8", "fp8"],
        precision="fp4",
    ):
        bundle.from_json(bundle.to_json(exported.manifest) | {"precision": "fp4"})


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=pytest.mark.full), "fp16"])
def test_a_precision_that_does_not_run_here_is_rounded_to_and_has_not_passed(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = run(tiny("haxby"), tmp_path / "bundle", precision=precision)
    parity = exported.manifest.parity
    assert (parity["status"], parity["largest_difference"]) == ("structural", None)
    assert parity["fp32"]["largest_difference"] == tiny_bundle("haxby").manifest.parity["largest_difference"]
    assert parity["emulated"]["status"] == "passed"
    assert parity["emulated"]["largest_difference"]["scores"] > 1e-5
    describe.show(exported)
    assert f"{precision}" in capsys.readouterr().out


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with refused(UsageError, "output-folder-foreign-files", folder_kind="bundle", folder=tmp_path):
        run(tiny("haxby"), tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "keep me"


def test_graphs_that_differ_from_the_run_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny("haxby"), folder)
    weights = arrays(folder, "weights")
    golden = expected(Category(weights), arrays(folder, "golden"))
    manifest = draft_of(folder).manifest
    moved = Category(weights | {"offset": weights["offset"] + np.arange(8) * 0.01})
    graphs = graphs_of(moved.stages(manifest))
    with refused(BundleError, "export-difference-too-large", differences=re.compile("scores")):
        compare(wired(manifest, graphs), graphs, golden)


def without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program where nothing finds what the extra `export` does not bring."""
    return subprocess.run(
        [sys.executable, "-c", HIDING, *words], capture_output=True, text=True, check=False, timeout=120
    )


def test_closed_form_runs_are_exported_without_torch(tmp_path: Path) -> None:
    done = without_torch("export", str(tiny("haxby")), "--out", str(tmp_path / "bundle"))
    assert done.returncode == 0, done.stderr
    assert bundle.load(tmp_path / "bundle").digest == tiny_bundle("haxby").digest


def test_a_compact_run_says_that_it_needs_torch(tmp_path: Path) -> None:
    run_dir = ROOT / "train" / "runs" / "phantom"
    done = without_torch("export", str(run_dir), "--out", str(tmp_path / "bundle"), "--steps", "2")
    assert done.returncode == 1
    assert "needs the package torch, which is not installed" in done.stderr
    assert installing.command("train,export") in done.stderr
    assert "Traceback" not in done.stderr


def test_how_far_off_is_too_far_is_said_of_each_output() -> None:
    off = {"latent": np.zeros((1, 2), np.float32), "confidence": np.full((1, 1), 5e-4, np.float32)}
    truth = {name: np.zeros_like(value) for name, value in off.items()}
    assert held_to(truth, off) == {"latent": 0.0, "confidence": 5e-4}
    off["confidence"][:] = 2e-3
    with refused(BundleError, "export-difference-too-large", tolerances={"confidence": 1e-3}):
        held_to(truth, off)
    off["latent"][:] = 5e-4
    tolerances = {"latent": 1e-4, "confidence": 1e-3}
    with refused(BundleError, "export-difference-too-large", tolerances=tolerances):
        held_to(truth, off)


def test_probabilities_of_a_brain_may_be_off_as_the_confidence_may() -> None:
    truth = {"brain": np.array([[0.9, 0.06, 0.04]], np.float32)}
    assert held_to(truth, {"brain": truth["brain"] + np.float32(5e-4)})["brain"] == pytest.approx(5e-4, 0.01)
    with refused(BundleError, "export-difference-too-large", tolerances={"brain": 1e-3}):
        held_to(truth, {"brain": truth["brain"] + np.float32(2e-3)})


def test_what_a_system_tells_of_a_brain_is_expected_of_its_graphs() -> None:
    probabilities = np.array([[0.9, 0.06, 0.04], [0.1, 0.1, 0.8]])
    outputs = expected(
        Telling({}), {"brightness": np.array([[0.2], [0.7]], np.float32), "told": probabilities}
    )
    np.testing.assert_allclose(outputs["brain"], probabilities, rtol=1e-6)
    assert outputs["brain"].dtype == np.float32


class Telling(ClosedForm):
    """Its latents are given, and so is what it tells of a brain."""

    latent_shape = (1, 1, 1, 1)

    def condition(self, inputs: Arrays) -> Condition:
        start = inputs["brightness"].reshape(-1, *self.latent_shape)
        return Condition(start=start, brain=inputs["told"])

    def frames(self, latents: np.ndarray) -> np.ndarray:
        return latents.reshape(-1, 1, 1, 1, 1).repeat(3, axis=-1)

    def graphs(self, manifest: Manifest) -> dict[str, onnx.ModelProto]:
        return {}


def test_windows_with_holes_take_the_same_way_in_both_decoders() -> None:
    exported = tiny_bundle("ridge")
    engine = load(exported)
    rng = np.random.default_rng(0)
    golden = {n: exported.golden()[n] for n in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    for _ in range(6):
        window = {name: value[:1].copy() for name, value in golden.items()}
        window["fmri_mask"] = (rng.random((1, 5)) < 0.5).astype(np.float32)
        window["fmri"] *= window["fmri_mask"][:, :, None]
        window["eeg_mask"][:, : rng.integers(0, 501)] = 0
        window["eeg"] *= window["eeg_mask"][:, None]
        outputs = decode_golden(engine, window, 0, "the window")
        expected = PatchRidge(arrays(tiny("ridge"), "weights")).condition(window).start
        assert np.abs(outputs["latent"] - expected).max() < 1e-4


def test_weights_that_do_not_fit_into_one_file_lie_beside_their_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single_file = tiny_bundle("ridge")
    monkeypatch.setattr("export.files.LARGEST", 2**14)
    exported = run(tiny("ridge"), tmp_path / "bundle")
    stages = exported.manifest.built
    assert stages["encode"].data == ["encode.weights"]
    assert (exported.path / "encode.weights").stat().st_size > 10 * (
        exported.path / "encode.onnx"
    ).stat().st_size
    golden = {name: values[:1] for name, values in exported.golden().items()}
    separate, together = (
        decode_golden(load(bundle), golden, 0, "golden.npz") for bundle in (exported, single_file)
    )
    assert np.array_equal(separate["frames"], together["frames"])
    (exported.path / "encode.weights").write_bytes(b"")
    with refused(BundleError, "bundle-file-digest-mismatch", path=exported.path / "encode.weights"):
        bundle.load(exported.path)


@pytest.mark.full
def test_steps_asked_for_become_the_bundles_default(tmp_path: Path) -> None:
    exported = run(tiny("compact"), tmp_path / "bundle", steps=2)
    assert exported.manifest.steps == 2
    assert STEPS not in exported.golden()
    with refused(UsageError, "export-steps-not-positive", steps=0):
        run(tiny("compact"), tmp_path / "other", steps=0)


@pytest.mark.full
def test_of_many_steps_golden_windows_take_few(tmp_path: Path) -> None:
    exported = run(tiny("compact"), tmp_path / "bundle", steps=6)
    windows = exported.golden()
    assert (exported.manifest.steps, exported.manifest.parity["windows"]) == (6, 1)
    assert windows[STEPS].tolist() == [2]
    # A session that loads the bundle takes as few, and other clips with all of them.
    decoder = Decoder(exported)
    assert decoder.steps == 6
    window = first(exported)
    outputs = decode_golden(load(exported), window, 6, "golden.npz")
    assert np.abs(outputs["latent"] - window["latent"]).max() > 1e-2


def test_live_windows_and_their_holes_take_the_same_way_as_in_training() -> None:
    shipped = bundle.load("phantom")
    decoder = Decoder(shipped)
    system = system_of(ROOT / "train" / "runs" / "phantom")
    golden = {n: shipped.golden()[n] for n in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    golden["fmri_mask"][1, 2] = golden["fmri"][1, 2] = 0
    golden["eeg"][2] = 0
    golden["eeg_mask"][2] = 0
    where = [(0, 4.0 * k, 4.0 * k + 4) for k in range(3)]
    offline = reconstruct(system, golden, where, shipped.manifest.noise_key, hop_s=4.0, steps=4)
    for k, (_, start, stop) in enumerate(where):
        masks = {m: golden[f"{m}_mask"][k] > 0 for m in ("eeg", "fmri")}
        data = {m: golden[m][k] if masks[m].any() else None for m in masks}
        window = Window(
            run=0,
            index=k,
            start_s=start,
            stop_s=stop,
            session_s=start,
            revision="final",
            eeg=data["eeg"],
            eeg_mask=masks["eeg"],
            fmri=data["fmri"],
            fmri_mask=masks["fmri"],
            fmri_expected=np.ones(5, bool),
            floor_at=0.0,
        )
        clip = decoder.decode(window).clip
        assert np.abs(clip.latent[0] - offline.latents[k]).max() < 1e-3
        assert np.abs(clip.frames.astype(int) - offline.clips[k]).max() <= 1


@pytest.mark.full
@pytest.mark.parametrize("name", BUNDLES)
def test_the_shipped_run_gives_the_shipped_graphs_and_clips(name: str) -> None:
    folder = ROOT / "train" / "runs" / name
    shipped = bundle.load(name)
    manifest = draft_of(folder).manifest
    system = system_of(folder)
    graphs = graphs_of(system.stages(manifest))
    for stage, model in graphs.items():
        on_disk = onnx.load(shipped.path / f"{stage}.onnx")
        # Bundles that were exported before frames left a graph in 8 bits have them in single precision.
        in_8_bits = "uint8" in {output.dtype for output in shipped.manifest.built[stage].outputs.values()}
        written = eight_bits.rounded(model) if in_8_bits else model
        assert digest(written) == digest(on_disk) == shipped.manifest.parity["digests"][stage]
    assert Decoder(shipped).steps == shipped.manifest.steps, "the golden windows agree"


@pytest.mark.full
@pytest.mark.parametrize("name", BUNDLES)
def test_the_shipped_run_gives_the_shipped_latents_and_graphs_for_a_gpu(name: str, tmp_path: Path) -> None:
    """On the CPU; what runs on a GPU is told by the table of its kernels alone."""
    folder = ROOT / "train" / "runs" / name
    shipped = bundle.load(name)
    window = golden_window(shipped)
    expected = Decoder(shipped).decode(window).clip
    for target, tolerance in (("onnx", 0), ("cuda", 1e-5)):
        exported = run(folder, tmp_path / target, target=target)
        clip = Decoder(exported).decode(window).clip
        assert np.abs(clip.latent - expected.latent).max() <= tolerance
        levels = np.abs(clip.frames.astype(int) - expected.frames)
        assert levels.max() <= (target == "cuda")
    lacking = {
        name: missing(onnx.load(exported.path / stage.file))
        for name, stage in exported.manifest.built.items()
    }
    assert not any(lacking.values())


@pytest.mark.parametrize("name", BUNDLES)
def test_the_golden_windows_are_the_runs_own(name: str) -> None:
    run_golden = arrays(ROOT / "train" / "runs" / name, "golden")
    golden = bundle.load(name).golden()
    # Where clips take many steps, a bundle has fewer of them.
    count = len(golden["latent"])
    assert count > 0
    for key, value in run_golden.items():
        assert np.array_equal(value[:count], golden[key])


def test_what_ships_is_small_and_holds_no_pickle() -> None:
    files = [
        path
        for place in ("rtdecode/bundles", "train/runs")
        for path in (ROOT / place).rglob("*")
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in files) <= 48 * 2**20
    assert {path.suffix for path in files} <= {".json", ".npy", ".npz", ".onnx", ".png", ".webp"}
    for path in files:
        if path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).dtype == np.float16
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                assert [archive[key].dtype.kind for key in archive.files]
