"""Sound is cut where windows lie, whatever rate and channels a film's file has."""

import io
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data.layouts.laboratory import add_sound, heard_hz, tone, write_film
from train.data.layouts.film_sound import SOUND_HZ, film_sound, has_sound

SECONDS = 6


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In second n a tone of 400 (n + 1) Hz on the left; none before 0.25 s; the right is silent."""
    left_channel = np.concatenate([tone(400 * (n + 1), 1) for n in range(SECONDS)])
    left_channel[: 44_100 // 4] = 0
    path = write_film(tmp_path_factory.mktemp("film") / "film.mp4", SECONDS)
    return add_sound(path, np.stack([left_channel, np.zeros_like(left_channel)]))


def test_each_clip_has_the_sound_of_its_time(film: Path) -> None:
    sounds = film_sound(film, [3.5, 1.0, 0.0], 1.0)
    assert sounds.shape == (3, SOUND_HZ)
    assert sounds.dtype == np.float32
    half = SOUND_HZ // 2
    tones_hz = [
        heard_hz(sounds[0][:half]),
        heard_hz(sounds[0][half:]),
        heard_hz(sounds[1]),
        heard_hz(sounds[2]),
    ]
    np.testing.assert_allclose(tones_hz, [1600, 2000, 800, 400], atol=3)
    # The mean of both channels, of which one is silent.
    assert 0.23 < np.abs(sounds[1][half:]).max() < 0.3
    begins = np.flatnonzero(np.abs(sounds[2]) > 0.1)[0] / SOUND_HZ
    assert begins == pytest.approx(0.25, abs=0.004)


def test_content_is_read_as_its_file(film: Path) -> None:
    content = io.BytesIO(film.read_bytes())
    np.testing.assert_array_equal(film_sound(content, [2.0], 2.0), film_sound(film, [2.0], 2.0))


def test_behind_the_end_and_without_a_track_there_is_silence(film: Path, tmp_path: Path) -> None:
    sound = film_sound(film, [SECONDS - 1.0], 2.0)[0]
    assert heard_hz(sound[: SOUND_HZ // 2]) == pytest.approx(400 * SECONDS, abs=3)
    assert not sound[int(1.1 * SOUND_HZ) :].any()
    silent = write_film(tmp_path / "silent.mp4", 2)
    assert has_sound(film)
    assert not has_sound(silent)
    assert not film_sound(silent, [0.0, 1.0], 1.0).any()


def test_what_is_no_film_is_named(tmp_path: Path) -> None:
    note = tmp_path / "note.mp4"
    note.write_text("this is no film")
    with refused(UsageError, "film-unreadable", path=note):
        film_sound(note, [0.0], 1.0)
    with refused(UsageError, "film-unreadable", path="clip 7"):
        has_sound(io.BytesIO(b"this is no film"), "clip 7")
