"""The share of detail of a finished run is changed, and nothing else of it."""

import json
from pathlib import Path

import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from train.config.run_files import weights
from train.models.compact.redetail import redetail, with_share
from train.models.compact.refit import reopened
from train.models.compact.system import Compact, unpack

RUNS = Path(__file__).parents[4] / "train" / "runs"


def test_only_the_share_of_a_runs_weights_changes() -> None:
    before = weights(RUNS / "phantom")
    after = with_share(before, 0.25)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before if name != "config")
    old, new = (json.loads(str(arrays["config"])) for arrays in (before, after))
    assert new == old | {"detail": 0.25}
    assert unpack(after).denoiser.detail == Compact(after).detail == 0.25


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float, tmp_path: Path) -> None:
    with refused(UsageError, "redetail-share-out-of-range"):
        redetail(RUNS / "phantom", share, tmp_path)


def test_a_run_of_several_participants_is_refused(tmp_path: Path) -> None:
    tree = json.loads((RUNS / "phantom" / "run.json").read_text())
    with refused(UsageError, "refit-several-participants", participants=["sub-02"]):
        reopened(tree | {"subjects": {"sub-02": {}}}, tmp_path)


def test_a_run_of_another_system_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "redetail-run-unsupported", system="category"):
        redetail(RUNS / "haxby", 0.5, tmp_path)
