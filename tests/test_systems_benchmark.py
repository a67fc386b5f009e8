"""The benchmark of systems: which runs share windows, what a ridge beside them reads, what clips cost."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from benchmarks.systems import SYSTEMS, compared, costs, grouped, ridge_changes
from rtdecode import bundle as bundles
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.streaming.bundles import make_bundle
from tests.train.tiny import tiny
from train.artifacts.slots import parts_of
from train.compare import Decoder, opened, sheet
from train.config.recipe import check, read
from train.data.simulated import SimulatedSessions
from train.evaluation.sessions import Sessions


def as_if(run: Decoder, name: str, *, eeg: bool = True, **grid: Any) -> Decoder:
    """Return a run under another name, as if its grid had been another."""
    manifest = run.bundle.manifest
    changed = replace(manifest, grid=replace(manifest.grid, **grid), eeg=manifest.eeg if eeg else None)
    return replace(run, name=name, bundle=replace(run.bundle, manifest=changed))


def test_runs_are_grouped_by_the_windows_that_they_can_be_given() -> None:
    four = opened(tiny("ridge"))
    two: dict[str, Any] = {"tr": Fraction(2), "window": Fraction(2), "hop": Fraction(2)}
    ahead = as_if(four, "ahead", eeg=False, after=1, **two)
    alone = as_if(four, "alone", eeg=False, **two)
    groups = grouped([four, ahead, alone, as_if(four, "copy")])
    assert [(name, [member.name for member in members]) for name, members in groups] == [
        ("4 s", ["ridge", "copy"]),
        ("2 s", ["ahead", "alone"]),
    ]
    another = replace(four, name="of another", data=replace(four.data, who=replace(four.who, subject=2)))
    with refused(UsageError, "benchmark-participants-differ", runs=["ridge", "of another"]):
        grouped([four, another])
    changes = ridge_changes([alone, ahead])
    recipe = read("ridge", ["scale=tiny", *changes])
    check(recipe)
    data = parts_of(recipe.tree).data
    assert isinstance(data, SimulatedSessions)
    assert (data.grid.tr, data.grid.window, data.grid.after, data.modalities) == (2, 2, 1, ("fmri",))


def test_every_system_has_its_windows() -> None:
    assert {*SYSTEMS.values()} == {"4 s", "2 s"}


def test_clips_are_timed_in_turns(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle").path
    measured = costs({"first": bundles.load(bundle), "other": bundles.load(bundle)}, repeats=3)
    assert [cost["clip_ms"]["n"] for cost in measured.values()] == [3, 3]
    for cost in measured.values():
        assert 0 < cost["first_frame_ms"]["p50"] <= cost["clip_ms"]["p50"] <= cost["clip_ms"]["p95"]
        assert cost["megabytes"] == pytest.approx(
            sum(path.stat().st_size for path in bundle.iterdir()) / 1e6, abs=0.006
        )


@pytest.mark.full
def test_a_sheet_has_a_column_for_each_run() -> None:
    ridge = opened(tiny("ridge"))
    judged = Sessions("shapes", "easy", "1000-1001", 24.0)
    both = sheet([ridge, as_if(ridge, "copy")], judged, "shapes")
    single = sheet([ridge], judged, "shapes")
    # Film and run, and a gap between columns.
    assert both.height == single.height
    assert both.width - single.width == (single.width + 6) / 2


@pytest.mark.full
def test_noisy_volumes_are_held_against_the_same_run_without() -> None:
    figures, noisy = compared([tiny("ridge")], ["easy", "default"], "1000-1001", noise=(0.0, 4.0))
    # And each modality alone.
    assert all({*runs} == {"ridge", "ridge_eeg", "ridge_fmri"} for runs in figures.values())
    assert {share: [*runs] for share, runs in noisy.items()} == {"0": ["ridge"], "4": ["ridge"]}
    metric = "identification_2way_centred"
    plain = figures["easy"]["ridge"][metric]["value"]["value"]
    assert noisy["0"]["ridge"][metric]["value"]["value"] == plain
    assert noisy["0"]["ridge"][metric]["less"]["value"] == 0
    loss = noisy["4"]["ridge"][metric]["less"]["value"]
    assert loss < 0
    assert plain + loss == pytest.approx(noisy["4"]["ridge"][metric]["value"]["value"])
