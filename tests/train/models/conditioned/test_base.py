"""A training begins at a finished run of another person."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.cli import app
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from tests.recordings import record
from tests.refusals import refused
from tests.train.models.cinesync.test_cinesync import SMALL
from tests.train.models.cinesync.test_resumed import DISTILL
from train.closed_form.film_encoding import FilmFeatures
from train.closed_form.patch_codec import Codec, encode_scaled, fit_codec, scaled_codec, unscaled_arrays
from train.config.recipe import build, read
from train.config.run_files import arrays, read_run, weights, weights_digest
from train.fitting.film_tokens import FilmTokens
from train.models.conditioned.base import read_small
from train.run_recipe import main
from train.run_recipe import run as make_run
from train.trainer import checkpoints

SHIPPED = Path(__file__).parents[4] / "train" / "runs"
# In braces twice, as the changes of a test are formatted.
ADAPTER = "{{video.transformer: {{builder: adapter, layers: [to_q], rank: 2, alpha: 2}}}}"
SIZES = [change for change in SMALL if change.startswith("system.")]


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        (["base={runs}"], "run-unreadable", {}),
        (["base={runs}/phantom"], "base-wrong-system", {"base_builder": "compact", "builder": "cinesync"}),
        (
            ["base={runs}/cinesync-tiny", "data.grid.window=2", "data.grid.hop=2"],
            "base-windows-mismatch",
            {"windows": {"window": "2", "hop": "2", "clip": "17 frames of 64 x 96 at 8 a second"}},
        ),
        (
            ["base={runs}/cinesync-tiny", "data.grid.fps=4"],
            "base-windows-mismatch",
            {"windows": {"fps": "4", "clip": "17 frames of 64 x 96 at 4 a second"}},
        ),
        (
            ["base={runs}/cinesync-tiny", "data.grid.size=[64,64]"],
            "base-windows-mismatch",
            {"base_windows": {"clip": "33 frames of 64 x 96 at 8 a second"}},
        ),
        (
            ["base={runs}/cinesync-tiny", "system.video.layers=2", "system.encoder.fmri.depth=3"],
            "base-size-mismatch",
            {"differences": "system.encoder.fmri.depth was 2 and is 3; system.video.layers was 4 and is 2"},
        ),
        (["base={runs}/cinesync-tiny", "phases.films.steps=3"], "base-phase-not-trained", {"phase": "films"}),
        (
            ["base={runs}/cinesync-tiny", "phases.pretrain.batch=3"],
            "base-phase-not-trained",
            {"phase": "pretrain"},
        ),
        (
            ["base={runs}/cinesync-tiny", f"phases.diffuse.adapters={ADAPTER}"],
            "base-phase-adapter",
            {"phase": "diffuse", "parts": ["video.transformer"]},
        ),
        (["base={runs}/cinesync-tiny"], "base-missing-codec", {}),
    ],
)
def test_what_a_training_cannot_begin_at_is_refused_before_anything_is_simulated(
    changes: list[str], code: str, values: dict[str, Any], tmp_path: Path
) -> None:
    changes = [change.format(runs=SHIPPED) for change in changes]
    with refused(UsageError, code, **values):
        make_run("cinesync", ["scale=tiny", *changes, f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["ridge", "compact", "cinesync-distilled"])
def test_a_recipe_that_begins_at_no_run_says_so(recipe: str) -> None:
    with refused(UsageError, "recipe-base-unsupported", recipe=recipe):
        read(recipe, ["scale=tiny", f"base={SHIPPED / 'cinesync-tiny'}"])


def test_only_the_phases_on_brains_are_left_with_a_quarter_of_the_steps() -> None:
    base = f"base={SHIPPED / 'cinesync-tiny'}"
    for scale in ("tiny", "full"):
        usual = read("cinesync", [f"scale={scale}"]).tree["phases"]
        phases = read("cinesync", [f"scale={scale}", base]).tree["phases"]
        assert list(phases) == ["align", "diffuse"]
        for name, phase in phases.items():
            assert phase["steps"] == usual[name]["steps"] // 4
            assert "adapters" not in phase
    overridden = read("cinesync", ["scale=tiny", base, "phases.align.steps=7"])
    assert overridden.tree["phases"]["align"]["steps"] == 7
    assert overridden.values["base"] == weights_digest(SHIPPED / "cinesync-tiny")


def test_the_codec_of_a_run_encodes_as_the_one_that_was_fitted() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (4, 9, 16, 24, 3), np.uint8)
    fitted = fit_codec(clips, 6)
    scale = np.linspace(0.3, 3, 6)
    original = {
        "codec_mean": fitted.mean,
        "codec_basis": fitted.basis * scale.astype(np.float32),
        "scale": scale,
    }
    read_again = unscaled_arrays(scaled_codec(original))
    np.testing.assert_allclose(read_again["scale"], scale, rtol=1e-5)
    np.testing.assert_allclose(
        encode_scaled(read_again, clips), encode_scaled(original, clips), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def without_captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the shipped run, which keeps no captions, and give it a codec."""
    run = tmp_path_factory.mktemp("runs") / "without-captions"
    shutil.copytree(SHIPPED / "cinesync-tiny", run)
    codec = Codec(np.zeros(768, np.float32), np.eye(768, 16, dtype=np.float32))
    features = FilmFeatures(*np.zeros((4, 1, 1)), step_s=0.5)
    stats = arrays(run, "stats") | FilmTokens(codec, features, None, None).arrays()
    np.savez(run / "stats.npz", allow_pickle=False, **stats)
    return run


