"""Head motion and delivery times of real sessions, played to the simulated scanner."""

import re
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from rtdecode.phantom.body.brain import TR
from rtdecode.phantom.body.played import played_delays, played_path
from rtdecode.phantom.session import PhantomSession
from rtdecode.types import Volume
from tests.refusals import refused


def table(path: Path, names: str, *rows: tuple[float | str, ...]) -> Path:
    lines = [names.replace(" ", "\t"), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_motion_table_is_played_backwards_at_its_end(tmp_path: Path) -> None:
    rows = [(0.5 + n, 0, 0, 0, 0, 0.01 * n) for n in range(3)]
    path = played_path(table(tmp_path / "m.tsv", "x y z pitch roll yaw", *rows), 8)
    assert path.shape == (8, 6)
    assert path[:, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    np.testing.assert_allclose(path[:, 5], 0.01 * path[:, 0])


def test_one_row_is_a_head_that_lies_still(tmp_path: Path) -> None:
    path = played_path(table(tmp_path / "m.tsv", "x y z pitch roll yaw", (1, 2, 3, 0, 0, 0)), 4)
    assert not path.any()


def test_times_are_scaled_to_the_tr_and_go_on_with_the_last_delay(tmp_path: Path) -> None:
    rows = [(10.0, 15.0), (12.0, 15.1), (14.0, 17.0)]
    delays = played_delays(table(tmp_path / "t.tsv", "acquired_s image_created_s", *rows), 5, 1.0)
    # Half the table's TR of 2 s: images at 2.5, 2.55 and 3.5 s of volumes that end at 1, 2 and 3 s.
    assert delays == pytest.approx([1.5, 0.55, 0.5, 0.5, 0.5])


MOTION = "x y z pitch roll yaw"
TIMES = "acquired_s image_created_s"


@pytest.mark.parametrize(
    ("names", "rows", "code", "values"),
    [
        (
            MOTION,
            [(0, 0, 0, 0, 0, 0), (0, 0, "n/a", 0, 0, 0)],
            "table-cell-not-number",
            {"location": re.compile(r"table\.tsv, line 3, z$"), "cell": "n/a"},
        ),
        (
            MOTION,
            [(0, 0, 0, 0, 0, 0), (0, 0, 0, 0)],
            "table-cell-not-number",
            {"location": re.compile(r"table\.tsv, line 3, roll$"), "cell": ""},
        ),
        (MOTION, [], "table-without-rows", {}),
        ("x y z", [(0, 0, 0)], "table-missing-columns", {"missing_columns": ["pitch", "roll", "yaw"]}),
        (
            TIMES,
            [(0, 1), (2, 3), (6, 7), (8, 9)],
            "delay-table-irregular",
            {"line": 4, "acquired_s": 2.0, "next_acquired_s": 6.0, "tr_s": 2.0},
        ),
        (
            TIMES,
            [(0, 1), (0, 1), (0, 1)],
            "delay-table-irregular",
            {"acquired_s": 0.0, "next_acquired_s": 0.0},
        ),
        (TIMES, [(0, 1)], "delay-table-too-short", {}),
        (
            TIMES,
            [(0, 1), (2, "inf")],
            "table-cell-not-number",
            {"location": re.compile(r"table\.tsv, line 3, image_created_s$"), "cell": "inf"},
        ),
    ],
)
def test_a_table_with_a_gap_is_refused_by_its_line(
    names: str,
    rows: list[tuple[float | str, ...]],
    code: str,
    values: dict[str, object],
    tmp_path: Path,
) -> None:
    file = table(tmp_path / "table.tsv", names, *rows)
    with refused(UsageError, code, **values):
        played_path(file, 9) if names != TIMES else played_delays(file, 9, 1.0)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    with refused(
        UsageError, "phantom-table-missing", option="--motion", path="jerky", available=["still", "typical"]
    ):
        PhantomSession("easy", motion="jerky")
    with refused(UsageError, "phantom-table-missing", option="--delivery", path="late", available=["steady"]):
        PhantomSession("easy", delivery="late")
    (tmp_path / "film.mp4").write_bytes(b"\xff\xfe\x00")
    with refused(UsageError, "table-unreadable", path=tmp_path / "film.mp4"):
        PhantomSession("easy", motion=str(tmp_path / "film.mp4"))


def test_no_volume_of_a_recorded_delivery_is_lost_or_early(data_root: Path) -> None:
    files = sorted((data_root / "scan-times").glob("*.tsv"))
    assert len(files) == 104
    for file in files:
        session = PhantomSession("easy", seconds=300, delivery=str(file))
        arrivals = session.arrivals()
        assert sorted(index for _, index, _ in arrivals) == list(range(session.volumes))
        least = session.vendor.transfer_s
        delays = np.array(session.delays)
        assert (delays >= least - 1e-9).all()
        created = np.loadtxt(file, skiprows=1)[: session.volumes, 1]
        due = np.array([session.due_s(n) for n in range(len(created))])
        earliest = due - delays[: len(created)] + least
        # One after the other, a millisecond apart at least.
        assert np.abs(due - np.maximum(created * TR / 1.28, earliest)).max() < 0.04


def test_every_recorded_head_can_be_played(data_root: Path) -> None:
    files = sorted((data_root / "motion").glob("*.tsv"))
    assert len(files) == 74
    for file in files:
        session = PhantomSession("easy", seconds=400, motion=str(file))
        assert session.path is not None
        motion = np.loadtxt(file, skiprows=1)
        assert session.motion == file.name
        np.testing.assert_allclose(session.path[: len(motion)], motion - motion[0])
        assert np.abs(np.diff(session.path, axis=0)).max() <= np.abs(np.diff(motion, axis=0)).max() + 1e-12


def test_a_table_moves_the_head_and_delays_the_files(tmp_path: Path) -> None:
    motion = table(tmp_path / "m.tsv", MOTION, (0, 0, 0, 0, 0, 0), (0, 0, 3, 0, 0, 0))
    times = table(tmp_path / "t.tsv", TIMES, (0, 4), (1, 4), (2, 4), (3, 4))
    session = PhantomSession("easy", seconds=4, motion=str(motion), delivery=str(times))
    still = PhantomSession("easy", seconds=4)
    volumes = [item for item in session.events() if isinstance(item, Volume)]
    assert [volume.index for volume in volumes] == list(range(session.volumes))
    # Four images are finished at once, at 4 of the table's seconds, where the transfer takes no longer.
    readable = [volume.readable_at - volumes[0].readable_at for volume in volumes[:4]]
    assert readable == pytest.approx([0, 0.001, 0.002, session.vendor.transfer_s], abs=1e-6)
    assert np.array_equal(volumes[0].data, session.scanner.volume(0))
    difference = np.abs(session.scanner.volume(1).astype(int) - still.scanner.volume(1)).mean()
    assert difference > 5 * np.abs(session.scanner.volume(0).astype(int) - still.scanner.volume(0)).mean()
