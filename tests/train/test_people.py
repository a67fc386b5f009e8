"""People who watch films: the features of what they saw are learned from others, and told on new films."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.run import run as export
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.released import song
from train import evaluate
from train.artifacts.run_folder import draft_of
from train.config.recipe import build, check, read
from train.config.run_files import read_run, weights
from train.data.sets.feature_runs import FeatureRuns
from train.models.ridge.held_out_people import HeldOutPeople
from train.run_recipe import main as train
from train.run_recipe import run as make_run

TWO_WAY = "identification_2way_features"
FILMS = {"alpha": 480, "beta": 400, "gamma": 320}
EVERYBODY = [f"sub-{number:03d}" for number in range(1, 6)]
# One has not seen the last film.
PEOPLE = {"alpha": EVERYBODY, "beta": EVERYBODY, "gamma": EVERYBODY[:4]}
SIZE = "system.features=6"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("song")
    song(folder, films=FILMS, people=PEOPLE, noise=6.0)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(["ridge", "target=features", f"data={data}", SIZE, f"out={out}"]) == 0
    return out


def test_features_of_an_unseen_film_are_told_in_unseen_people(run: Path) -> None:
    figure = read_run(run)["figures"][TWO_WAY]
    # Four people have seen the film that is judged, 80 windows each.
    assert figure["n"] == 320
    assert figure["ci95"][0] > 0.6
    assert figure["interval"]["units"] == 4
    assert abs(figure["shuffled"] - 0.5) < 0.03
    assert (figure["chance"], figure["constant"]) == (0.5, 0.0)
    assert read_run(run)["figures"]["identification_50way_features"]["value"] > 0.04


def test_who_lacks_the_film_is_left_out_and_counted(run: Path) -> None:
    tables = read_run(run)["tables"]
    assert [row["person"] for row in tables["people"]] == EVERYBODY[:4]
    division = tables["notes"][0]["note"]
    assert division == (
        "song: 5 people (alpha, beta) teach and 4 people (gamma) are judged; neither whoever is judged nor "
        "the film that is judged teaches; left out of the judging: sub-005 has no gamma."
    )
    notes = " ".join(row["note"] for row in tables["notes"])
    assert "scaled run by run" in notes


def test_the_judged_person_teaches_nothing(run: Path, data: Path, tmp_path: Path) -> None:
    films = song(tmp_path, films=FILMS, people=PEOPLE, noise=6.0)
    # The first person's brain is another one in every film.
    for film, arrays in films.items():
        changed = arrays["bold_i8"].copy()
        changed[0] = np.random.default_rng(1).integers(-40, 40, changed[0].shape)
        np.savez(tmp_path / f"song_{film}.npz", **(arrays | {"bold_i8": changed}))
    again = make_run("ridge", ["target=features", f"data={tmp_path}", SIZE, f"out={tmp_path / 'again'}"])
    maps = weights(again)["linear"]
    assert weights(run)["people"].tolist() == EVERYBODY[:4]
    np.testing.assert_array_equal(maps[0], weights(run)["linear"][0])
    assert not np.array_equal(maps[1], weights(run)["linear"][1])
    rows = read_run(again)["tables"]["people"]
    assert rows[0]["2-way"] < 0.6 < rows[1]["2-way"]


@pytest.mark.parametrize(
    ("leave_out", "teachers"),
    [
        ("person", {f"{who}/{film}" for film in FILMS for who in PEOPLE[film] if who != "sub-002"}),
        ("film", {f"{who}/{film}" for film in ("alpha", "beta") for who in EVERYBODY}),
        ("both", {f"{who}/{film}" for film in ("alpha", "beta") for who in EVERYBODY if who != "sub-002"}),
    ],
)
def test_person_film_or_both_are_left_out(data: Path, leave_out: Any, teachers: set[str]) -> None:
    division = FeatureRuns(leave_out=leave_out).opened(data)
    teaching = division.teachers("sub-002")
    assert {f"{run.subject}/{run.film}" for run in teaching} == teachers
    assert {run.film for run in division.judged} == {"gamma"}


def test_penalties_are_chosen_by_films_and_by_fifths_of_a_single_one(data: Path) -> None:
    several = FeatureRuns().opened(data)
    assert [several.folds(run)[0] for run in several.taught[:2]] == [0, 1]
    single = FeatureRuns(train="alpha").opened(data)
    assert np.bincount(single.folds(single.taught[0])).tolist() == [24] * 5


def test_brains_beside_the_features_of_another_film_are_at_chance(tmp_path: Path) -> None:
    films = song(tmp_path, films=FILMS, people=PEOPLE, noise=6.0)
    swapped = films["gamma"] | {"features": films["alpha"]["features"][: FILMS["gamma"]]}
    np.savez(tmp_path / "song_gamma.npz", **swapped)
    out = make_run("ridge", ["target=features", f"data={tmp_path}", SIZE, f"out={tmp_path / 'run'}"])
    figure = read_run(out)["figures"][TWO_WAY]
    assert 0.44 < figure["value"] < 0.56


def test_a_figure_for_which_no_film_is_long_enough_is_null_and_says_why(tmp_path: Path) -> None:
    # 40 windows of 4 s are not 50.
    song(tmp_path, films=FILMS | {"gamma": 160}, people=PEOPLE, noise=6.0)
    out = make_run("ridge", ["target=features", f"data={tmp_path}", SIZE, f"out={tmp_path / 'run'}"])
    figures = read_run(out)["figures"]
    assert figures[TWO_WAY]["n"] == 160
    missing = figures["identification_50way_features"]
    assert (missing["value"], missing["ci95"], missing["n"]) == (None, None, 0)
    assert "50 windows" in missing["reason"]


def test_a_finished_run_is_judged_again(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judged"
    assert evaluate.main([str(run), f"data={data}", f"out={out}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == read_run(run)["figures"]
    assert "sub-003" in (out / "index.html").read_text()
    alone = evaluate.evaluate(run, evaluate.Request(data=data, subject="sub-003"))
    assert alone[TWO_WAY]["n"] == 80
    # Of one person alone, blocks of ten windows are the units.
    assert alone[TWO_WAY]["interval"]["units"] == 8


def test_what_cannot_be_judged_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    with refused(UsageError, "evaluate-missing-data-set"):
        evaluate.evaluate(run, evaluate.Request())
    with refused(UsageError, "features-unknown-person", subject="sub-005", available=EVERYBODY[:4]):
        evaluate.evaluate(run, evaluate.Request(data=data, subject="sub-005"))
    with refused(UsageError, "evaluate-key-unread", unread=["published"]):
        evaluate.evaluate(run, evaluate.Request(data=data, published=True))
    song(tmp_path, films=FILMS, people=PEOPLE | {"beta": EVERYBODY[1:]})
    with refused(UsageError, "evaluate-features-mismatch", people=5):
        evaluate.evaluate(run, evaluate.Request(data=tmp_path))


def test_a_run_without_clips_has_no_bundle(run: Path, tmp_path: Path) -> None:
    with refused(UsageError, "run-draws-no-clips", folder=run):
        draft_of(run)
    with refused(UsageError, "run-draws-no-clips", folder=run):
        export(run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        # Who is named and lacks the film is refused, and not left out.
        (["data.subject=sub-001,sub-005"], "features-person-without-film", {"subject": "sub-005"}),
        (["data.subject=sub-005", "data.test=gamma"], "features-person-without-film", {"subject": "sub-005"}),
        (["data.subject=sub-009"], "data-unknown-subject", {"subjects": ["sub-009"]}),
        (["data.test=delta"], "split-unknown-run", {"runs": "delta"}),
        (["data.train=delta"], "split-unknown-run", {"runs": "delta"}),
        (["data.train=alpha,gamma", "data.test=gamma"], "features-film-on-both-sides", {"runs": ["gamma"]}),
        (["data.leave_out=nobody"], "features-leave-out-unknown", {"leave_out": "nobody"}),
        (["data.subject=sub-002"], "features-nobody-teaches", {"people": 0, "windows": 0}),
        (["data.test=alpha,beta,gamma"], "split-no-training", {}),
        (["system.features=7"], "features-too-few", {"available": 6}),
        (["system.features=2"], "features-count-invalid", {"features": 2}),
        (["judge.builder=held-out-runs"], "recipe-judge-unfit", {"system": "feature-ridge"}),
    ],
)
def test_what_cannot_be_learned_is_refused(
    data: Path, tmp_path: Path, changes: list[str], code: str, values: dict[str, Any]
) -> None:
    with refused(UsageError, code, **values):
        make_run("ridge", ["target=features", f"data={data}", SIZE, *changes, f"out={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_features_are_for_data_sets_that_have_them(data: Path, tmp_path: Path) -> None:
    with refused(UsageError, "recipe-features-need-data-set"):
        read("ridge", ["target=features"])
    with refused(UsageError, "recipe-features-unsupported", recipe="cinesync"):
        read("cinesync", ["target=features", f"data={data}"])
    with refused(UsageError, "recipe-target-unknown", target="sound"):
        read("ridge", ["target=sound", f"data={data}"])
    with refused(UsageError, "data-features-without-clips", layout="song"):
        make_run("ridge", [f"data={data}", f"out={tmp_path / 'run'}"])
    with refused(UsageError, "judge-needs-features"):
        HeldOutPeople().check(build(read("ridge", []).tree["data"]))


def test_the_recipe_binds_and_clips_keep_their_digest(data: Path) -> None:
    check(read("ridge", ["target=features", f"data={data}"]))
    check(read("ridge", ["target=features", f"data={data}", "scale=tiny"]))
    assert read("ridge", ["target=clips"]).digest == read("ridge", []).digest


# The figures that the data's own look prints for these twenty people: other people and another film teach.
@pytest.mark.parametrize(
    ("taught", "judged", "expected"),
    [
        ("sitcomep1", "sitcomep2", 0.625),
        pytest.param("sitcomep2", "sitcomep1", 0.644, marks=pytest.mark.full),
        pytest.param("documentary", "sitcomep1", 0.556, marks=pytest.mark.full),
        pytest.param("sitcomep1", "documentary", 0.566, marks=pytest.mark.full),
    ],
)
def test_real_people_are_told_as_well_as_in_the_first_look(
    data_root: Path, tmp_path: Path, taught: str, judged: str, expected: float
) -> None:
    out = tmp_path / "run"
    changes = [f"data.train={taught}", f"data.test={judged}", f"out={out}"]
    make_run("ridge", ["target=features", f"data={data_root / 'song'}", *changes])
    tree = read_run(out)
    figure = tree["figures"][TWO_WAY]
    assert figure["value"] == pytest.approx(expected, abs=0.01)
    assert figure["interval"]["units"] == 20
    assert figure["shuffled"] == pytest.approx(0.5, abs=0.01)
    notes = " ".join(row["note"] for row in tree["tables"]["notes"])
    for kind in ("scaled run by run", "filtered run by run"):
        assert re.search(f"{kind}: the same of 17 more", notes)
