"""CineNeuron from films to a bundle, as small as it goes; and what its pool and categories are made of."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from export import run as exporting
from rtdecode.errors import UsageError
from streaming.session import replay
from tests.recordings import record
from tests.refusals import refused
from train.artifacts.run_folder import restored
from train.config.recipe import build
from train.config.run_files import arrays, read_run
from train.data.phantom import participant
from train.models.conditioned.material import Places
from train.run_recipe import main, run

RECIPE = str(Path(__file__).with_name("small.yaml"))


def test_windows_near_an_entry_in_time_or_of_its_clip_are_found() -> None:
    films = np.array(["a", "a", "a", "b"])
    clips = np.array(["a 0", "a 20", "a 90", "a 90"])
    places = Places(clips, films, np.array([0.0, 20.0, 90.0, 0.0]))
    near = places.near(np.array([0, 2]), 30.0)
    assert near.tolist() == [[True, False], [True, False], [False, True], [False, True]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(RECIPE, ["judge=none", f"out={tmp_path_factory.mktemp('cineneuron') / 'run'}"])


@pytest.mark.full
def test_the_pool_is_a_memory_and_the_graphs_decode_as_the_system_does(trained: Path, tmp_path: Path) -> None:
    bundle = exporting.run(trained, tmp_path / "bundle")
    assert bundle.manifest.parity["largest_difference"]["latent"] < 1e-5
    assert bundle.manifest.memories["captions"].rows == 12
    assert bundle.manifest.recorded == ["front.rows", "front.scores", "front.weights", "front.retrieved"]
    assert not any(name.startswith("memory") for name in arrays(trained, "weights"))
    record(participant("easy", 1).session(1003, 16.0), tmp_path / "recording")
    assert replay.run(tmp_path / "recording", str(bundle.path), "max", tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    finals = [line for line in lines if line["revision"] == "final"]
    assert finals
    for line in finals:
        recorded = line["recorded"]
        assert len({*recorded["rows"]}) == 2
        assert recorded["scores"] == sorted(recorded["scores"], reverse=True)
        assert sum(recorded["weights"]) == pytest.approx(1, abs=1e-4)
        assert recorded["retrieved"] == [1]


@pytest.mark.full
def test_a_run_is_restored_with_its_pool(trained: Path) -> None:
    system = restored(trained, build(read_run(trained)["arguments"]["system"]))
    golden = arrays(trained, "golden")
    condition = system.condition(golden)
    assert torch.isfinite(condition.tokens).all()
    assert condition.tokens.shape[1:] == (84, 16)


@pytest.mark.full
def test_one_voxel_is_read_as_any_other_number(tmp_path: Path) -> None:
    folder = run(RECIPE, ["judge=none", "system.voxels=1", "data.sessions=0-1", f"out={tmp_path / 'run'}"])
    assert arrays(folder, "golden")["fmri"].shape[-1] == 1


@pytest.mark.full
def test_a_training_that_is_stopped_in_each_phase_goes_on_to_the_same_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.models.conditioned import batches

    draw_batch = batches.batch
    stops = [("pretrain", 3), ("enrich", 3), ("integrate", 3)]

    def stopping(windows: object, dropout: object, losses: object, place: object, *count: object) -> object:
        if stops and (place.phase, place.number) == stops[0]:  # type: ignore[attr-defined]
            stops.pop(0)
            raise KeyboardInterrupt
        return draw_batch(windows, dropout, losses, place, *count)  # type: ignore[arg-type]

    monkeypatch.setattr(batches, "batch", stopping)
    out = tmp_path / "run"
    arguments = [RECIPE, "judge=none"]
    monkeypatch.setenv("RTDECODE_CACHE", str(tmp_path / "cache"))
    codes = [main([*arguments, f"out={out}"]), *(main([*arguments, f"resume={out}"]) for _ in range(3))]
    assert codes == [130, 130, 130, 0]
    for name, value in arrays(trained, "weights").items():
        np.testing.assert_array_equal(value, arrays(out, "weights")[name], err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("system.encoder.memory.entries=4000", "memory-entries-too-many"),
        ("system.encoder.memory.entries=2", "memory-entries-too-few"),
        ("system.brain_minutes=60", "brain-minutes-out-of-range"),
    ],
)
def test_pools_and_minutes_that_there_are_not_are_refused(change: str, code: str, tmp_path: Path) -> None:
    with refused(UsageError, code):
        run(RECIPE, ["judge=none", change, "data.sessions=0", f"out={tmp_path / 'run'}"])