def test_losses_for_which_the_run_keeps_nothing_are_left_out(without_captions: Path) -> None:
    parts = build(read("cinesync", ["scale=tiny", f"base={without_captions}"]).tree)
    plan = parts["system"]
    phases, sentences = read_small(without_captions, plan).offered(parts["phases"], plan.contrasts)
    assert list(phases["align"].losses) == ["fmri_frames", "eeg_frames", "fmri_eeg"]
    assert list(phases["diffuse"].losses) == ["denoising", "fmri_frames", "eeg_frames", "fmri_eeg"]
    (sentence,) = sentences
    assert "caption, eeg_text, fmri_text are left out" in sentence


def test_a_phase_without_a_loss_that_the_run_has_is_refused(without_captions: Path, tmp_path: Path) -> None:
    changes = ["scale=tiny", f"base={without_captions}", "phases.align.losses=null"]
    with refused(UsageError, "base-missing-captions", phase="align", losses=["fmri_text", "caption"]):
        make_run(
            "cinesync",
            [*changes[:2], "phases.align.losses={fmri_text: 1, caption: 2}", f"out={tmp_path / 'run'}"],
        )
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run, and a student of it."""
    out = tmp_path_factory.mktemp("runs") / "base"
    return make_run("cinesync", [*SMALL, f"phases.distill={DISTILL}", "judge=none", f"out={out}"])


@pytest.fixture(scope="module")
def changes(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Record another person twice, and say how a training of them begins at the base."""
    root = tmp_path_factory.mktemp("recordings")
    sessions = [
        PhantomSession("easy", 2, 5 + n, seconds, sfreq=250, film="natural")
        for n, seconds in enumerate((168, 76))
    ]
    recordings = [record(session, root / str(n)) for n, session in enumerate(sessions)]
    return [
        "scale=tiny",
        f"base={base}",
        f"data={','.join(map(str, recordings))}",
        f"film={','.join(str(folder / 'truth' / 'film.mp4') for folder in recordings)}",
        *(change for change in SIZES if "voxels" not in change),
        "system.voxels=50",
        *(
            f"phases.{phase}.{key}=2"
            for phase in ("align", "diffuse")
            for key in ("steps", "show_every", "batch")
        ),
        *(f"phases.{phase}.{key}=1" for phase in ("align", "diffuse") for key in ("keep_every", "warmup")),
    ]


@pytest.mark.full
def test_another_persons_training_begins_at_a_run_and_changes_only_the_encoder(
    base: Path, changes: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert main(["cinesync", *changes, f"out={out}"]) == 0
    before = weights(base)
    after = weights(out)
    assert {name for name in before if name not in after} == {
        name for name in before if name.startswith("student.")
    }
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert {name.partition(".")[0] for name in changed} == {"config", "encoder", "pooling"}
    tokenizers = "encoder.tokenizers."
    assert before[f"{tokenizers}fmri.over_voxels.weight"].shape == (4, 60)
    assert after[f"{tokenizers}fmri.over_voxels.weight"].shape == (4, 50)
    # Two steps move a weight by little: all but the tokenizers began at the base's.
    for name in (name for name in changed if not name.startswith((tokenizers, "config"))):
        assert np.abs(after[name].astype(np.float32) - before[name]).max() < 0.02, name
    run = read_run(out)
    assert run["base"] == run["manifest"]["provenance"]["base"] == weights_digest(base)
    assert str(base.parent) not in json.dumps(run)
    assert {row["phase"] for row in run["tables"]["loss"]} == {"align", "diffuse"}
    assert "caption" in run["tables"]["loss"][0]["losses"]
    assert run["figures"]["identification_2way_centred"]["n"] == 19
    exporting.run(out, tmp_path / "bundle")
    assert bundles.load(tmp_path / "bundle").manifest.fitter == "tokenizer-fitter"
    recording = changes[2].rpartition(",")[2]
    words = ["replay", recording, "--bundle", str(tmp_path / "bundle"), "--out", str(tmp_path / "replayed")]
    replayed = CliRunner().invoke(app, [*words, "--speed", "max"])
    assert replayed.exit_code == 0, replayed.output
    report = json.loads((tmp_path / "replayed" / "report.json").read_text())
    assert report["windows"]["final"] == report["windows"]["expected"] == 19


@pytest.mark.full
def test_a_training_that_begins_at_a_run_goes_on_to_the_same_bits(
    changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = make_run("cinesync", [*changes, "judge=none", f"out={tmp_path / 'run'}"])
    out = tmp_path / "stopped"
    keep = checkpoints.keep

    def keeping(accelerator: Any, folder: Path, step: int) -> None:
        keep(accelerator, folder, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "keep", keeping)
        for target in (f"out={out}", f"resume={out}"):
            with pytest.raises(KeyboardInterrupt):
                make_run("cinesync", [*changes, "judge=none", target])
    make_run("cinesync", [*changes, "judge=none", f"resume={out}"])
    expected = weights(uninterrupted)
    resumed = weights(out)
    assert resumed.keys() == expected.keys()
    assert all(np.array_equal(resumed[name], values) for name, values in expected.items())
