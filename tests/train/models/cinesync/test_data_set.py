"""CineSync at small width, trained on a data set as it was released."""

from pathlib import Path

import pytest

from export import run as exporting
from rtdecode import bundle as bundles
from tests.train.models.cinesync.test_cinesync import SMALL
from tests.train.test_data_set import release
from train.run import main as train
from train.run_folder import read_run

_KEPT = ("scale", "system.encoder", "system.video", "phases")
STEPS = [change for change in SMALL if change.startswith(_KEPT)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("cinebrain"))


def test_it_is_trained_and_judged_on_runs_of_its_own(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(["cinesync", *STEPS, "data.voxels=40", f"data={data}", f"out={out}"]) == 0
    figures = read_run(out)["figures"]
    assert figures["identification_2way"]["n"] == 12
    assert figures["identification_2way"]["shuffled"] is not None
    exporting.run(out, tmp_path / "bundle")
    manifest = bundles.load(tmp_path / "bundle").manifest
    assert manifest.chain == "offline"
    assert manifest.fmri is not None
    assert manifest.fmri.voxels == 40


@pytest.mark.parametrize(("modality", "other"), [("fmri", "eeg"), ("eeg", "fmri")])
def test_one_modality_alone_makes_a_bundle_that_reads_no_other(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], modality: str, other: str
) -> None:
    out = tmp_path / "run"
    alone = [*STEPS, f"system.encoder.modalities=[{modality}]", "data.voxels=40", f"data={data}"]
    assert train(["cinesync", *alone, f"out={out}"]) == 2
    assert f"and the recipe's encoder reads no {other}" in capsys.readouterr().err
    contrasts = f"phases.align.losses={{{modality}_frames: 1, {modality}_text: 1}}"
    losses = [contrasts, "phases.diffuse.losses={denoising: 1}"]
    assert train(["cinesync", *alone, *losses, f"out={out}"]) == 0
    exporting.run(out, tmp_path / "bundle")
    loaded = bundles.load(tmp_path / "bundle")
    assert loaded.manifest.modalities == [modality]
    assert {*loaded.manifest.built["encode"].inputs} == {modality, f"{modality}_mask"}
    assert not [name for name in loaded.stats if name.startswith(other)]
