"""Sessions of films as the recipe `compact` names them: who watches what, under which name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.brain import LEAD_S
from rtdecode.phantom.film.film import FPS
from tests.refusals import refused
from train.config.recipe import build, read
from train.config.run_context import RunContext
from train.config.training_films import TrainingFilm
from train.data.phantom import DISTURBANCES, ELECTRODE, Participant
from train.data.simulated import FilmSessions

SMALL = [
    "data.sessions=0-1",
    "data.free=40",
    "data.held=60-61",
    "data.controls=62",
    "data.presets=[easy, hard]",
    "data.seconds=20",
]
GENERATED_FILMS = (TrainingFilm("natural", "natural"), TrainingFilm("shapes", "shapes"))


def sessions_of(*settings: str) -> FilmSessions:
    return build(read("compact", [*SMALL, *settings]).tree)["data"]


def work(seed: int = 0) -> RunContext:
    return RunContext(None, seed, Path())


@pytest.fixture(scope="module")
def sessions() -> FilmSessions:
    """Two films that differ by seed, and one from a file, whose content nobody asks for."""
    data = sessions_of().with_films(GENERATED_FILMS)
    real = TrainingFilm("a.mp4", "/films/a.mp4", digest="0123456789abcdef" * 4)
    return FilmSessions(**(vars(data) | {"films": (*data.films, (real, 12.0))}))


def test_without_films_nothing_is_watched_and_the_recipe_says_what_is() -> None:
    data = sessions_of()
    assert data.films == ()
    assert data.shows == "natural,shapes,real"
    assert data.presets == ("easy", "hard")


def test_a_single_participant_needs_no_name() -> None:
    data = sessions_of()
    assert data.participants() == {"": data}
    (sessions,) = sessions_of("data.subject=3").participants().values()
    assert sessions.who == replace(data.who, subject=3)
    # An argument that came later: runs without it keep their digests.
    assert read("ridge", ["data.subject="]).digest == read("ridge", []).digest


def test_the_first_of_several_participants_is_as_it_would_be_alone() -> None:
    several = sessions_of("data.subject=2,5").with_films(GENERATED_FILMS).participants()
    assert [*several] == ["sub-02", "sub-05"]
    assert several["sub-02"] == sessions_of("data.subject=2").with_films(GENERATED_FILMS)


@pytest.mark.parametrize("kind", ["sessions", "free", "held", "controls"])
def test_participants_watch_the_same_films_and_have_stages_of_their_own(kind: str) -> None:
    first, second = sessions_of("data.subject=2,5").with_films(GENERATED_FILMS).participants().values()
    pairs = [*zip(first.showings(work(), kind), second.showings(work(), kind), strict=True)]
    assert pairs
    for showing, other in pairs:
        assert other.name == f"sub-05-{showing.name}"
        assert (other.title, other.seed, other.who.film) == (showing.title, showing.seed, showing.who.film)


def test_groups_of_participants_watch_films_of_their_own() -> None:
    alone = sessions_of("data.subject=2").with_films(GENERATED_FILMS)
    people = ("data.subject=2-5", "data.film_sets=2")
    first, second, third, fourth = sessions_of(*people).with_films(GENERATED_FILMS).participants().values()
    assert first == alone
    assert [showing.seed for showing in second.showings(work())] == [0, 1, 0, 1]
    for sessions in (third, fourth):
        assert [showing.seed for showing in sessions.showings(work(seed=3))] == [103, 104, 103, 104]
        assert sessions.seeds(work())["held"] == [160, 161]
    assert {showing.title for showing in third.showings(work())}.isdisjoint(
        showing.title for showing in first.showings(work())
    )
    # Films for judging are shown to nobody.
    with refused(UsageError, "training-seeds-invalid"):
        sessions_of(*people).check(work(seed=850))
    # An argument that came later: runs without it keep their digests.
    assert read("compact", ["data.film_sets=1"]).digest == read("compact", []).digest


@pytest.mark.parametrize("sets", [0, 3])
def test_there_is_somebody_in_every_group_who_watches_films_of_its_own(sets: int) -> None:
    with refused(UsageError, "data-film-sets-invalid", film_sets=sets, people=2):
        sessions_of("data.subject=2,5", f"data.film_sets={sets}")


def test_participants_have_noise_of_their_own_over_one_film() -> None:
    everybody = sessions_of("data.subject=2,5").with_films(GENERATED_FILMS).participants().values()
    first, second = (sessions.showings(work())[0].session() for sessions in everybody)
    assert np.array_equal(first.film.frames, second.film.frames)
    assert np.array_equal(first.features, second.features)
    # Before the film begins, the state is noise.
    frames = round(LEAD_S * FPS)
    noise = [session.state[:frames].ravel() for session in (first, second)]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1


def test_participants_are_named_once_and_numbered_from_one() -> None:
    with refused(UsageError, "simulated-participant-named-twice", participants="sub-02"):
        sessions_of("data.subject=1-2,2")
    with refused(UsageError, "phantom-subject-invalid", subject=0):
        sessions_of("data.subject=0-3")


def test_every_film_teaches_under_every_seed_at_the_preset_of_the_participant(sessions: FilmSessions) -> None:
    showings = sessions.showings(work())
    assert [showing.name for showing in showings] == [
        *("natural-0", "natural-1", "shapes-0", "shapes-1"),
        *("0123456789abcdef-0", "0123456789abcdef-1"),
    ]
    assert [showing.kind for showing in showings] == ["natural"] * 2 + ["shapes"] * 2 + ["real"] * 2
    assert {showing.who.preset for showing in showings} == {"easy"}
    assert [showing.who.film for showing in showings[::2]] == ["natural", "shapes", "/films/a.mp4"]
    assert [showing.seconds for showing in showings] == [20] * 4 + [12] * 2
    # A film that is drawn is another one under each seed, and one from a file is not.
    assert len({showing.title for showing in showings}) == 5
    assert sessions.left_out(work()).tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 6


def test_choices_rest_on_films_that_are_drawn_at_every_preset(sessions: FilmSessions) -> None:
    held_out = sessions.showings(work(), "held")
    assert {showing.kind for showing in held_out} == {"natural", "shapes"}
    # A brain is easily told from rest where every window begins with a cut, which no session promises.
    assert {showing.cuts for showing in held_out} == {"free"}
    assert {(showing.who.preset, showing.seed) for showing in held_out} == {
        (p, s) for p in ("easy", "hard") for s in (60, 61)
    }
    assert len({showing.name for showing in held_out}) == len(held_out) == 8
    twins = [showing for showing in held_out if showing.seed == 60 and showing.kind == "shapes"]
    assert [showing.name for showing in twins] == ["shapes-60", "shapes-60-hard"]
    assert twins[0].title == twins[1].title, "the same pictures, with more noise"


def test_films_of_shapes_alone_are_cut_freely(sessions: FilmSessions) -> None:
    (free,) = sessions.showings(work(), "free")
    assert (free.kind, free.seed, free.cuts) == ("shapes", 40, "free")
    assert all(showing.cuts == "grid" for showing in sessions.showings(work()))
    cuts = free.session().film.cut_frames
    assert (np.asarray(cuts) % 32).any()


def test_who_rests_sees_no_film_at_every_preset(sessions: FilmSessions) -> None:
    resting = sessions.showings(work(), "controls")
    assert [showing.name for showing in resting][:2] == ["none-62", "none-62-hard"]
    assert [showing.name for showing in resting][-2:] == ["none-62-magnet", "none-62-hard-magnet"]
    assert [showing.who.disturbance for showing in resting[::2]] == ["", *DISTURBANCES]
    assert {showing.who.film for showing in resting} == {"none"}
    frames = resting[0].session().film.frames
    assert not np.ptp(frames), "a grey screen"


def test_what_a_brain_looks_like_is_learned_undisturbed_and_with_what_a_session_may_suffer() -> None:
    sessions = sessions_of("data.presence=64", "data.seconds=400").with_films(GENERATED_FILMS)
    showings = sessions.showings(work(), "presence")
    assert {showing.setting for showing in showings} == {
        f"{preset} {what}".strip() for preset in ("easy", "hard") for what in ("", *DISTURBANCES)
    }
    assert len({showing.name for showing in showings}) == len(showings) == 2 * 2 * (1 + len(DISTURBANCES))
    assert {showing.cuts for showing in showings} == {"free"}
    assert {(bool(showing.who.disturbance), showing.seconds) for showing in showings} == {
        (False, 400),
        (True, 200),
    }


def test_each_disturbance_disturbs() -> None:
    """The one modality of what comes, the other one, or both are not as they are otherwise."""
    plain = Participant("easy", 1, film="natural").session(64, 16.0)
    for what in DISTURBANCES:
        other = Participant("easy", 1, film="natural", disturbance=what).session(64, 16.0)
        eeg = not np.array_equal(other.eeg(), plain.eeg())
        moved = other.path is not None
        assert eeg or moved or other.faults, what
    loose = Participant("easy", 1, film="natural", disturbance=ELECTRODE).session(64, 16.0).eeg()
    assert (loose != plain.eeg()).any(1).sum() == 1


def test_no_seed_serves_twice_or_judges() -> None:
    with refused(UsageError, "training-seeds-invalid"):
        sessions_of("data.controls=60").with_films(GENERATED_FILMS).check(work())
    with refused(UsageError, "training-seeds-invalid"):
        sessions_of().with_films(GENERATED_FILMS).check(work(950))
    assert [showing.seed for showing in sessions_of().with_films(GENERATED_FILMS).showings(work(100))] == [
        100,
        101,
    ] * 2


def test_what_is_said_of_the_data_names_films_by_their_content(sessions: FilmSessions) -> None:
    provenance = sessions.provenance(work())
    assert provenance["controls"] == [62]
    assert provenance["films"][0] == {"film": "natural", "seconds": 20}
    assert provenance["films"][2] == {"film": "a.mp4", "seconds": 12.0, "sha256": "0123456789abcdef" * 4}
    assert "/films" not in str(provenance)
