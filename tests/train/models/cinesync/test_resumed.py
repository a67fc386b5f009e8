"""A small CineSync that is interrupted in each of its phases goes on to the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.models.cinesync.test_cinesync import SMALL
from tests.train.test_data_set import FEW_PLACES, release
from train.config.run_files import read_run, weights
from train.run_recipe import run as make_run
from train.trainer import checkpoints

PHASES = ("films", "pretrain", "align", "diffuse", "distill")
# The recipe of a student has no data set, so that a phase that teaches one is added to the other recipe.
DISTILL = (
    "{builder: phase, losses: {flow_map: 1}, trained: ['*.span.*'], adapters: {student.video.transformer: "
    "{builder: adapter, layers: [to_q, to_v], rank: 4, alpha: 4, merge: false}}, rate: 0.05, decay: 0, "
    "ema: 0.9, schedule: constant, precision: 'no', accumulate: 1, steps: 2, batch: 2, warmup: 0, "
    "keep_every: 1, show_every: 2}"
)
# A checkpoint after the first of two steps.
SHORT = [
    *(change for change in SMALL if change.startswith(("scale", "system.encoder", "system.video"))),
    *(f"phases.{phase}.{key}=2" for phase in PHASES[:-1] for key in ("steps", "show_every", "batch")),
    *(f"phases.{phase}.keep_every=1" for phase in PHASES[:-1]),
    *(f"phases.{phase}.warmup=0" for phase in PHASES[:-1]),
    f"phases.distill={DISTILL}",
    "data.voxels=40",
    "judge=none",
]


@pytest.mark.full
def test_a_run_that_is_interrupted_in_each_phase_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [*SHORT, f"data={release(tmp_path / 'cinebrain', FEW_PLACES)}"]
    # Neither run finds what the other one has pretrained.
    monkeypatch.setenv("RTDECODE_CACHE", str(tmp_path / "cache"))
    uninterrupted = make_run("cinesync", [*changes, f"out={tmp_path / 'whole'}"])
    monkeypatch.setenv("RTDECODE_CACHE", str(tmp_path / "another"))
    out = tmp_path / "stopped"
    keep = checkpoints.keep
    stopped: list[str] = []

    def keeping(accelerator: Any, folder: Path, step: int) -> None:
        keep(accelerator, folder, step)
        stopped.append(folder.name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "keep", keeping)
        for target in (f"out={out}", *[f"resume={out}"] * (len(PHASES) - 1)):
            with pytest.raises(KeyboardInterrupt):
                make_run("cinesync", [*changes, target])
    assert stopped == list(PHASES)
    assert not out.exists()
    make_run("cinesync", [*changes, f"resume={out}"])
    expected = weights(uninterrupted)
    resumed = weights(out)
    assert resumed.keys() == expected.keys()
    assert any(name.startswith("student.") for name in expected)
    for name, values in expected.items():
        assert np.array_equal(resumed[name], values), name
    # What was said at the end of a phase is not lost when a later one is interrupted.
    tables = [read_run(folder)["tables"] for folder in (uninterrupted, out)]
    for table in ("alignment", "distillation"):
        assert tables[0][table] == tables[1][table]
    assert (out / "alignment-align.png").read_bytes() == (uninterrupted / "alignment-align.png").read_bytes()
