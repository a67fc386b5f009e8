"""Brain Netflix from the films of two participants to a bundle that decodes both, as small as it goes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from export import fit as fitting
from export import run as exporting
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from streaming.session import replay
from tests.recordings import record
from tests.refusals import refused
from train.artifacts.run_folder import restored
from train.artifacts.slots import parts_of
from train.config.recipe import build, check, read
from train.config.run_files import arrays, read_run
from train.data.phantom import participant
from train.models.brainnetflix.encoder import CORRECTION, PARTICIPANT
from train.models.brainnetflix.participants import ParticipantBatches, chain_of, check_batches, check_vertices
from train.models.brainnetflix.plan import BrainNetflixPlan
from train.models.brainnetflix.system import SharedSystem
from train.models.conditioned.batches import Dropout, Windows
from train.run_recipe import run
from train.trainer.loader import Place

RECIPE = str(Path(__file__).with_name("small.yaml"))
COUNT = 24
WIDTH = 5


def plan(**changes: Any) -> BrainNetflixPlan:
    """Build the small recipe's plan with other values."""
    built = build(yaml.safe_load(Path(RECIPE).read_text())["system"])
    assert isinstance(built, BrainNetflixPlan)
    return replace(built, **changes)


def phases() -> dict[str, Any]:
    return build(yaml.safe_load(Path(RECIPE).read_text())["phases"])


def windows(voxels: int, seed: int) -> Windows:
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> Any:
        return rng.standard_normal((COUNT, *shape), np.float32)

    signals = {"fmri": values(2, voxels), "fmri_mask": np.ones((COUNT, 2), np.float32)}
    words = rng.integers(1, 20, (COUNT, 6, 5))
    targets = {"clip_vector": values(8)}
    return Windows(values(4, 6, 2, 2), words, values(6, 8), values(8), signals, None, targets)


def test_a_batch_is_of_the_participant_that_its_place_names() -> None:
    everybody = {"sub-01": windows(7, 1), "sub-02": windows(9, 2)}
    rng = np.random.default_rng(3)
    corrections = {name: rng.standard_normal((COUNT, WIDTH)).astype(np.float32) for name in everybody}
    dropout = Dropout(words=0.0, modalities=[0, 1, 0, 0])
    draw = ParticipantBatches(everybody, corrections, dropout, {"regress": ["vector", "caption"]})
    place = Place(phase="regress", size=8, seed=1, order=0, number=0, participant="sub-02")
    batch = draw(place)
    rows = place.rows(COUNT)
    assert batch["fmri"].shape == (8, 2, 9)
    assert int(batch[PARTICIPANT]) == 1
    np.testing.assert_array_equal(batch[CORRECTION], corrections["sub-02"][rows])
    np.testing.assert_array_equal(batch["fmri"], everybody["sub-02"].signals["fmri"][rows])
    np.testing.assert_array_equal(batch["clip_vector"], everybody["sub-02"].targets["clip_vector"][rows])
    # A training of one names nobody.
    alone = draw(replace(place, participant=""))
    assert (batch["fmri"].shape[2], alone["fmri"].shape[2]) == (9, 7)


def test_signals_of_one_that_were_prepared_offline_make_all_of_it_offline() -> None:
    assert chain_of(["causal", "causal"]) == "causal"
    assert chain_of(["causal", "offline"]) == "offline"


def test_batches_that_a_participant_cannot_fill_and_other_vertices_are_refused() -> None:
    check_batches(phases(), {"sub-01": 4, "sub-02": 30})
    with refused(UsageError, "batch-larger-than-participant", participant="sub-02", batch=4, count=3):
        check_batches(phases(), {"sub-01": 30, "sub-02": 3})
    same = np.arange(5)
    check_vertices({"sub-01": same, "sub-02": same.copy()})
    with refused(UsageError, "participants-vertices-differ", participants=["sub-03"], first="sub-01"):
        check_vertices({"sub-01": same, "sub-02": same, "sub-03": same + 1})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"alignment": "film"}, "plan-alignment-unknown"),
        ({"films": replace(plan().films, turn=4)}, "plan-latent-frames-not-single"),
        ({"sampling": replace(plan().sampling, start_level=0.95)}, "sampling-start-level-beyond-schedule"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], code: str) -> None:
    with refused(UsageError, code):
        plan(**changes)


def test_without_alignment_its_loss_is_left_out() -> None:
    brains, distilling = plan().divide_phases(phases(), from_base=False)
    assert ([*brains], distilling) == (["align", "regress"], {})
    without, _ = plan(alignment="none").divide_phases(phases(), from_base=False)
    assert [*without] == ["regress"]
    student = replace(phases()["regress"], losses={"flow_map": 1}, trained=["*.span.*"])
    with refused(UsageError, "plan-distillation-unsupported", phases=["student"]):
        plan().divide_phases({**phases(), "student": student}, from_base=False)


