"""The film `natural`: the same at any size and length, cut where it is said to be, and cheap to draw."""

from functools import cache
from itertools import takewhile

import numpy as np
import pytest
from PIL import Image

from rtdecode.phantom.film import scene
from rtdecode.phantom.film.cuts import find_cuts
from rtdecode.phantom.film.natural import natural_frames, natural_shots
from rtdecode.phantom.film.scene import TICKS
from rtdecode.phantom.film.surfaces import Box, Surface, paint
from rtdecode.phantom.film.watched import Pictures, Watched, watched
from rtdecode.phantom.session import PhantomSession

SIZE = (64, 96)
FPS = 8


def firsts(seed: int, frames: int) -> list[int]:
    """The first frame of each shot, at the participant's rate."""
    starts = (-(-shot.first * FPS // TICKS) for shot in natural_shots(seed))
    return list(takewhile(lambda first: first < frames, starts))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Eighty seconds as the participant watches them."""
    return np.stack([*natural_frames(20, 640, SIZE, FPS)])


def test_a_seed_fixes_the_film_and_a_longer_one_begins_alike() -> None:
    short = np.stack([*natural_frames(3, 50, SIZE, FPS)])
    long = np.stack([*natural_frames(3, 90, SIZE, FPS)])
    assert np.array_equal(short, long[:50])
    assert np.abs(np.stack([*natural_frames(4, 50, SIZE, FPS)]).astype(int) - short).mean() > 20


@cache
def twenty_seconds() -> Watched:
    return watched("natural", 20.0, 3, "grid")


@pytest.mark.parametrize("size", [(128, 192), (96, 96), (40, 120)])
def test_any_instant_at_any_size_is_the_same_picture(size: tuple[int, int]) -> None:
    """Drawn larger, or of another form, and scaled down, it is what the participant watches."""
    film = twenty_seconds()
    other = np.stack([*film.resampled(size, 1)])
    assert other.shape == (20, *size, 3)
    for resized, watched_frame in zip(other, film.frames[::FPS], strict=True):
        resized_image = Image.fromarray(resized)
        watched_image = Image.fromarray(watched_frame)
        # What both show, at one size that is not finer than either.
        high, wide = size
        part = min(96 / wide, 64 / high)
        box = (48 - part * wide / 2, 32 - part * high / 2, 48 + part * wide / 2, 32 + part * high / 2)
        common = (wide * 16 // high, 16)
        both = [np.asarray(resized_image.resize(common, Image.Resampling.BOX), float)]
        both.append(np.asarray(watched_image.resize(common, Image.Resampling.BOX, box=box), float))
        assert np.abs(both[0] - both[1]).mean() < 8
        assert np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1] > 0.97


def test_most_cuts_are_found_and_no_other(frames: np.ndarray) -> None:
    true_cuts = set(firsts(20, len(frames))[1:])
    detected = set(find_cuts(frames).tolist())
    assert len(true_cuts) > 15
    assert len(true_cuts & detected) > 0.9 * max(len(true_cuts), len(detected))


def test_shots_last_as_long_as_in_real_films() -> None:
    """The median of the 164 shots found in real films is 2.5 s, the quartiles 1.6 and 4.4 s."""
    lengths = [shot.ticks / TICKS for shot, _ in zip(natural_shots(7), range(600), strict=False)]
    low, middle, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    assert 1.4 < low < 1.8
    assert 2.4 < middle < 3.0
    assert 4.0 < high < 5.2


def test_something_moves_in_most_shots_and_some_hold_still(frames: np.ndarray) -> None:
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((1, 2, 3))
    change = np.delete(change, np.array(firsts(20, len(frames))[1:]) - 1)
    assert 1 < change.mean() < 7
    assert 0.05 < (change < 1).mean() < 0.7


def test_surfaces_are_painted_once_a_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is what makes the film cheap: of each frame, only the view of them is drawn."""
    painted: list[Surface] = []

    def counted(surface: Surface, box: Box, density: float) -> Image.Image:
        painted.append(surface)
        return paint(surface, box, density)

    monkeypatch.setattr(scene, "paint", counted)
    np.stack([*natural_frames(20, 80, SIZE, FPS)])
    shots = [shot for shot, _ in zip(natural_shots(20), firsts(20, 80), strict=False)]
    assert painted == [surface for shot in shots for surface in shot.surfaces]


def test_near_surfaces_move_more_than_far_ones_when_the_camera_pans() -> None:
    shots = [shot for shot, _ in zip(natural_shots(1), range(60), strict=False)]
    assert sum(any(shot.camera.velocity) for shot in shots) > 5
    for shot in shots:
        nearness = [surface.near for surface in shot.surfaces]
        assert nearness == sorted(nearness)
        assert all(thing.behind <= len(shot.surfaces) for thing in shot.things)


def test_a_session_shows_it_and_its_seed_fixes_it() -> None:
    session = PhantomSession("easy", seconds=12.0, seed=5, film="natural")
    assert isinstance(session.film, Pictures)
    assert np.array_equal(session.film.frames, np.stack([*natural_frames(5, 96, SIZE, FPS)]))
    assert session.film_name == "natural"
    assert session.uid != PhantomSession("easy", seconds=12.0, seed=5).uid


def test_other_films_give_any_instant_at_any_size_too() -> None:
    shapes = watched("shapes", 8.0, 3, "grid")
    assert np.array_equal([*shapes.resampled(SIZE, FPS)], shapes.frames)
    large = np.stack([*shapes.resampled((128, 128), 24)])
    assert large.shape == (192, 128, 128, 3)
    # Scaled by two, and the sides cut off.
    assert np.array_equal(large[30, ::2, ::2], shapes.frames[10, :, 16:80])
    baseline = watched("none", 4.0, 0, "grid")
    grey = np.stack([*baseline.resampled((32, 32), 4)])
    assert (grey == 128).all()
    assert len(grey) == 16
