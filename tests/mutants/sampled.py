"""A sample of all small changes to the modules that everything rests on: which do the tests not notice?

python -m tests.mutants.sampled OUT.jsonl [--seed 0] [--workers 2] [--minutes 60] [--only PREFIX[,PREFIX]]

The changes are those of cosmic-ray (the extra ``mutation``): another operator, another number, a loop that
does not run, an exception that is not caught. Each is made in a copy, and the narrow tests of its module are
run until one fails. A line is written for each: module, line, what was changed, and whether it survived.
With ``--only`` those of the sample are judged whose module begins with one of the prefixes.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.mutants import ROOT, copied

# What a change may cost, s: one that never ends is noticed too.
_LIMIT_S = 300.0
# X | None in a signature is no computation: to change it is noticed by the import alone.
_LEFT_OUT = ("BitOr", "ExceptionReplacer")

# How many of the changes fall to a module, or to all modules of a folder.
COUNTS = {
    "rtdecode/scores/accuracy.py": 30,
    "rtdecode/scores/intervals.py": 20,
    "rtdecode/scores/reliability.py": 12,
    "rtdecode/scores/ties.py": 8,
    "rtdecode/clocks/run_clock.py": 30,
    "streaming/sinks/accuracy.py": 14,
    "streaming/sources/folder/volume_assembler.py": 26,
    "streaming/sources/folder/source.py": 22,
    "rtdecode/signal/": 60,
    "rtdecode/bundle/folder.py": 10,
    "rtdecode/windows/assembler.py": 8,
    "rtdecode/windows/head.py": 4,
    "rtdecode/signal/rings.py": 4,
    "rtdecode/windows/run.py": 8,
    "rtdecode/windows/run_sorter.py": 4,
    "rtdecode/windows/saturation.py": 3,
    "rtdecode/windows/volume_validity.py": 3,
    "rtdecode/clocks/arrivals.py": 4,
    "rtdecode/clocks/lines.py": 4,
    "rtdecode/clocks/placement.py": 4,
    "rtdecode/clocks/sample_clock.py": 5,
    "rtdecode/clocks/triggers.py": 5,
}
_HEART = ["rtdecode/signal/heartbeat/test_remover.py"]
_GRADIENT = ["rtdecode/signal/gradient/test_remover.py"]
_WINDOWS = [f"rtdecode/windows/test_{name}.py" for name in ("run", "refined", "head", "assembler")]
_CLOCKS = ["rtdecode/clocks/test_run_clock.py", "rtdecode/clocks/test_triggers.py"]
_FOLDER = [f"streaming/sources/folder/test_{name}.py" for name in ("source", "slices", "faults", "growing")]
# The tests that are asked about each module, in the folder of tests; the quickest first.
TESTS = {
    "rtdecode/scores/intervals.py": ["rtdecode/scores/test_intervals.py"],
    "rtdecode/scores/reliability.py": ["rtdecode/scores/test_reliability.py"],
    "rtdecode/scores/ties.py": ["rtdecode/scores/test_ties.py"],
    "rtdecode/scores/accuracy.py": ["rtdecode/scores/test_accuracy.py", "streaming/sinks/test_accuracy.py"],
    "rtdecode/clocks/run_clock.py": ["rtdecode/clocks/test_run_clock.py", "rtdecode/clocks/test_triggers.py"],
    "streaming/sinks/accuracy.py": ["streaming/sinks/test_accuracy.py", "streaming/sinks/test_truth.py"],
    "streaming/sources/folder/volume_assembler.py": [
        "streaming/sources/folder/test_volume_assembler.py",
        "streaming/sources/formats/test_slices.py",
        "streaming/sources/folder/test_slices.py",
    ],
    "streaming/sources/folder/source.py": [
        "streaming/sources/folder/test_source.py",
        "streaming/sources/folder/test_slices.py",
        "streaming/sources/folder/test_faults.py",
        "streaming/sources/folder/test_growing.py",
    ],
    "rtdecode/signal/eeg/badchannels.py": ["rtdecode/signal/eeg/test_badchannels.py"],
    "rtdecode/signal/volume/baseline.py": [
        "rtdecode/signal/volume/test_baseline.py",
        "rtdecode/signal/eeg/test_band.py",
    ],
    "rtdecode/signal/heartbeat/beats.py": _HEART,
    "rtdecode/signal/eeg/decimate.py": ["rtdecode/signal/eeg/test_decimate.py"],
    "rtdecode/signal/eeg/band.py": ["rtdecode/signal/eeg/test_band.py", "rtdecode/eeg/test_stream.py"],
    "rtdecode/signal/gradient/remover.py": _GRADIENT,
    "rtdecode/signal/gradient/follower.py": _GRADIENT,
    "rtdecode/signal/gradient/template.py": _GRADIENT,
    "rtdecode/signal/gradient/timing.py": _GRADIENT,
    "rtdecode/signal/heartbeat/remover.py": _HEART,
    "rtdecode/signal/volume/motion.py": ["rtdecode/signal/volume/test_motion.py"],
    "rtdecode/signal/heartbeat/match.py": _HEART,
    "rtdecode/signal/heartbeat/wave.py": _HEART,
    "rtdecode/signal/volume/register.py": ["rtdecode/signal/volume/test_register.py"],
    "rtdecode/signal/eeg/regress.py": _HEART,
    "rtdecode/signal/volume/rigid.py": [
        "rtdecode/signal/volume/test_register.py",
        "rtdecode/signal/volume/test_motion.py",
    ],
    "rtdecode/signal/heartbeat/rpeaks.py": _HEART,
    "rtdecode/signal/volume/run_quality.py": ["rtdecode/signal/volume/test_run_quality.py"],
    "rtdecode/signal/volume/projection.py": [
        "rtdecode/signal/eeg/test_band.py",
        "rtdecode/signal/volume/test_projection.py",
    ],
    "rtdecode/bundle/folder.py": ["rtdecode/bundle/test_folder.py"],
    "rtdecode/windows/assembler.py": _WINDOWS,
    "rtdecode/windows/head.py": ["rtdecode/windows/test_head.py", "rtdecode/windows/test_assembler.py"],
    "rtdecode/signal/rings.py": ["rtdecode/signal/test_rings.py", *_WINDOWS],
    "rtdecode/windows/run.py": _WINDOWS,
    "rtdecode/windows/run_sorter.py": _WINDOWS,
    "rtdecode/windows/saturation.py": ["rtdecode/windows/test_run.py"],
    "rtdecode/windows/volume_validity.py": ["rtdecode/windows/test_volume_validity.py", *_WINDOWS],
    "rtdecode/clocks/arrivals.py": ["rtdecode/clocks/test_arrivals.py", *_CLOCKS],
    "rtdecode/clocks/lines.py": _CLOCKS,
    "rtdecode/clocks/placement.py": ["rtdecode/clocks/test_placement.py", "rtdecode/eeg/test_stream.py"],
    "rtdecode/clocks/sample_clock.py": [
        "rtdecode/clocks/test_sample_clock.py",
        "rtdecode/clocks/test_placement.py",
    ],
    "rtdecode/clocks/triggers.py": _CLOCKS,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the operator's n-th place in a module, and the line it begins in."""

    module: str
    operator: str
    occurrence: int
    line: int


