import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import ATTRIBUTES, BACKGROUNDS, COLORS, Film, render
from tests.refusals import refused


def test_a_grid_film_cuts_every_four_seconds() -> None:
    film = Film(60, seed=5)
    assert film.frames.shape == (480, 64, 96, 3)
    assert [shot.onset for shot in film.shots] == [4.0 * k for k in range(15)]
    assert film.windows == 15


def test_the_last_shot_ends_with_the_film() -> None:
    film = Film(10, seed=5)
    assert [shot.duration for shot in film.shots] == [4.0, 4.0, 2.0]
    assert len(film.frames) == 80


@pytest.mark.parametrize("cuts", ["grid", "free"])
def test_a_clip_is_the_window_and_one_more_instant_of_its_last_shot(cuts: str) -> None:
    film = Film(40, seed=6, cuts=cuts)
    for k in range(film.windows):
        clip = film.clip(k)
        assert np.array_equal(clip[:32], film.frames[32 * k : 32 * k + 32])
        shot = [shot for shot in film.shots if shot.first <= 32 * k + 31][-1]
        assert np.array_equal(clip[32], render(shot, 32 * k + 33 - shot.first)[-1])


def test_free_cuts_cover_the_film_without_a_hole() -> None:
    film = Film(300, seed=7, cuts="free")
    ends = [shot.first + shot.frames for shot in film.shots]
    assert [0, *ends[:-1]] == [shot.first for shot in film.shots]
    durations = np.array([shot.duration for shot in film.shots[:-1]])
    assert durations.min() >= 1.5
    assert 3 < durations.mean() < 5


def test_same_seed_same_bits_and_another_seed_another_film() -> None:
    assert np.array_equal(Film(20, 3).frames, Film(20, 3).frames)
    assert Film(20, 3).shots != Film(20, 4).shots


def test_attributes_are_drawn_evenly_and_independently() -> None:
    shots = [shot for seed in range(8) for shot in Film(600, seed).shots]
    for name, values in ATTRIBUTES.items():
        counts = Counter(getattr(shot, name) for shot in shots)
        assert set(counts) == set(values)
        assert max(counts.values()) < 1.5 * min(counts.values())
    same = np.mean([a.background == b.background for a, b in pairwise(shots)])
    assert abs(same - 0.2) < 0.05


def test_attributes_can_be_read_off_the_pixels() -> None:
    film = Film(200, seed=8)
    for shot in film.shots:
        picture = render(shot, 33)[16].astype(float)
        row, col = (round(value) for value in shot.center)
        shape_color = picture[row - 3 : row + 4, col - 3 : col + 4].mean(axis=(0, 1))
        assert _closest(shape_color, COLORS) == shot.color
        corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert _closest(np.median(corners, axis=0), BACKGROUNDS) == shot.background


def test_the_shape_moves_as_its_direction_says() -> None:
    for shot in Film(200, seed=9).shots:
        frames = render(shot, 33).astype(float)
        away = np.abs(frames - np.array(COLORS[shot.color])).sum(axis=-1)
        row, col = np.mgrid[0:64, 0:96]
        near = away < np.quantile(away, 0.03, axis=(1, 2), keepdims=True)
        first, last = ((np.mean(row[near[i]]), np.mean(col[near[i]])) for i in (4, 28))
        angle = np.arctan2(first[0] - last[0], last[1] - first[1])
        expected = ATTRIBUTES["direction"].index(shot.direction) * np.pi / 4
        assert np.cos(angle - expected) > 0.7


def test_events_name_every_shot(tmp_path: Path) -> None:
    film = Film(30, seed=3)
    film.write_events(tmp_path / "events.tsv")
    with (tmp_path / "events.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["onset", "duration", "trial_type", *ATTRIBUTES]
    assert [float(row["onset"]) for row in rows] == [shot.onset for shot in film.shots]
    assert [row["background"] for row in rows] == [shot.background for shot in film.shots]


def test_a_film_says_what_it_cannot_be() -> None:
    with refused(UsageError, "film-cuts-unknown", cuts="sometimes"):
        Film(10, 1, cuts="sometimes")
    with refused(UsageError, "film-under-one-frame", frame_s=0.125, duration_s=0):
        Film(0, 1)


def _closest(value: np.ndarray, table: dict[str, tuple[int, int, int]]) -> str:
    unit = value / np.linalg.norm(value)
    return max(table, key=lambda name: float(unit @ table[name] / np.linalg.norm(table[name])))
