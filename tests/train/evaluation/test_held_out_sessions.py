"""Windows of an evaluation are drawn by a fixed seed, in stretches, from all sessions."""

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.film.watched import Pictures
from rtdecode.scores.intervals import BLOCK
from tests.refusals import refused
from train.evaluation.film_scores import describe
from train.evaluation.held_out_sessions import check_windows, draw_windows

FRAMES = 8


def test_every_session_gives_a_share_in_stretches_of_neighbours() -> None:
    assert [rows.tolist() for rows in draw_windows([3, 4], None)] == [[0, 1, 2], [0, 1, 2, 3]]
    rows = draw_windows([100, 7, 95], 67)
    # The short one gives all it has, and the others the rest.
    assert [len(session_rows) for session_rows in rows] == [30, 7, 30]
    for session_rows in rows:
        assert (np.diff(session_rows) > 0).all()
    starts = rows[0][np.diff(rows[0], prepend=-2) != 1]
    assert (starts % BLOCK == 0).all()
    assert {*(rows[0] // BLOCK)} != {0, 1, 2}
    # Drawn again, it is the same.
    assert all(np.array_equal(a, b) for a, b in zip(rows, draw_windows([100, 7, 95], 67), strict=True))
    np.testing.assert_array_equal(*draw_windows([50, 50], 31, same=True))
    assert sum(map(len, draw_windows([9, 11], 20))) == 20


@pytest.mark.parametrize("windows", [3, 201, 0, -4, 40.0, True, "all"])
def test_windows_that_are_not_there_are_refused(windows: int) -> None:
    with refused(UsageError, "evaluation-windows-unavailable", available=200, least=4, sessions=2):
        check_windows(windows, [100, 100])


def test_drawn_windows_are_described_as_those_of_the_whole_film() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (10 * FRAMES, 16, 24, 3), np.uint8)
    # At the start of window 3, within windows 5 and 6, and behind the drawn windows.
    cuts = np.array([3 * FRAMES, 5 * FRAMES + 2, 6 * FRAMES + 7, 9 * FRAMES])
    film = Pictures(frames, cuts, window=FRAMES)
    spans = [(0, float(k), float(k + 1)) for k in range(10)]
    rows = np.array([3, 4, 6, 7])
    full = describe(film, spans)
    part = describe(film, [spans[row] for row in rows], rows=rows)
    for clip, row in zip(part.clips, rows, strict=True):
        np.testing.assert_array_equal(clip, full.clips[row])
    np.testing.assert_array_equal(part.within, full.within[rows])
    np.testing.assert_array_equal(part.looks.colours, full.looks.colours[rows])
    np.testing.assert_array_equal(part.allowed, full.allowed[np.ix_(rows, rows)])
    # The first window begins with no cut; where a window is left out, two shots meet.
    assert part.cuts == [2 * FRAMES, 2 * FRAMES + 7]
    assert describe(film, spans, rows=np.arange(10)).cuts == full.cuts == film.cut_frames[1:].tolist()
