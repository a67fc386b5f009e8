"""A checkpoint in the layout of CineSync's authors becomes a run that draws what their modules would."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.cinesync import checkpoint as written
from tests.train.models.cinesync.test_published import save_pipeline
from tests.train.pipelines import save_config
from tests.train.targets.models import cogvideox_vae
from tests.train.test_data_set import FEW_PLACES, VOXELS, release
from train import evaluate
from train.artifacts.run_folder import restored
from train.config.recipe import build
from train.config.run_files import read_run
from train.models.cinesync import released
from train.models.cinesync.encoder import BrainEncoder, EncoderSizes
from train.models.conditioned.encoder import Signals
from train.models.conditioned.published_system import PublishedVideo
from train.parts.encoders.transformer import TrunkSizes
from train.parts.generators.base import Generator
from train.parts.generators.cogvideox import VideoDiffusion, VideoSizes, transformer_of
from train.trainer import adapters
from train.trainer.adapters import Adapter
from train.weights.__main__ import main
from train.weights.__main__ import run as convert

_SIZES = TrunkSizes(written.DEPTH, written.WIDTH, written.HEADS, written.INNER, attention_dropout=0.1)
_ENCODER = EncoderSizes(_SIZES, _SIZES, 2 * written.TOKENS, written.TOKENS, hidden=0, missing="zeros")
_TEXT = 12
_CHANNELS = 64
_SLOTS = 5


def _presented(fmri: Tensor, eeg: Tensor) -> dict[str, Tensor]:
    masks = {"fmri_mask": torch.ones(fmri.shape[:2]), "eeg_mask": torch.ones(len(eeg), eeg.shape[2])}
    return {"fmri": fmri, "eeg": eeg, **masks}


def test_the_encoders_compute_what_the_authors_modules_do() -> None:
    state = written.encoder_state(VOXELS, 3, _SLOTS, _TEXT)
    checkpoint_weights = released.sorted_by_part(state).weights
    signals = Signals(_SLOTS, VOXELS, 3, _SLOTS * 8)
    encoder = BrainEncoder(_ENCODER, signals, written.EMBEDDING, written.TOKENS, _TEXT).eval()
    encoder.load_state_dict(
        {
            name.removeprefix("encoder."): values.float()
            for name, values in checkpoint_weights.items()
            if name.startswith("encoder.")
        }
    )
    torch.manual_seed(5)
    fmri = torch.randn(2, _SLOTS, VOXELS)
    parts = torch.randn(2, _SLOTS, 3, 8)
    encoded = encoder(_presented(fmri, parts.transpose(1, 2).flatten(2)))
    tokens, classes = written.condition(state, fmri, parts)
    assert torch.allclose(encoded.tokens, tokens, atol=1e-4)
    for name, vectors in classes.items():
        assert torch.allclose(encoded.classes[name], vectors, atol=1e-4)
    # Where nothing is there, the condition is zero, as the code has it.
    nothing = encoder(signals.nothing(torch.device("cpu")))
    assert torch.equal(nothing.tokens, torch.zeros(1, written.TOKENS, _TEXT))
    assert checkpoint_weights["pooling.weights"].shape == (written.FRAMES,)


def _video() -> tuple[VideoDiffusion, dict[str, Tensor]]:
    torch.manual_seed(0)
    latent = (4, 3, 4, 6)
    sizes = VideoSizes(heads=2, head=16, layers=2, text=8, time=16, patch=2)
    video = VideoDiffusion(transformer_of(sizes, latent), latent).eval()
    state = written.video_state(video.transformer.state_dict(), (video.cosines, video.sines))
    return video, state


def test_the_adapters_and_the_transformer_are_those_of_the_checkpoint() -> None:
    video, state = _video()
    checkpoint = released.sorted_by_part(state)
    assert checkpoint.unknown == []
    released.check_base("transformer", checkpoint.transformer, video.transformer)
    released.check_positions(checkpoint, video.cosines, video.sines)
    total = written.merged(video.transformer.state_dict(), state)
    inputs = (torch.randn(1, 4, 3, 4, 6), torch.tensor([500]), torch.randn(1, 5, 8))
    with torch.no_grad():
        bare = video(*inputs)
        adapters.inject(
            video, "transformer", "x", Adapter(["to_q", "to_k", "to_v", "to_out.0"], written.RANK, 1)
        )
        for name, values in checkpoint.factors.items():
            video.transformer.get_parameter(f"{name}.x.weight").copy_(values)
        adapted = video(*inputs)
        reference, _ = _video()
        reference.transformer.load_state_dict(total)
        assert torch.allclose(adapted, reference(*inputs), atol=1e-5)
    assert not torch.allclose(adapted, bare, atol=1e-2)


@pytest.mark.parametrize(
    "change", [{"norm_final.weight": None}, {"proj_out.bias": 1.0}, {"proj_in.bias": 1.0}]
)
def test_another_transformer_is_refused(change: dict[str, float | None]) -> None:
    video, state = _video()
    values = released.sorted_by_part(state).transformer
    for name, moved in change.items():
        if moved is None:
            del values[name]
        else:
            values[name] = values.get(name, torch.zeros(2)) + moved
    with refused(UsageError, "weights-module-mismatch", faults=re.compile(next(iter(change)))):
        released.check_base("transformer", values, video.transformer)


def test_positions_of_clips_of_another_size_are_refused() -> None:
    video, state = _video()
    with refused(UsageError, "weights-module-mismatch", faults=re.compile("freqs_cos")):
        released.check_positions(released.sorted_by_part(state), 1 - video.cosines, video.sines)


def test_the_autoencoder_has_the_names_of_diffusers(tmp_path: Path) -> None:
    vae = cogvideox_vae(tmp_path)
    state = written.autoencoder_state(vae.state_dict())
    values = released.sorted_by_part(state).autoencoder
    released.check_base("vae", values, vae)
    with refused(UsageError, "weights-module-mismatch"):
        released.check_base("vae", values | {"encoder.conv_in.conv.bias": torch.full((4,), 9.0)}, vae)


def test_a_system_without_a_reader_and_a_run_without_a_folder_are_refused() -> None:
    with refused(UsageError, "weights-system-unknown", system="mindvideo", available=["cinesync"]):
        convert("mindvideo", [Path("x.pt")], ["out=run"])
    with refused(UsageError, "weights-checkpoint-missing"):
        convert("cinesync", [], ["out=run"])
    with refused(UsageError, "weights-run-missing"):
        convert("cinesync", [Path("x.pt")], [])


def test_a_checkpoint_on_another_video_model_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    save_config(folder, "WanTransformer3DModel", in_channels=16, out_channels=16, text_dim=4096)
    release(tmp_path / "cinebrain", FEW_PLACES)
    arguments = [f"system.video.folder={folder}", "licence=MIT", f"data={tmp_path / 'cinebrain'}"]
    with refused(UsageError, "checkpoint-needs-cogvideox", actual_class="WanTransformer3DModel"):
        convert("cinesync", [tmp_path / "checkpoint.pt"], [*arguments, f"out={tmp_path / 'run'}"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain"), FEW_PLACES)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("weights") / "cogvideox")


@pytest.fixture(scope="module")
def state(pipeline: Path) -> dict[str, Tensor]:
    """Everything that a checkpoint on the pipeline holds."""
    transformer, positions = _opened(pipeline)
    vae = AutoencoderKLCogVideoX.from_pretrained(pipeline / "vae")
    return (
        written.encoder_state(VOXELS, _CHANNELS, _SLOTS, _TEXT)
        | written.video_state(transformer, positions)
        | written.autoencoder_state(vae.state_dict())
    )


def _opened(pipeline: Path) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    video = _diffusion(pipeline)
    return video.transformer.state_dict(), (video.get_buffer("cosines"), video.get_buffer("sines"))


def _diffusion(pipeline: Path) -> Generator:
    opened = PublishedVideo(folder=str(pipeline), licence="MIT", precision="float32")
    return opened.diffusion((4, 9, 2, 4), 1.0)[0].eval()


def _changes(data: Path, pipeline: Path) -> list[str]:
    sizes = f"depth: {written.DEPTH}, width: {written.WIDTH}, heads: {written.HEADS}, inner: {written.INNER}"
    layers = "[to_q, to_k, to_v, to_out.0]"
    adapter = f"{{builder: adapter, layers: {layers}, rank: {written.RANK}, alpha: 1, merge: false}}"
    return [
        f"data={data}",
        f"data.voxels={VOXELS}",
        f"system.video.folder={pipeline}",
        "system.video.licence=MIT",
        "system.video.precision=float32",
        f"system.encoder.tokens={2 * written.TOKENS}",
        f"system.encoder.eeg_tokens={written.TOKENS}",
        f"system.encoder.fmri={{builder: transformer, {sizes}}}",
        f"system.encoder.eeg={{builder: transformer, {sizes}}}",
        f"system.conditions={written.TOKENS}",
        "system.sampling.steps=2",
        f"phases.diffuse.adapters={{video.transformer: {adapter}}}",
        "system.machine.device=cpu",
        "licence=CC-BY-4.0",
    ]


@pytest.fixture(scope="module")
def run(
    state: Mapping[str, Tensor], data: Path, pipeline: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    file = written.write(folder / "mp_rank_00_model_states.pt", state)
    assert main(["cinesync", str(file), f"out={folder / 'run'}", *_changes(data, pipeline)]) == 0
    return folder / "run"


@pytest.mark.full
def test_a_run_draws_what_the_authors_modules_would(
    run: Path, state: dict[str, Tensor], pipeline: Path
) -> None:
    system = restored(run, build(read_run(run)["arguments"])["system"])
    with np.load(run / "golden.npz", allow_pickle=False) as archive:
        # Of the other windows something is missing, which the code has no case for.
        inputs = {name: archive[name][:1] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    assert inputs["eeg_mask"].all()
    assert inputs["fmri_mask"].all()
    encoded = system.condition(inputs)
    eeg = torch.from_numpy(inputs["eeg"]).unflatten(2, (_SLOTS, -1)).transpose(1, 2)
    fmri = torch.from_numpy(inputs["fmri"])
    tokens, _ = written.condition(state, fmri, eeg)
    assert torch.allclose(encoded.tokens, tokens, rtol=1e-4, atol=1e-4)
    transformer, _ = _opened(pipeline)
    video = _diffusion(pipeline)
    video.transformer.load_state_dict(written.merged(transformer, state))
    noise = np.random.default_rng(0).standard_normal((len(fmri), *system.latent_shape), np.float32)
    step = video.step(torch.zeros_like(tokens[0]), 7.0, "level")
    expected = step.sample(torch.from_numpy(noise), tokens, 2).numpy()
    assert np.allclose(system.sample(encoded, noise, 2), expected, atol=1e-3)
    bare = system.without_adapters()
    assert bare is not None
    assert not np.allclose(bare.sample(encoded, noise, 2), expected, atol=1e-2)


@pytest.mark.full
def test_signals_are_read_as_released_and_figures_say_what_that_means(run: Path) -> None:
    stats = np.load(run / "stats.npz")
    for name in stats.files:
        if name.endswith(("_mean", "_scale")):
            assert (stats[name] == (1 if name.endswith("_scale") else 0)).all(), name
    tree = read_run(run)
    sentences = " ".join(tree["manifest"]["provenance"]["told"])
    assert "Each voxel was z-scored over all runs, those for testing too" in sentences
    assert "no figure of this run is free of that leak" in sentences
    notes = " ".join(row["note"] for row in tree["tables"]["notes"])
    assert "nothing was trained here" in notes
    checkpoint = tree["manifest"]["provenance"]["weights"]["checkpoint"]
    assert checkpoint["licence"] == "CC-BY-4.0"


@pytest.mark.full
@pytest.mark.parametrize("sampler", [[], ["sampler=sde-dpm++"]])
def test_a_run_is_evaluated(run: Path, data: Path, tmp_path: Path, sampler: list[str]) -> None:
    out = tmp_path / "page"
    assert evaluate.main([str(run), f"data={data}", f"out={out}", *sampler]) == 0
    judged = json.loads((out / "figures.json").read_text())
    assert judged["figures"]["identification_2way_centred"]["n"] == 6
    notes = " ".join(row["note"] for row in judged["tables"]["notes"])
    assert "no figure of this run is free of that leak" in notes
    assert ("drawn by the sampler sde-dpm++" in notes) == bool(sampler)


@pytest.mark.full
def test_a_run_is_exported(run: Path, tmp_path: Path) -> None:
    exporting.run(run, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert {*manifest.built} == {"encode", "denoise", "decode_first", "decode_next"}


def _without(state: Mapping[str, Tensor], ending: str) -> dict[str, Tensor]:
    return {name: values for name, values in state.items() if not name.endswith(ending)}


@pytest.mark.full
@pytest.mark.parametrize(
    ("changed", "listed"),
    [
        (lambda state: state | {"conditioner.embedders.0.gate": torch.ones(1)}, "1 left over: .*gate"),
        (lambda state: _without(state, "eeg_encoder.cls_proj.bias"), "1 missing: encoder.heads.eeg.bias"),
        (
            lambda state: state | written.encoder_state(VOXELS, _CHANNELS, _SLOTS, _TEXT, width=32),
            r"of another shape: .*asked \(16",
        ),
        (lambda state: {"layer.weight": torch.ones(2)}, "1 left over: layer.weight; .* missing"),
        (
            lambda state: _without(state, "layers.0.attention.dense.matrix_B.0"),
            "1 missing: transformer_blocks.0.attn1.to_out.0.lora_B",
        ),
        (
            lambda state: state | {"first_stage_model.encoder.conv_in.conv.bias": torch.full((4,), 9.0)},
            "other than in the folder's vae: encoder.conv_in.conv.bias",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_leaves_nothing(
    state: dict[str, Tensor], data: Path, pipeline: Path, tmp_path: Path, changed: Any, listed: str
) -> None:
    file = written.write(tmp_path / "model.pt", changed(dict(state)))
    out = tmp_path / "run"
    with refused(UsageError, "weights-module-mismatch", faults=re.compile(listed)):
        convert("cinesync", [file], [f"out={out}", *_changes(data, pipeline)])
    assert main(["cinesync", str(file), f"out={out}", *_changes(data, pipeline)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.full
def test_a_file_that_is_cut_short_or_holds_objects_is_refused(
    state: dict[str, Tensor], data: Path, pipeline: Path, tmp_path: Path
) -> None:
    content = written.write(tmp_path / "model.pt", state).read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(content[: len(content) // 2])
    objects = written.write(tmp_path / "objects.pt", state, ds_config=Path("config"))
    for file in (cut, objects):
        with refused(UsageError, "weights-pickle-unreadable", path=file):
            convert("cinesync", [file], [f"out={tmp_path / 'run'}", *_changes(data, pipeline)])
    with refused(UsageError, "weights-module-mismatch", faults=re.compile("named twice")):
        convert(
            "cinesync", [tmp_path / "model.pt"] * 2, [f"out={tmp_path / 'run'}", *_changes(data, pipeline)]
        )
    without_eeg = [*_changes(data, pipeline), "data.modalities=[fmri]"]
    with refused(UsageError, "checkpoint-needs-eeg", folder=data):
        convert("cinesync", [tmp_path / "model.pt"], [f"out={tmp_path / 'run'}", *without_eeg])
    assert not (tmp_path / "run").exists()