def changes(module: str) -> Iterator[Change]:
    """Every change that can be made to a module."""
    tree = get_ast((ROOT / module).read_text())
    for name in operator_names():
        if any(word in name for word in _LEFT_OUT) or get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = (position for node in ast_nodes(tree) for position in operator.mutation_positions(node))
        for occurrence, ((line, _), _) in enumerate(places):
            yield Change(module, name, occurrence, line)


def sample(seed: int) -> list[Change]:
    """Draw from each module or folder its count, in an order of which any beginning holds a share of each."""
    ranked: list[tuple[float, Change]] = []
    for place, count in COUNTS.items():
        modules = [module for module in TESTS if module.startswith(place)]
        pool = [change for module in modules for change in changes(module)]
        chosen = random.Random(f"{Path(place).stem} {seed}").sample(pool, count)
        ranked += [(rank / count, change) for rank, change in enumerate(chosen)]
    return [change for _, change in sorted(ranked, key=lambda pair: pair[0])]


def survives(tree: Path, change: Change) -> tuple[bool, str]:
    """Whether a change passes its module's tests in a tree, and its new line; the tree is as before after."""
    file = tree / change.module
    before = file.read_text()
    after = mutate_code(before, get_operator(change.operator)(), change.occurrence)
    assert after is not None
    file.write_text(after)
    try:
        return _passing(tree, TESTS[change.module]), after.splitlines()[change.line - 1].strip()
    finally:
        file.write_text(before)


def _passing(tree: Path, tests: list[str]) -> bool:
    paths = [f"tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not full", *paths]
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    # A group of its own: what a test started ends with it.
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(command, cwd=tree, env=environment, start_new_session=True, **quiet)
    try:
        return run.wait(_LIMIT_S) == 0
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return False


def _told(tree: Path, change: Change) -> dict[str, Any]:
    survived, line = survives(tree, change)
    return asdict(change) | {"new": line, "survived": survived}


def _judged(pending: list[Change], out: Path, workers: int, until: float) -> None:
    """Judge changes, each worker in a tree of its own, and add a line for each to a file."""
    write = Lock()

    def work(number: int, tree: Path) -> None:
        for change in pending[number::workers]:
            if time.monotonic() > until:
                return
            entry = _told(tree, change)
            with write, out.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(workers) as pool:
        trees = [copied(ROOT, Path(scratch).resolve() / str(number)) for number in range(workers)]
        list(pool.map(work, range(workers), trees))


def main() -> int:
    """Judge what OUT does not hold yet, and print the score of all that it holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.sampled", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further change after that")
    parser.add_argument(
        "--only", type=lambda text: tuple(text.split(",")), default=("",), metavar="PREFIX[,PREFIX]"
    )
    args = parser.parse_args()
    if strange := [prefix for prefix in args.only if not any(module.startswith(prefix) for module in TESTS)]:
        parser.error(f"no module begins with {', '.join(strange)}")
    args.out.touch()
    before = [json.loads(line) for line in args.out.read_text().splitlines()]
    finished = {(entry["module"], entry["operator"], entry["occurrence"]) for entry in before}
    pending = [
        change
        for change in sample(args.seed)
        if change.module.startswith(args.only)
        and (change.module, change.operator, change.occurrence) not in finished
    ]
    _judged(pending, args.out, args.workers, time.monotonic() + 60 * args.minutes)
    entries = [json.loads(line) for line in args.out.read_text().splitlines()]
    survivors = [entry for entry in entries if entry["survived"]]
    # A survivor proves that the tests of its module pass; elsewhere they are run without any change.
    unproven = {entry["module"] for entry in entries} - {entry["module"] for entry in survivors}
    failing = [module for module in sorted(unproven) if not _passing(ROOT, TESTS[module])]
    if failing:
        raise SystemExit(f"the tests of {', '.join(failing)} fail without any change. Mend those first.")
    print(f"{len(entries) - len(survivors)} of {len(entries)} noticed; each has a line in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
