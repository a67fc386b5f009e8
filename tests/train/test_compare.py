"""Runs compared on the same windows."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.test_grids import FMRI, TWO
from tests.train.tiny import tiny
from train.compare import Decoder, check_alike, main, measure, opened, table, with_noise
from train.evaluation.sessions import Sessions
from train.run_recipe import run as make_run


def with_grid(run: Decoder, **changes: Any) -> Decoder:
    """Return a run as if its grid had been another."""
    manifest = run.bundle.manifest
    grid = replace(manifest.grid, **changes)
    return replace(run, name="other", bundle=replace(run.bundle, manifest=replace(manifest, grid=grid)))


def with_participant(run: Decoder, **changes: Any) -> Decoder:
    """Return a run as if it had been trained on another participant."""
    who = replace(run.data.who, **changes)
    return replace(run, name="other", data=replace(run.data, who=who))


@pytest.mark.full
def test_a_run_lies_level_with_a_copy_of_itself_and_above_one_modality(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny("ridge"), copy)
    judged = Sessions("shapes", "easy", "1000", 120.0)
    noisy = {row["decoder"]: row["less_than"] for row in measure([copy], judged, noise=[0.25])}
    assert noisy["copy_noise_25"] == "copy"
    rows = measure([tiny("ridge"), copy], judged)
    by_decoder = {(row["decoder"], row["metric"]): row for row in rows}
    # A closed form has no condition that aims at anything.
    assert {metric for _, metric in by_decoder} == {
        "identification_2way_centred",
        "identification_2way_matched",
    }
    assert {name for name, _ in by_decoder} == {"ridge", "ridge_eeg", "ridge_fmri", "copy"}
    first = by_decoder["ridge", "identification_2way_centred"]
    same = by_decoder["copy", "identification_2way_centred"]
    assert first["less"] is None
    assert (same["less"], same["less_ci95"]) == (0.0, [0.0, 0.0])
    assert same["value"] == first["value"]
    alone = by_decoder["ridge_eeg", "identification_2way_centred"]
    assert alone["less"] == pytest.approx(alone["value"] - first["value"])
    assert alone["less"] < 0
    assert (same["less_than"], alone["less_than"]) == ("ridge", "ridge")
    assert table(rows, "both").row_count == len(rows) == 8


@pytest.mark.full
def test_runs_that_look_ahead_are_compared_on_the_windows_that_all_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["scale=tiny", *TWO, "data.grid.fps=3", FMRI]
    runs = [tmp_path / f"after-{after}" for after in (0, 3, 4)]
    for run in runs:
        make_run("ridge", [*small, f"data.grid.after={run.name[-1]}", f"out={run}"])
    capsys.readouterr()
    sessions = ["--seeds", "1000", "--seconds", "24"]
    out = tmp_path / "rows.json"
    assert main([*map(str, runs), *sessions, "--previous", "--json", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert (report["film"], report["seeds"], report["seconds"]) == ("shapes", "1000", 24.0)
    rows = {row["decoder"]: row for row in report["rows"] if row["metric"] == "identification_2way_centred"}
    # A scan of 32 s has the volumes of 12 windows, and of 10 that read four more.
    assert {name: row["n"] for name, row in rows.items()} == {run.name: 10 for run in runs}
    assert [row["less_than"] for row in rows.values()] == [None, "after-0", "after-3"]
    last = rows["after-4"]
    assert last["less"] == pytest.approx(last["value"] - rows["after-3"]["value"])


def test_noise_has_its_share_of_the_strength_of_volumes_that_are_there() -> None:
    mask = np.ones((40, 5), np.float32)
    mask[:, 4] = 0
    volumes = 3 * np.random.default_rng(0).standard_normal((40, 5, 60), np.float32) * mask[..., None]
    inputs = {"fmri": volumes, "fmri_mask": mask, "eeg": np.ones((40, 2))}
    noisy = with_noise(inputs, 0.25, 1000)
    difference = noisy["fmri"] - volumes
    assert difference[:, :4].std() == pytest.approx(0.25 * 3, rel=0.05)
    assert not difference[:, 4].any()
    assert noisy["eeg"] is inputs["eeg"]
    np.testing.assert_array_equal(with_noise(inputs, 0.25, 1000)["fmri"], noisy["fmri"])
    assert (with_noise(inputs, 0.25, 1001)["fmri"] != noisy["fmri"]).any()


def test_windows_that_one_run_lacks_are_left_out_for_all() -> None:
    ridge = opened(tiny("ridge"))
    ahead = with_grid(ridge, after=6)
    sessions = Sessions("shapes", "easy", "1000", 24.0)
    manifests = [ridge.bundle.manifest, ahead.bundle.manifest]
    counts = [
        len(film.where)
        for read in (manifests[:1], manifests[1:], manifests, manifests[::-1])
        for _, film in sessions.watched(ridge.who, *read)
    ]
    assert counts == [6, 5, 5, 5]
    # How many volumes are read makes no other windows.
    check_alike([ridge, ahead])
    check_alike([ridge, with_grid(ridge, lag=Fraction(5), before=2)])


@pytest.mark.parametrize(
    ("change", "first", "other"),
    [
        (lambda run: with_participant(run, subject=2), {"subject": 1}, {"subject": 2}),
        (lambda run: with_participant(run, cortex="shared"), {"cortex": "mixed"}, {"cortex": "shared"}),
        (lambda run: with_participant(run, tr=Fraction(2)), {"tr_s": 0.8}, {"tr_s": 2.0}),
    ],
)
def test_runs_of_other_participants_are_refused(
    change: Callable[[Decoder], Decoder], first: dict[str, Any], other: dict[str, Any]
) -> None:
    ridge = opened(tiny("ridge"))
    with refused(UsageError, "compare-participants-differ", first_participant=first, other_participant=other):
        check_alike([ridge, change(ridge)])
    # Film and preset are named with the sessions.
    check_alike([ridge, with_participant(ridge, preset="hard", film="natural")])


def test_runs_with_other_windows_are_refused() -> None:
    ridge = opened(tiny("ridge"))
    with refused(
        UsageError,
        "compare-windows-differ",
        first="ridge",
        other="other",
        first_windows={"window_s": 4.0, "hop_s": 4.0, "frames": 32},
        other_windows={"window_s": 2.0, "hop_s": 2.0, "frames": 16},
    ):
        check_alike([ridge, with_grid(ridge, window=Fraction(2), hop=Fraction(2))])
    with refused(UsageError, "compare-windows-differ", first_windows={"hop_s": 4.0}):
        check_alike([ridge, with_grid(ridge, hop=Fraction(2))])


def test_what_cannot_be_compared_or_written_ends_before_anything_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with refused(UsageError, "data-session-too-short"):
        measure([tiny("ridge")], Sessions("shapes", "easy", "1000", 2.0))
    assert main([str(tiny("ridge")), "--json", "--out", str(tmp_path / "none" / "rows.json")]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "compare-out-unwritable"
    assert main([str(tiny("ridge")), "--json", "--sheet", str(tmp_path)]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["values"]["option"] == "sheet"


def test_help_says_what_a_paired_difference_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    words = capsys.readouterr().out
    assert "paired differences" in words
    assert "--previous" in words


def test_runs_that_cannot_be_told_apart_or_watch_no_film_are_refused(tmp_path: Path) -> None:
    with refused(UsageError, "benchmark-run-names-duplicate"):
        measure([tiny("ridge"), tiny("ridge")], Sessions("shapes", "easy", "1000", 24.0))
    with refused(UsageError, "benchmark-run-not-simulated"):
        measure([tiny("haxby")], Sessions("shapes", "easy", "1000", 24.0))
