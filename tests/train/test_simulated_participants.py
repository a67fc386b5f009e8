"""Two simulated participants in one ridge: judged, exported and replayed each by its own signals and maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rtdecode import bundle as bundles
from rtdecode.cli import app
from rtdecode.errors import UsageError
from rtdecode.phantom.session import PhantomSession
from tests.recordings import record
from tests.refusals import refused
from tests.train.test_grids import check_equal
from train.artifacts.run_folder import draft_of, restored
from train.closed_form.brain_maps import StemSizes
from train.closed_form.patch_codec import CodecSizes
from train.config.recipe import build
from train.config.run_files import read_run
from train.data.phantom import Participant
from train.evaluate import Request, evaluate
from train.evaluation.identification import fresh, judge_clips
from train.evaluation.result import make_decode
from train.models.ridge.plan import PatchRidgePlan, fit_latents
from train.models.ridge.system import PatchRidge
from train.run_recipe import run as make_run

# Name in the run -> number. The first one is the default participant.
NUMBERS = {None: 1, "sub-02": 2}
SECONDS = 48
WORDS = ("scale=tiny", "data.subject=1-2", "data.modalities=[fmri]", "data.sessions=0", "data.seconds=100")
TWO_WAY = "identification_2way"


def test_clips_that_all_have_watched_count_once() -> None:
    plan = PatchRidgePlan(CodecSizes(4, 4), StemSizes(8, 2, 2, 0.75, [0.5]), 0.5)
    clips = np.random.default_rng(0).integers(0, 255, (12, 33, 16, 16, 3)).astype(np.uint8)
    weights, targets = fit_latents([clips, clips.copy()], plan)
    alone, (of_one,) = fit_latents([clips], plan)
    assert all(np.array_equal(weights[name], alone[name]) for name in alone)
    assert all(np.array_equal(values, of_one) for values in targets)
    # Clips in another order are fitted together, and are as many times over the same: nothing is lost.
    together, of_two = fit_latents([clips, clips[::-1]], plan)
    assert np.allclose(together["codec_mean"], alone["codec_mean"], atol=1e-5)
    assert np.allclose(np.abs(of_two[0]), np.abs(of_one), rtol=1e-2, atol=1e-2)
    assert np.allclose(np.abs(of_two[1]), np.abs(of_one[::-1]), rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("participants") / "run"
    return make_run("ridge", [*WORDS, f"judge.seconds={SECONDS}", f"out={out}"])


def ridge_of(run: Path, name: str | None) -> PatchRidge:
    ridge = restored(run, build(read_run(run)["arguments"]["system"]))
    assert isinstance(ridge, PatchRidge)
    return ridge if name is None else ridge.of_subject(name)


@pytest.mark.full
@pytest.mark.parametrize(("name", "other"), [(None, "sub-02"), ("sub-02", None)])
def test_each_is_judged_by_its_own_maps_and_on_its_own_sessions(
    run: Path, name: str | None, other: str | None
) -> None:
    bundle = draft_of(run, name)
    # Participants beside the first have noise of their own.
    who = Participant("easy", NUMBERS[name], own_noise=name is not None)
    session = fresh(bundle, who, [1000], SECONDS)

    def two_way(maps: str | None) -> float:
        show = make_decode(ridge_of(run, maps), bundle.manifest, "0")
        figures = judge_clips(
            show, bundle, session.inputs, session.truths, session.where, session.events_by_run
        )
        return figures[TWO_WAY]["value"]

    judged = two_way(name)
    assert judged > 0.75
    assert read_run(run)["figures"][TWO_WAY if name is None else f"{name}/{TWO_WAY}"]["value"] == judged
    # In a mixed cortex nothing passes from one to another.
    assert two_way(other) < 0.65


@pytest.mark.full
def test_a_finished_run_is_judged_on_the_sessions_of_whom_is_asked_for(run: Path) -> None:
    figures = evaluate(run, Request(subject="sub-02", seeds="1000", seconds=SECONDS))
    reported = read_run(run)["figures"]
    assert figures == {name: reported[f"sub-02/{name}"] for name in figures}
    with refused(UsageError, "run-unknown-subject", subject="sub-03"):
        evaluate(run, Request(subject="sub-03"))


@pytest.mark.full
def test_a_bundle_of_two_replays_the_second_with_the_bits_of_the_batch(run: Path, tmp_path: Path) -> None:
    exported: Any = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "bundle")])
    assert exported.exit_code == 0, exported.output
    assert [*bundles.load(tmp_path / "bundle").manifest.subjects] == ["sub-02"]
    recording = record(PhantomSession("easy", 2, 1002, 24.0), tmp_path / "recording")
    out = tmp_path / "replayed"
    words = ["replay", str(recording), "--bundle", str(tmp_path / "bundle"), "--out", str(out), "--best"]
    replayed: Any = CliRunner().invoke(app, [*words, "--speed", "max", "--subject", "sub-02"])
    assert replayed.exit_code == 0, replayed.output
    report = check_equal(bundles.load(tmp_path / "bundle", subject="sub-02"), recording, out, 24)
    assert report["windows"]["expected"] == 6
    # Another brain's maps are no better than chance on it.
    assert report["accuracy"][TWO_WAY]["value"] > 0.65


@pytest.mark.parametrize(
    ("recipe", "subject", "code", "values"),
    [
        ("ridge", "1,2,1", "simulated-participant-named-twice", {"participants": "sub-01"}),
        ("ridge", "0-2", "phantom-subject-invalid", {"subject": 0}),
        ("cinesync", "1-2", "recipe-single-participant", {"participants": "sub-01, sub-02"}),
        ("compact", "2-3,3", "simulated-participant-named-twice", {"participants": "sub-03"}),
    ],
)
def test_who_cannot_be_trained_on_is_refused_before_anything_is_simulated(
    recipe: str, subject: str, code: str, values: dict[str, Any], tmp_path: Path
) -> None:
    with refused(UsageError, code, **values):
        make_run(recipe, ["scale=tiny", f"data.subject={subject}", f"out={tmp_path / 'run'}"])
    assert not list(tmp_path.iterdir())
