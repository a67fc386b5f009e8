"""The attacks on the product: a little of them, and that they notice what they are there to notice."""

import io
import json
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.running import PARTS as PROCESSES
from tests.hostile import cases
from tests.hostile.__main__ import attack, figures, missed
from tests.hostile.cases import PARTS, Outcome, Rng

NO_KILLS = tuple(part for part in PARTS if part != "kills")


def test_seconds_of_mutated_inputs_find_nothing(tmp_path: Path) -> None:
    results = attack(0.04, 0, tmp_path, parts=NO_KILLS)
    assert not results["failed"], "\n".join(results["failed"])
    assert missed(results) == []
    counts = ("mutated_volumes", "damaged_recordings", "replayed", "stream_descriptions", "announced")
    assert all(results[name] > 0 for name in counts)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
@pytest.mark.timed
@pytest.mark.timeout(1800)
def test_five_minutes_with_killed_processes_find_nothing(tmp_path: Path) -> None:
    results = attack(5.0, 1, tmp_path)
    assert not results["failed"], "\n".join(results["failed"])
    assert missed(results) == []
    assert results["kills"] >= 6
    assert results["recordings_opened"] == results["recordings"] > 0


def clean() -> dict:
    live = {"sessions": 2, "kills": 3, "recordings": 2, "recordings_opened": 2}
    return figures({part: Outcome(dict(live) if part == "kills" else {"cases": 1}) for part in PARTS})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recordings_opened", 1),
        ("lost_s_max", 1.01),
        ("tracebacks", 1),
        ("peak_mb", 1501),
        ("failed", ["something"]),
    ],
)
def test_each_bar_is_missed_alone(name: str, value: object) -> None:
    assert missed(clean()) == []
    assert len(missed(clean() | {name: value})) == 1


def test_a_case_that_raises_is_told_and_its_files_are_kept(tmp_path: Path) -> None:
    def case(folder: Path, rng: Rng, number: int) -> list[str]:
        (folder / "input").write_text(str(number))
        if number == 1:
            raise RuntimeError("of the product")
        return ["a fault"] if number == 2 else []

    out = io.StringIO()
    cases.work("volumes", case, 7, 0, 3, tmp_path, out)
    ended = [line for line in map(json.loads, out.getvalue().splitlines()) if "ends" in line]
    assert [len(line["faults"]) for line in ended] == [0, 1, 1]
    assert cases.TRACEBACK in ended[1]["faults"][0]
    assert (tmp_path / "volumes-7-1" / "input").read_text() == "1"
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["volumes-7-1.txt", "volumes-7-2.txt"]


def test_cases_are_the_same_for_one_seed_and_others_for_another() -> None:
    def draws(seed: int, part: str, number: int) -> bytes:
        return cases.generator(seed, part, number).bytes(8)

    assert draws(0, "streams", 3) == draws(0, "streams", 3)
    names = [(0, "streams", 3), (1, "streams", 3), (0, "volumes", 3), (0, "streams", 4)]
    assert len({draws(*name) for name in names}) == len(names)


def test_memory_that_grows_by_more_than_a_share_or_some_megabytes_fails() -> None:
    steady = {part: [100.0] * 60 for part in PROCESSES}
    assert all(soak.judged(steady)["passed"].values())
    small = soak.judged(steady | {"page": [60.0] * 59 + [64.9]})
    assert small["passed"]["page"]
    assert small["bar_mb"]["page"] == pytest.approx(5.0)
    grown = soak.judged(steady | {"session": [50.0] * 9 + [400.0] * 50 + [421.0]})
    assert grown["early_minute"] == 10
    assert grown["passed"] == {"session": False, "acquisition": True, "page": True}
    shrunk = soak.judged(steady | {"acquisition": [400.0] * 59 + [370.0]})
    assert not shrunk["passed"]["acquisition"]
