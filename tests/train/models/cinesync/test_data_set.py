"""CineSync at small width, trained on a data set as it was released."""

from pathlib import Path

import pytest

from export import run as exporting
from export.run import graphs_of
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.models.cinesync.test_cinesync import SMALL
from tests.train.test_data_set import FEW_PLACES, release
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_files import read_run
from train.run_recipe import run as make_run

_SHARED_CHANGES = ("scale", "system.encoder", "system.video", "phases")
STEPS = [change for change in SMALL if change.startswith(_SHARED_CHANGES)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain"), FEW_PLACES)


@pytest.mark.full
def test_it_is_trained_and_judged_on_runs_of_its_own(data: Path, tmp_path: Path) -> None:
    out = make_run("cinesync", [*STEPS, "data.voxels=40", f"data={data}", f"out={tmp_path / 'run'}"])
    run = read_run(out)
    figures = run["figures"]
    # What `train.run` prints: how the runs were divided, and what was looked for.
    notes = [row["note"] for row in run["tables"]["notes"]]
    assert "are held out and judged" in notes[0]
    assert [note.partition(" ")[0] for note in notes[-2:]] == ["Nothing", "Not"]
    assert "runs of the test that are copies of training" in notes[-2]
    assert "signals that were shifted against their clips (shift=yes)" in notes[-1]
    assert figures["identification_2way_centred"]["n"] == 6
    assert figures["identification_2way_centred"]["shuffled"] is not None
    rows = run["tables"]["alignment"]
    assert {(row["phase"], row["windows"]) for row in rows} == {("align", 6), ("diffuse", 6)}
    manifest = draft_of(out).manifest
    assert manifest.modalities == ["eeg", "fmri"]
    assert manifest.chain == "offline"
    assert manifest.fmri is not None
    assert manifest.fmri.voxels == 40


@pytest.mark.full
def test_eeg_alone_makes_a_bundle_that_reads_no_volumes(data: Path, tmp_path: Path) -> None:
    run = _one_modality(data, tmp_path / "run", "eeg", refused_modality="fmri")
    exporting.run(run, tmp_path / "bundle")
    loaded = bundles.load(tmp_path / "bundle")
    assert loaded.manifest.modalities == ["eeg"]
    assert loaded.manifest.chain == "offline"
    assert {*loaded.manifest.built["encode"].inputs} == {"eeg", "eeg_mask"}
    assert not [name for name in loaded.stats if name.startswith("fmri")]


@pytest.mark.full
def test_volumes_alone_make_a_run_that_reads_no_eeg(data: Path, tmp_path: Path) -> None:
    run = _one_modality(data, tmp_path / "run", "fmri", refused_modality="eeg")
    draft = draft_of(run)
    assert draft.manifest.modalities == ["fmri"]
    system = restored(run, build(read_run(run)["arguments"])["system"])
    # The other stages read no signals.
    (encode,) = [stage for stage in system.stages(draft.manifest) if stage.name == "encode"]
    graph = graphs_of([encode])["encode"].graph
    assert {port.name for port in graph.input} == {"fmri", "fmri_mask"}
    assert not [name for name in draft.stats if name.startswith("eeg")]


def _one_modality(data: Path, out: Path, modality: str, refused_modality: str) -> Path:
    """Train on one modality alone, after losses that ask for the other one were refused."""
    changes = [*STEPS, f"system.encoder.modalities=[{modality}]", "data.voxels=40", f"data={data}"]
    with refused(UsageError, "loss-modality-not-encoded", modality=refused_modality):
        make_run("cinesync", [*changes, f"out={out}"])
    contrasts = f"phases.align.losses={{{modality}_frames: 1, {modality}_text: 1}}"
    losses = [contrasts, "phases.diffuse.losses={denoising: 1}"]
    return make_run("cinesync", [*changes, *losses, f"out={out}"])
