"""CineSync on published weights: a small pipeline with random weights stands for CogVideoX-5B."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from numpy.typing import NDArray
from safetensors.torch import save_file

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.bundle import golden
from rtdecode.errors import UsageError
from streaming.sinks.clips import ClipSink
from tests.refusals import refused
from tests.train.parts.codecs.decoders import tiny_state
from tests.train.targets.models import cogvideox_vae, siglip
from tests.train.test_data_set import FEW_PLACES, release
from train.artifacts.run_folder import restored, subject_of
from train.config.recipe import build, check, read
from train.config.run_context import Arrays
from train.config.run_files import read_run, weights
from train.evaluate import evaluate
from train.evaluation.result import Request
from train.metrics.similarity import VARIANTS
from train.models.conditioned.published_system import PublishedVideo
from train.models.conditioned.system import Sampling
from train.parts.codecs.tiny_video_decoder import from_published
from train.parts.codecs.video_decoder import cache_shapes
from train.run_recipe import main as train
from train.run_recipe import run as make_run
from train.targets.__main__ import main as compute

_SMALL = "{builder: transformer, depth: 1, width: 16, heads: 2, inner: 24}"
# Latents of 33 frames of 48 x 80 pixels: 9 latent frames of 6 x 10.
_SIZE = (48, 80)
_CLIPS = ["vae.frames=33", "vae.size=48x80"]
_ONE_STEP = {"align.steps": 1, "align.batch": 2, "diffuse.steps": 1, "diffuse.batch": 1}


def save_pipeline(folder: Path) -> Path:
    """Save the parts of a pipeline that are read."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=1,
        sample_width=4,
        sample_height=2,
        sample_frames=33,
        use_rotary_positional_embeddings=True,
    )
    transformer.save_pretrained(folder / "transformer")
    cogvideox_vae(folder / "vae")
    parts = {
        "_class_name": "CogVideoXPipeline",
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain"), FEW_PLACES)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("weights") / "cogvideox")


@pytest.fixture(scope="module")
def changes(data: Path, pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return changes_for(data, pipeline, tmp_path_factory.mktemp("computed"))


def changes_for(data: Path, pipeline: Path, computed: Path) -> list[str]:
    """Compute the targets into a folder, and say what the recipe has to be told."""
    folder = computed / "siglip"
    siglip(folder)
    out = computed / "targets"
    models = {"vae": pipeline / "vae", "image": folder, "text": folder}
    model_arguments = [
        text
        for name, model_folder in models.items()
        for text in (f"{name}={model_folder}", f"{name}.licence=MIT")
    ]
    assert compute([str(data), *model_arguments, *_CLIPS, "image.frames=3", f"out={out}", "device=cpu"]) == 0
    return [
        f"data={data}",
        "data.sfreq=50",
        "data.voxels=40",
        f"system.targets={out}",
        f"system.video.folder={pipeline}",
        "system.video.licence=MIT",
        "system.encoder.tokens=8",
        "system.encoder.eeg_tokens=4",
        f"system.encoder.fmri={_SMALL}",
        f"system.encoder.eeg={_SMALL}",
        "system.conditions=4",
        "system.sampling.steps=2",
        "system.machine.device=cpu",
        "system.machine.workers=0",
        *(f"phases.{name}.steps=3" for name in ("align", "diffuse")),
        *(f"phases.{name}.batch=4" for name in ("align", "diffuse")),
        "phases.diffuse.accumulate=2",
        # So that three steps are seen in half precision.
        "phases.diffuse.rate=0.1",
        "phases.diffuse.warmup=0",
    ]


@pytest.fixture(scope="module")
def run(changes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cinesync"
    assert train(["cinesync", *changes, f"out={out}"]) == 0
    return out


def test_a_run_keeps_the_encoder_and_the_adapters_alone(run: Path) -> None:
    saved = weights(run)
    base_weights = [name for name in saved if name.startswith("transformer.") and ".lora_" not in name]
    assert base_weights == []
    adapter_weights = [x for name, x in saved.items() if ".lora_B." in name]
    assert adapter_weights
    assert all(np.abs(x).max() > 0 for x in adapter_weights)
    tables = read_run(run)["tables"]
    assert {row["phase"] for row in tables["loss"]} == {"align", "diffuse"}
    assert read_run(run)["figures"]["identification_2way_centred"]["n"] == 6
    # Held-out windows are told apart by the encoders that `diffuse` then leaves as they are.
    assert [(row["phase"], row["by"], row["windows"]) for row in tables["alignment"]] == [
        ("align", name, 6) for name in ("fmri", "eeg", "both")
    ]
    assert (run / "alignment-align.png").is_file()


@pytest.mark.full
def test_another_persons_training_begins_at_a_run(run: Path, changes: list[str], tmp_path: Path) -> None:
    out = make_run(
        "cinesync", [*changes, f"base={run}", "data.voxels=30", "judge=none", f"out={tmp_path / 'run'}"]
    )
    before = weights(run)
    after = weights(out)
    assert after.keys() == before.keys()
    for name, values in after.items():
        if name.startswith("transformer."):
            assert np.array_equal(values, before[name]), name
        # `align` takes small steps, and `diffuse` leaves these parts as they are.
        if name.startswith(("encoder.encoding.", "encoder.heads.", "pooling.")):
            assert np.abs(values.astype(np.float32) - before[name]).max() < 0.01, name
    voxels = "encoder.tokenizers.fmri.over_voxels.weight"
    assert (before[voxels].shape, after[voxels].shape) == ((4, 40), (4, 30))
    assert {row["phase"] for row in read_run(out)["tables"]["loss"]} == {"align", "diffuse"}


def test_its_clips_have_the_size_of_the_targets(run: Path, tmp_path: Path) -> None:
    system = restored(run, build(read_run(run)["arguments"])["system"])
    frames = system.frames(np.zeros((2, *system.latent_shape), np.float32))
    assert frames.shape == (2, 33, *_SIZE, 3)
    manifest, place = subject_of(run, None)
    assert (manifest.clip.height, manifest.clip.width) == _SIZE
    with np.load(place / "stats.npz", allow_pickle=False) as archive:
        assert archive["mean_clip"].shape == (33, *_SIZE, 3)
    assert _size_of_mp4(np.rint(frames[0] * 255).astype(np.uint8), tmp_path) == _SIZE


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_clips_of_480_x_720_pixels_are_trained_judged_and_exported(
    changes: list[str], pipeline: Path, tmp_path: Path
) -> None:
    size = (480, 720)
    # A clip of this size takes the autoencoder most of a minute, so that there are few.
    data = release(tmp_path / "cinebrain", [270 * run + n for run in (0, 1, 18) for n in range(2)])
    targets = tmp_path / "targets"
    siglip(tmp_path / "siglip")
    models = {"vae": pipeline / "vae", "image": tmp_path / "siglip", "text": tmp_path / "siglip"}
    arguments = [
        text for name, folder in models.items() for text in (f"{name}={folder}", f"{name}.licence=MIT")
    ]
    how = ["vae.frames=33", "vae.size=480x720", "image.frames=3", f"out={targets}", "device=cpu"]
    assert compute([str(data), *arguments, *how]) == 0
    phases = [f"phases.{name}={count}" for name, count in _ONE_STEP.items()]
    common = [text for text in changes if not text.startswith(("data=", "system.targets", "phases."))]
    large_clips = [f"data={data}", "data.clip=480x720", f"system.targets={targets}", "judge=none"]
    run = make_run("cinesync", [*common, *large_clips, *phases, f"out={tmp_path / 'run'}"])
    # The size is that of the run, whether or not its targets are there.
    shutil.rmtree(targets)
    figures = evaluate(run, Request(data=data, windows=2, published=True, sections="published"))
    assert figures["ssim_" + next(iter(VARIANTS))]["n"] == 2
    exporting.run(run, tmp_path / "bundle")
    bundle = bundles.load(tmp_path / "bundle")
    assert (bundle.manifest.clip.height, bundle.manifest.clip.width) == size
    assert _size_of_mp4(golden.first(bundle)["frames"][0], tmp_path) == size


def test_without_adapters_it_is_the_published_model(run: Path) -> None:
    system = restored(run, build(read_run(run)["arguments"])["system"])
    bare = system.without_adapters()
    assert bare is not None
    inputs = _golden(run)
    noise = np.random.default_rng(0).standard_normal((3, *system.latent_shape), np.float32)
    latents = system.sample(system.condition(inputs), noise, 2)
    assert not np.allclose(latents, bare.sample(bare.condition(inputs), noise, 2))


@pytest.mark.full
def test_it_becomes_a_bundle_that_draws_in_turns(run: Path, tmp_path: Path) -> None:
    exporting.run(run, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert {*manifest.built} == {"encode", "denoise", "decode_first", "decode_next"}
    # The first frames are of three latent frames, as the autoencoder of CogVideoX has it.
    assert _drawn_from(manifest) == {"decode_first": 3, "decode_next": 2}
    assert manifest.licence == "MIT"
    assert manifest.chain == "offline"
    weights = manifest.provenance["weights"]
    assert {name: source["licence"] for name, source in weights.items()} == {
        "vae": "MIT",
        "image": "MIT",
        "text": "MIT",
        "decoder": "MIT",
    }


@pytest.mark.full
def test_a_large_video_model_is_exported_in_its_own_precision(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few kilobytes count as large: the weights go to disk as they are, and no copy in fp32 is exported."""
    monkeypatch.setattr("train.models.conditioned.system.LARGE", 2**10)
    for module in ("export.trace", "export.run"):
        monkeypatch.setattr(f"{module}.LARGEST", 2**10)
    exported = exporting.run(run, tmp_path / "bundle", target="cuda", precision="bf16", steps=6)
    assert exported.manifest.built["denoise"].data == ["denoise.weights"]
    assert exported.manifest.parity["status"] == "structural"
    # Its graph computes in bfloat16 from the start: nothing in single precision stands for it.
    assert "fp32" not in exported.manifest.parity
    graph = onnx.load(exported.path / "denoise.onnx")
    kinds = {tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) > 1}
    assert onnx.TensorProto.BFLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in {
        tensor.data_type for tensor in graph.graph.initializer if tensor.name.endswith("to_q.weight")
    }
    assert exported.golden()["steps"].tolist() == [2]
    assert "The export takes about" in capsys.readouterr().err


@pytest.mark.full
def test_a_tiny_decoder_draws_in_its_place(changes: list[str], tmp_path: Path) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file(tiny_state(4), file)
    tiny = ["system.video.decoder=tiny", f"system.video.tiny={file}", "system.video.tiny_licence=MIT-0"]
    out = tmp_path / "run"
    assert train(["cinesync", *changes, *tiny, f"out={out}"]) == 0
    # The export compares what the graphs draw of the golden windows with what torch draws.
    exporting.run(out, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert _drawn_from(manifest) == {"decode_first": 1, "decode_next": 1}
    assert manifest.provenance["weights"]["decoder"]["licence"] == "MIT-0"
    decoder, _ = from_published(file, "MIT-0")
    state_shapes = {name: tuple(state.shape) for name, state in manifest.states.items()}
    assert state_shapes == cache_shapes(decoder, (4, 9, 6, 10))
    arguments = read_run(out)["arguments"]
    save_file(tiny_state(4, seed=1), file)
    with refused(UsageError, "run-weights-digest-mismatch", part="decoder"):
        restored(out, build(arguments)["system"])


@pytest.mark.parametrize(
    ("name", "licence", "code", "values"),
    [
        ("", "MIT", "tiny-decoder-missing-weights", {}),
        ("nowhere.pth", "MIT", "weights-file-missing", {"path": re.compile(r"/nowhere\.pth$")}),
        ("tiny.pth", "", "weights-missing-licence", {"path": re.compile(r"/tiny\.pth$")}),
        (
            "tiny.pth",
            "MIT",
            "tiny-decoder-channels-mismatch",
            {"decoder_channels": 16, "latent_channels": 4},
        ),
    ],
)
def test_a_tiny_decoder_that_cannot_draw_is_refused(
    tmp_path: Path, name: str, licence: str, code: str, values: dict[str, Any]
) -> None:
    torch.save(tiny_state(16), tmp_path / "tiny.pth")
    file = str(tmp_path / name) if name else ""
    video = PublishedVideo(decoder="tiny", tiny=file, tiny_licence=licence)
    with refused(UsageError, code, **values):
        video.drawing((4, 9, 2, 4))


def test_latents_that_make_no_whole_turns_are_refused(pipeline: Path) -> None:
    video = PublishedVideo(folder=str(pipeline), licence="MIT")
    with refused(
        UsageError, "latent-frames-indivisible", latent_frames=10, first_turn_frames=3, later_turn_frames=2
    ):
        video.drawing((4, 10, 2, 4))


@pytest.mark.full
def test_the_released_recipe_trains_and_its_figures_tell_of_the_leak(
    changes: list[str], data: Path, pipeline: Path, tmp_path: Path
) -> None:
    targets = tmp_path / "targets"
    siglip(tmp_path / "siglip")
    models = {"vae": pipeline / "vae", "image": tmp_path / "siglip", "text": tmp_path / "siglip"}
    arguments = [f"{name}={folder}" for name, folder in models.items()]
    arguments += [f"{name}.licence=MIT" for name in models]
    how = [*_CLIPS, "vae.sample=true", "image.frames=3", "text.sentences=2", f"out={targets}", "device=cpu"]
    assert compute([str(data), *arguments, *how]) == 0
    common = [text for text in changes if not text.startswith(("phases.align", "system.targets"))]
    out = tmp_path / "run"
    assert train(["cinesync-released", *common, f"system.targets={targets}", f"out={out}"]) == 0
    tree = read_run(out)
    notes = " ".join(row["note"] for row in tree["tables"]["notes"])
    assert "no figure of this run is free of that leak" in notes
    assert tree["figures"]["identification_2way_centred"]["n"] == 6
    exporting.run(out, tmp_path / "bundle")
    provenance = bundles.load(tmp_path / "bundle").manifest.provenance
    assert any("no figure of this run is free of that leak" in text for text in provenance["told"])


@pytest.mark.full
def test_a_distilled_run_keeps_its_student_beside_the_adapters(changes: list[str], tmp_path: Path) -> None:
    short = [f"phases.distill.{change}" for change in ("steps=2", "batch=2", "accumulate=2", "show_every=2")]
    learning = ["phases.distill.rate=0.1", "phases.distill.warmup=0", "phases.distill.keep_every=2"]
    out = tmp_path / "run"
    assert train(["cinesync-distilled", *changes, *short, *learning, f"out={out}"]) == 0
    saved = weights(out)
    assert any(name.startswith("student.") and ".lora_B.distill." in name for name in saved)
    assert not any(".distill." in name for name in saved if name.startswith("transformer."))
    rows = read_run(out)["tables"]["distillation"]
    assert [row["steps"] for row in rows] == [1, 2, 4]
    system = restored(out, build(read_run(out)["arguments"])["system"])
    teacher = system.teacher()
    assert teacher is not None
    inputs = _golden(out)
    noise = np.random.default_rng(0).standard_normal((3, *system.latent_shape), np.float32)
    latents = system.sample(system.condition(inputs), noise, 2)
    assert np.isfinite(latents).all()
    assert not np.allclose(latents, teacher.sample(teacher.condition(inputs), noise, 2), atol=1e-2)
    exporting.run(out, tmp_path / "bundle")
    ports = bundles.load(tmp_path / "bundle").manifest.built["denoise"].inputs
    assert {"t", "r"} <= ports.keys()


def test_other_weights_are_refused(run: Path, pipeline: Path, tmp_path: Path) -> None:
    other = save_pipeline(tmp_path / "other")
    arguments = read_run(run)["arguments"]
    arguments["system"]["video"]["folder"] = str(other)
    with refused(UsageError, "run-weights-digest-mismatch", part="transformer"):
        restored(run, build(arguments)["system"])


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ("system.video.folder=nowhere", "video-pipeline-missing", {"folder": "nowhere"}),
        ("system.targets=nowhere", "targets-missing-index", {"folder": "nowhere/vae"}),
        (
            "system.video.precision=float8",
            "video-precision-unknown",
            {"available": ["float32", "bfloat16"], "precision": "float8"},
        ),
        (
            "system.video.decoder=small",
            "video-decoder-unknown",
            {"full_decoder": "full", "tiny_decoder": "tiny", "decoder": "small"},
        ),
        ("system.video.decoder=tiny", "tiny-decoder-missing-weights", {}),
        ("system.sampled=true", "target-vae-without-deviations", {}),
        ("data.clip=large", "frame-size-malformed", {"key": "data.clip", "size": "large"}),
        (
            "data.clip=48x72",
            "clip-size-indivisible",
            {"clip": "48x72", "step": 16, "near": "48x64 and 48x80"},
        ),
        ("data.clip=64x96", "clip-size-target-mismatch", {"clip": "64x96", "drawn": "48x80"}),
        ("system.sentences=2", "target-text-sentences-mismatch", {"sentences": 2, "computed": None}),
        (
            "phases.align.losses={contrast: 1}",
            "phase-unknown-loss",
            {"phase": "align", "losses": "'contrast'"},
        ),
    ],
)
def test_what_is_missing_is_said_before_anything_is_read(
    changes: list[str], tmp_path: Path, change: str, code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        make_run("cinesync", [*changes, change, f"out={tmp_path / 'run'}"])


@pytest.mark.parametrize("recipe", ["cinesync", "cinesync-released"])
def test_the_recipes_are_of_published_size(recipe: str) -> None:
    settings = read(recipe, [])
    check(settings)
    built = build(settings.tree)
    encoder = built["system"].encoder
    assert encoder.counts == {"fmri": 226, "eeg": 226}
    assert built["system"].conditions == 226


def test_the_released_recipe_has_the_values_of_the_public_code() -> None:
    built = build(read("cinesync-released", []).tree)
    plan = built["system"]
    assert (plan.encoder.missing, plan.sampled, plan.sentences) == ("zeros", True, 2)
    trunks = (plan.encoder.fmri, plan.encoder.eeg)
    assert [(trunk.attention_dropout, trunk.spread) for trunk in trunks] == [(0.1, 1), (0.01, 1)]
    assert (plan.sampling.guidance, plan.sampling.rise) == (7, "level")
    assert built["data"].standardise is False
    phase = built["phases"]["diffuse"]
    assert phase.schedule == "linear"
    assert (phase.warmup, phase.warmup_share, phase.last_share) == (100, 0.05, 0.01)
    assert list(phase.betas) == [0.9, 0.95]


def test_a_sampler_that_is_none_is_refused() -> None:
    with refused(UsageError, "sampling-option-unknown", key="sampler", found="euler"):
        Sampling(steps=2, guidance=1, sampler="euler")
    with refused(UsageError, "sampling-option-unknown", key="rise", found="steep"):
        Sampling(steps=2, guidance=1, rise="steep")


def _size_of_mp4(frames: NDArray[np.uint8], folder: Path) -> tuple[int, int]:
    """Write frames as a session writes its clips; return the rows and columns of the file's pictures."""
    clips = ClipSink(folder, simulated=False)
    file = folder / clips.save(0, "final", frames, fps=8.0)
    clips.close()
    with av.open(file) as video:
        pictures = [picture.to_ndarray(format="rgb24") for picture in video.decode(video=0)]
    assert len(pictures) == len(frames)
    return pictures[0].shape[0], pictures[0].shape[1]


def _drawn_from(manifest: bundles.Manifest) -> dict[str, int]:
    """Return how many latent frames the stages that draw take at a time."""
    stages = {name: manifest.built[name] for name in ("decode_first", "decode_next")}
    return {name: stage.inputs["latent"].shape[2] for name, stage in stages.items()}


def _golden(run: Path) -> Arrays:
    with np.load(run / "golden.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