@pytest.mark.parametrize(
    "changes",
    [[], ["data.subject=1"], ["data=A,B", "data.subject=A:sub-01,B:sub-02"]],
)
def test_the_recipe_binds_in_every_form(
    changes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = read("brainnetflix", ["scale=tiny", *changes])
    check(recipe)
    parts = parts_of(recipe.tree)
    assert isinstance(parts.system, BrainNetflixPlan)
    assert parts.system.alignment == "clip"
    assert [*parts.phases] == ["films", "pretrain", "align", "regress"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(RECIPE, ["judge=none", f"out={tmp_path_factory.mktemp('brainnetflix') / 'run'}"])


@pytest.mark.full
def test_two_participants_are_replayed_from_one_bundle(trained: Path, tmp_path: Path) -> None:
    bundle = exporting.run(trained, tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.parity["largest_difference"]["latent"] < 1e-4
    assert manifest.provenance["start_level"] == 0.836
    assert manifest.sigmas["2"][0] == 1
    assert [*manifest.subjects] == ["sub-02"]
    assert [*manifest.subjects["sub-02"].stages] == ["front"]
    for number, name in ((1, None), (2, "sub-02")):
        recording = tmp_path / f"recording-{number}"
        record(participant("easy", number, tr=2).session(1003, 16.0), recording)
        out = tmp_path / f"out-{number}"
        assert replay.run(recording, str(bundle.path), "max", out, subject=name) == 0
        check_finals(out)
    fit_a_third(bundle, tmp_path)


def check_finals(out: Path) -> None:
    """Require clips of whole windows, which rest on fMRI."""
    lines = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    finals = [line for line in lines if line["revision"] == "final"]
    assert finals
    assert {tuple(line["modalities"]) for line in finals} == {("fmri",)}


def fit_a_third(bundle: Bundle, folder: Path) -> None:
    """Fit somebody who was not trained on, who joins the others."""
    newcomer = participant("easy", 3, tr=2)
    recording = record(newcomer.session(1004, 240.0), folder / "recording-3")
    fitted = fitting.run([recording], None, None, str(bundle.path), folder / "fitted", "sub-03")
    assert [*fitted.manifest.subjects] == ["sub-02", "sub-03"]
    held_out = fitted.manifest.provenance["newcomers"]["sub-03"]["fitted"]["held_out"]["fmri"]
    assert held_out["ci95"][0] > 0.55
    assert held_out["shifted"] < 0.55
    parity = fitted.manifest.parity["subjects"]["sub-03"]["largest_difference"]
    assert max(parity["condition"], parity["start"]) < 1e-3
    # Nothing of the others has changed.
    files = fitted.manifest.files
    assert {name: files[name] for name in bundle.manifest.files} == bundle.manifest.files
    replayed = record(newcomer.session(1005, 16.0), folder / "recording-4")
    assert replay.run(replayed, str(fitted.path), "max", folder / "out-3", subject="3") == 0
    check_finals(folder / "out-3")
    with refused(UsageError, "fit-name-taken", name="sub-02"):
        fitting.run([recording], None, None, str(fitted.path), folder / "again", "sub-02")


@pytest.mark.full
@pytest.mark.parametrize(
    ("minutes", "code", "says"),
    [
        # Three windows of 2 s, and batches of four.
        ("0.1", "batch-larger-than-participant", {"participant": "sub-02", "count": 3}),
        ("40", "brain-minutes-out-of-range", {"option": "others_minutes"}),
    ],
)
def test_all_but_the_first_may_teach_other_minutes_of_other_films(
    minutes: str, code: str, says: dict[str, Any], tmp_path: Path
) -> None:
    changes = [f"system.others_minutes={minutes}", "data.film_sets=2", "data.seconds=16"]
    with refused(UsageError, code, **says):
        run(RECIPE, [*changes, "judge=none", f"out={tmp_path / 'run'}"])


@pytest.mark.full
def test_a_participant_of_a_run_has_the_shared_weights_and_an_own_layer(trained: Path) -> None:
    system = restored(trained, build(read_run(trained)["arguments"]["system"]))
    assert isinstance(system, SharedSystem)
    other = system.of_subject("sub-02")
    first, second = (dict(part.encoder.named_parameters()) for part in (system, other))
    differing = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert differing == {"stems.0.map", "stems.0.offset"}
    golden = arrays(trained, "golden")
    condition = system.condition(golden)
    assert condition.start.shape == (len(golden["fmri"]), 4, 6, 8, 12)
    assert condition.start_level == 0.836
    # The layer of another brain reads the same window in another way.
    assert not torch.allclose(other.condition(golden).start, condition.start, atol=1e-3)
    tables = read_run(trained)["tables"]
    assert {*tables["layers"][0]["explained"]} == {"sub-01", "sub-02"}
    with refused(UsageError, "run-unknown-subject", subject="sub-03"):
        system.of_subject("sub-03")


@pytest.mark.full
def test_a_shared_cortex_is_read_by_one_layer(tmp_path: Path) -> None:
    words = ["system.encoder.stem=vertex", "data.who.cortex=shared", "system.alignment=text"]
    out = run(RECIPE, [*words, "judge=none", f"out={tmp_path / 'run'}"])
    system = restored(out, build(read_run(out)["arguments"]["system"]))
    assert isinstance(system, SharedSystem)
    other = system.of_subject("sub-02")
    first, second = (dict(part.encoder.named_parameters()) for part in (system, other))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (
        bundles.load(exporting.run(out, tmp_path / "bundle").path, subject="sub-02").manifest.fmri is not None
    )
