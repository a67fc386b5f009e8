"""CineSync from simulated films to a bundle, with a few steps of each phase."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.disk.clip_file import ClipFile
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.live import compare_replay
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_files import arrays, read_run, weights
from train.data.phantom import Participant, session_arrays, session_clips
from train.models.cinesync.plan import CONTRASTS
from train.models.conditioned.alignment import identify_clips
from train.run_recipe import main as train
from train.run_recipe import run as make_run

SMALL = [
    "scale=tiny",
    "data.shows=shapes",
    "data.sessions=0-1",
    "data.seconds=32",
    "system.voxels=60",
    "system.encoder.tokens=8",
    "system.encoder.eeg_tokens=4",
    "system.video.layers=1",
    *(f"phases.{phase}.steps=10" for phase in ("films", "pretrain", "align", "diffuse")),
    *(f"phases.{phase}.batch=4" for phase in ("films", "pretrain", "align", "diffuse")),
    "judge.seeds=1000",
    "judge.seconds=24",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cinesync"
    assert train(["cinesync", *SMALL, f"out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "cinesync"
    exporting.run(run, out)
    return out


@pytest.mark.full
def test_every_phase_takes_its_steps_on_its_own_losses(run: Path) -> None:
    tables = read_run(run)["tables"]
    assert {row["phase"]: (row["step"], {*row["losses"]}) for row in tables["loss"]} == {
        "films": (10, {"frames", "captions"}),
        "pretrain": (10, {"video"}),
        "align": (10, {*CONTRASTS, "caption"}),
        "diffuse": (10, {*CONTRASTS, "caption", "denoising"}),
    }
    (note,) = tables["notes"]
    assert note["note"].startswith("film net: of 2 clips that it was not trained on")
    # An adapter begins as nothing; ten steps made something of it.
    adapter_weights = [x for name, x in weights(run).items() if ".lora_B." in name]
    assert adapter_weights
    assert all(np.abs(x).max() > 0 for x in adapter_weights)


@pytest.mark.full
def test_windows_that_teach_nothing_are_told_apart_at_the_end_of_each_phase(run: Path) -> None:
    rows = read_run(run)["tables"]["alignment"]
    assert [(row["phase"], row["step"], row["by"]) for row in rows] == [
        (phase, 10, name) for phase in ("align", "diffuse") for name in ("fmri", "eeg", "both")
    ]
    assert {(row["windows"], row["two_way_chance"], row["first_chance"]) for row in rows} == {(8, 0.5, 1 / 8)}
    for phase in ("align", "diffuse"):
        # Each of 8 windows beside the five clips that its vector finds first.
        with Image.open(run / f"alignment-{phase}.png") as sheet:
            assert sheet.size == (6 * 96 + 8, 8 * 64)
    # What the finished system says of the same windows, as a session of the next seed gives them to a bundle.
    system = restored(run, build(read_run(run)["arguments"])["system"])
    session = Participant().session(2, 32.0, "free")
    draft = draft_of(run)
    vectors = np.asarray(system.condition(session_arrays(draft, session)).pooled)
    clips = system.targets(session_clips(draft.manifest, session))
    assert clips is not None
    figures = identify_clips((vectors @ clips.T).astype(np.float64))
    # Weights of half precision may decide a near tie otherwise: one of the 56 pairs.
    assert figures["two_way"] == pytest.approx(rows[-1]["two_way"], abs=1 / 56 + 1e-9)


@pytest.mark.full
def test_the_condition_begins_at_the_mean_caption(run: Path) -> None:
    offset = weights(run)["encoder.fusion.offset"].astype(np.float64)
    assert offset.shape == (84, 64)
    # Ten steps move a weight by less than a tenth. Captions have 74 tokens and the words of the events.
    assert np.abs(offset[:74]).mean() > 0.5


def test_spatial_fusion_is_refused_unless_it_leads_to_as_many_tokens_as_a_caption_has(
    tmp_path: Path,
) -> None:
    with refused(UsageError, "spatial-fusion-token-mismatch", encoder_tokens=8, caption_tokens=84):
        make_run("cinesync", [*SMALL, "system.encoder.fusion=spatial", f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_the_condition_is_judged_beside_the_clips(run: Path) -> None:
    figures = read_run(run)["figures"]
    for name in ("condition_2way", "adapter_gain", "condition_gain", "brain_gain"):
        assert figures[name]["n"] == 6, name
    assert figures["condition_2way"]["chance"] == 0.5
    assert figures["condition_2way"]["constant"] == 0
    assert {"condition_2way_eeg", "condition_2way_fmri", "condition_2way_rest"} <= figures.keys()


@pytest.mark.full
def test_clips_in_files_are_embedded_as_an_array_of_them_is(run: Path) -> None:
    system = restored(run, build(read_run(run)["arguments"])["system"])
    clips = np.random.default_rng(0).integers(0, 256, (3, 33, 64, 96, 3), np.uint8)
    file = ClipFile()
    stored = [file.add(clip) for clip in clips]
    embedded = system.targets(clips)
    assert embedded is not None
    assert len(embedded) == 3
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    assert np.array_equal(system.targets(stored), embedded)
    # A frame after the window is left out.
    assert np.array_equal(system.targets(clips[:, :32]), embedded)
    assert not np.allclose(system.targets(clips[:, ::-1]), embedded, atol=1e-3)


@pytest.mark.full
def test_without_its_adapters_the_video_model_is_as_it_was_pretrained(run: Path) -> None:
    plan = build(read_run(run)["arguments"])["system"]
    system = restored(run, plan)
    bare = system.without_adapters()
    assert bare is not None
    golden = arrays(run, "golden")
    inputs = {name: golden[name] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
    noise = np.random.default_rng(0).standard_normal((3, *system.latent_shape), np.float32)
    latents = system.sample(system.condition(inputs), noise, 2)
    assert not np.allclose(latents, bare.sample(bare.condition(inputs), noise, 2))
    # The brain's condition does not depend on the video model.
    assert np.array_equal(system.condition(inputs).pooled, bare.condition(inputs).pooled)


@pytest.mark.full
def test_the_bundle_gives_the_conditions_of_the_run(run: Path, bundle: Path) -> None:
    system = restored(run, build(read_run(run)["arguments"])["system"])
    loaded = bundles.load(bundle)
    assert {*loaded.manifest.built} == {"encode", "denoise", "decode_first", "decode_next"}
    assert loaded.manifest.steps == draft_of(run).manifest.steps
    golden = arrays(run, "golden")
    assert loaded.path is not None
    encode = onnxruntime.InferenceSession(loaded.path / loaded.manifest.built["encode"].file)
    for n in range(3):
        window = {name: golden[name][n : n + 1] for name in ("eeg", "eeg_mask", "fmri", "fmri_mask")}
        expected = system.condition(window)
        tokens, pooled = encode.run(["condition", "embedding"], window)
        assert np.abs(tokens - expected.tokens.numpy()).max() < 1e-4
        assert np.abs(pooled - expected.pooled.numpy()).max() < 1e-4


@pytest.mark.full
def test_the_weights_of_the_run_lie_in_the_bundle_to_the_bit(run: Path, bundle: Path) -> None:
    graphs = bundles.load(bundle)
    assert graphs.path is not None
    graph_bytes = sum((graphs.path / stage.file).stat().st_size for stage in graphs.manifest.built.values())
    # Half precision throughout: as many bytes as twice the weights, and a little for the graphs.
    not_in_graphs = ("frames.", "pooling.", "texts.", "words.", "vocabulary")
    size = sum(x.size for name, x in weights(run).items() if not name.startswith(not_in_graphs))
    assert graph_bytes < 2.3 * size + 200_000


@pytest.mark.full
def test_a_replay_reads_and_tells_what_the_judge_does(run: Path, bundle: Path, tmp_path: Path) -> None:
    comparison = compare_replay(run, str(bundle), 40.0, tmp_path)
    assert len(comparison.live) == len(comparison.run_conditions) == 10
    assert comparison.difference < 1e-4
    assert comparison.reported["n"] == comparison.judged["n"] == 10
    assert comparison.reported["value"] == pytest.approx(comparison.judged["value"], abs=0.02)
