"""Brain Netflix on subjects of two data sets, with windows of 2 s and of 3 s and other voxels."""

from pathlib import Path

import pytest

from export import run as exporting
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train import test_responses
from tests.train.trainer.test_participants import study
from train.artifacts.run_folder import restored
from train.config.recipe import build
from train.config.run_files import read_run
from train.data.sets.opening import opened
from train.models.brainnetflix.system import SharedSystem
from train.run_recipe import run

RECIPE = str(Path(__file__).with_name("small.yaml"))


@pytest.mark.full
def test_two_sets_teach_one_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Videos of 48 colours at random: with fewer, no run says anything of another.
    counts = ((120, 2), (8, 2))
    test_responses.expect_counts(monkeypatch, counts)
    films = study(tmp_path / "films")
    responses = test_responses.release(tmp_path / "responses", counts)
    first, second = opened(films).windows.subjects
    words = [
        f"data={films},{responses}",
        f"data.subject=films:{first},films:{second},responses:sub-01",
        "data.window=films:2,responses:3",
        "data.voxels=films:20,responses:25",
        "data.after=films:1",
        # Videos of one colour each: a fourth channel would hold what compression left, and a net that hardly
        # learned draws it far larger.
        "system.films.channels=3",
        "judge=none",
    ]
    out = run(RECIPE, [*words, f"out={tmp_path / 'run'}"])
    tree = read_run(out)
    assert [*tree["subjects"]] == [second, "sub-01"]
    # Volumes follow what was shown, and so do the layers, by runs that are left out. The voxels of the second
    # set are half as many as its colours, and half noise.
    explained = tree["tables"]["layers"][0]["explained"]
    assert {*explained} == {first, second, "sub-01"}
    assert min(explained.values()) > 0.03
    system = restored(out, build(tree["arguments"]["system"]))
    assert isinstance(system, SharedSystem)
    maps = [part.encoder.get_parameter("stems.0.map") for part in (system, system.of_subject("sub-01"))]
    assert [values.shape[0] for values in maps] == [2 * 20, 25]
    # Windows of 3 s need a bundle of their own.
    bundle = exporting.run(out, tmp_path / "bundle")
    assert [*bundle.manifest.subjects] == [second]
    other = exporting.run(out, tmp_path / "other", subject="sub-01").manifest
    assert (other.grid.window, other.clip.frames) == (3, 6)
    # Of sets, nobody knows what was shown between the windows.
    assert other.fitter is None
    # With each other's volumes nobody is read.
    permuted = study(tmp_path / "permuted", permuted=True)
    words[0] = f"data={permuted}"
    words[1] = f"data.subject={first},{second}"
    words[2:5] = ["data.window=2", "data.voxels=20", "data.after=1"]
    chance = run(RECIPE, [*words, f"out={tmp_path / 'chance'}"])
    assert max(read_run(chance)["tables"]["layers"][0]["explained"].values()) < 0.05
    with refused(UsageError, "participants-vertices-differ"):
        run(RECIPE, [*words, "system.encoder.stem=vertex", f"out={tmp_path / 'vertices'}"])
