"""What is measured of a decoder on shapes that it never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.held_out_shapes import judge, judge_vectors, measure, table, trained_on
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import Film
from rtdecode.phantom.film.known import STRATA, novelty
from rtdecode.scores.events import Span
from tests.refusals import refused
from tests.train.tiny import tiny
from train.artifacts.run_folder import draft_of
from train.data.phantom import events
from train.evaluation.identification import Fresh
from train.evaluation.reconstruct import Reconstruction

# So many windows of a film hold some of each kind.
WINDOWS = 40


def test_the_strata_of_a_run_are_judged_beside_its_null_brain() -> None:
    rows = measure(tiny("ridge"), "1000-1001", 24.0)
    assert [row["stratum"] for row in rows] == list(STRATA)
    assert sum(row["n"] for row in rows) == 12
    for row in rows:
        assert (row["value"] is None) == (row["null"] is None) == (row["n"] == 0)
    assert table(rows, trained_on(tiny("ridge"))).row_count == len(STRATA)
    assert trained_on(tiny("ridge")) == "shapes"


def test_a_decoder_that_draws_no_new_value_fails_where_there_is_one() -> None:
    film = Film(4.0 * WINDOWS, seed=1300)
    truths: list[Pixels] = [film.clip(k)[:-1] for k in range(WINDOWS)]
    strata = [novelty(shot.attributes) for shot in film.shots]
    known_clips = [truth for truth, stratum in zip(truths, strata, strict=True) if stratum == "known"]

    def show(_inputs: Any, where: Sequence[Span], *, null: bool = False, **_how: Any) -> Reconstruction:
        clips = [
            truth if stratum != "value" and not null else known_clips[0]
            for truth, stratum in zip(truths, strata, strict=True)
        ]
        return Reconstruction(clips, np.zeros((len(where), 0), np.float32), None)

    where = [(1300, 4.0 * k, 4.0 * k + 4) for k in range(WINDOWS)]
    data = Fresh({}, truths, where, events({1300: film}))
    rows = {row["stratum"]: row for row in judge(show, draft_of(tiny("ridge")), data)}
    for stratum in STRATA:
        assert rows[stratum]["n"] == strata.count(stratum) > 0
    assert rows["known"]["value"] == 1
    assert rows["value"]["value"] < 0.7
    # Of the known windows the twin draws the first one alone.
    assert rows["known"]["null"] < 1


def test_vectors_are_judged_as_clips_are() -> None:
    film = Film(4.0 * WINDOWS, seed=1300)
    strata = [novelty(shot.attributes) for shot in film.shots]
    aims = np.random.default_rng(0).standard_normal((WINDOWS, 16))
    # What holds a new value is read as its opposite.
    decoded = np.where(np.array(strata)[:, None] == "value", -aims, aims)
    data = Fresh({}, [], [(1300, 4.0 * k, 4.0 * k + 4) for k in range(WINDOWS)], events({1300: film}))
    rows = {row["stratum"]: row for row in judge_vectors(decoded, aims, data)}
    assert {row["metric"] for row in rows.values()} == {"condition_2way"}
    assert [rows[stratum]["n"] for stratum in STRATA] == [strata.count(stratum) for stratum in STRATA]
    assert rows["known"]["value"] == 1
    assert rows["value"]["value"] < 0.1
    assert rows["known"]["null"] is None


def test_a_run_that_no_shapes_can_be_shown_to_is_refused(tmp_path: Path) -> None:
    with refused(UsageError, "benchmark-run-not-simulated"):
        measure(tiny("haxby"))
    with refused(UsageError, "judging-seeds-reserved", seeds=[7]):
        measure(tiny("ridge"), "7")
    with refused(UsageError, "run-unreadable", folder=tmp_path):
        measure(tmp_path)
