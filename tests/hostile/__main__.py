"""python -m tests.hostile [--minutes 15] [--json]: attack the product, and judge what comes of it.

Fifteen minutes are 20 killed processes, 5,000 mutated volumes, 500 damaged recordings (25 are replayed) and
500 stream descriptions; other minutes are as much more or less of each. A bar that is missed makes the exit
code 1. A case that fails leaves its files in the folder of --keep, and says the command that repeats it.
"""

import argparse
import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.result_files import RESULTS, write
from tests.hostile import cases, kills, volumes
from tests.hostile.cases import PARTS, PEAK_MB, TRACEBACK, Outcome
from tests.hostile.recordings import is_replayed
from tests.hostile.streams import is_announced

ROOT = Path(__file__).parents[2]
_OUT = RESULTS / "hostile.json"
MINUTES = 15.0
KILLS = 20
VOLUMES = 5000
RECORDINGS = 500
STREAMS = 500


def attack(minutes: float, seed: int, keep: Path, *, parts: tuple[str, ...] = PARTS) -> dict[str, Any]:
    """Run the parts, and return the counts and figures, with what went wrong under ``failed``."""
    share = minutes / MINUTES
    outcomes = {part: Outcome() for part in PARTS}
    counts = {"volumes": VOLUMES // volumes.MUTATED, "recordings": RECORDINGS, "streams": STREAMS}
    for part, full in counts.items():
        if part in parts:
            outcomes[part] = cases.run(part, seed, 0, max(1, round(share * full)), keep, say)
            say(f"{part}: {len(outcomes[part].faults)} faults in {outcomes[part].counts['cases']} cases")
    if "kills" in parts:
        outcomes["kills"] = kills.run(max(1, round(share * KILLS)), seed, keep, say)
    return figures(outcomes)


def figures(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Put the outcomes of the parts together."""
    live = outcomes["kills"].counts
    done = {part: outcome.counts.get("cases", 0) for part, outcome in outcomes.items()}
    faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
    return {
        "sessions": live.get("sessions", 0),
        "kills": live.get("kills", 0),
        "recordings_opened": live.get("recordings_opened", 0),
        "lost_s_max": round(outcomes["kills"].lost_s, 3),
        "tracebacks": sum(TRACEBACK in fault for fault in faults),
        "peak_mb": round(max(outcome.peak_mb for outcome in outcomes.values())),
        # Beside these: what was tried without a session, and what went wrong.
        "recordings": live.get("recordings", 0),
        "mutated_volumes": done["volumes"] * volumes.MUTATED,
        "damaged_recordings": done["recordings"],
        "replayed": sum(is_replayed(number) for number in range(done["recordings"])),
        "stream_descriptions": done["streams"],
        "announced": sum(is_announced(number) for number in range(done["streams"])),
        "failed": faults,
    }


def missed(results: dict[str, Any]) -> list[str]:
    """Name the bars that are missed."""
    lost_s = results["lost_s_max"]
    bars = {
        f"{results['recordings_opened']} of {results['recordings']} recordings of killed sessions open": (
            results["recordings_opened"] < results["recordings"]
        ),
        f"{lost_s:g} s were lost, {kills.LOST_S:g} at most": lost_s > kills.LOST_S,
        f"{results['tracebacks']} tracebacks": results["tracebacks"] > 0,
        f"{results['peak_mb']} MB, {PEAK_MB:g} at most": results["peak_mb"] > PEAK_MB,
        f"{len(results['failed'])} faults": bool(results["failed"]),
    }
    return [sentence for sentence, fails in bars.items() if fails]


def say(line: str) -> None:
    """Tell how it goes."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Read the arguments, attack, print; or be the process in which cases run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="15 are all of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--case", type=int, help="one case of that part alone")
    parser.add_argument("--no-kills", action="store_true", help="leave out the live sessions")
    parser.add_argument("--keep", type=Path, help="folder for what fails; default: a new one in the system's")
    parser.add_argument("--write", action="store_true", help=f"write {_OUT.relative_to(ROOT)} too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="hostile-failed-"))
    if options.worker:
        cases.limit_space()
        first, _, stop = options.worker.partition(":")
        cases.work(options.only, _case(options.only), options.seed, int(first), int(stop), keep, sys.stdout)
        return 0
    if options.case is not None:
        if options.only is None:
            parser.error("--case needs --only")
        results = figures(
            {part: Outcome() for part in PARTS} | {options.only: _alone(options.only, options, keep)}
        )
    else:
        parts = tuple(part for part in PARTS if part != "kills") if options.no_kills else PARTS
        parts = (options.only,) if options.only else parts
        results = attack(options.minutes, options.seed, keep, parts=parts)
    fails = missed(results)
    if options.write:
        write(_OUT, results)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name}: {value if name != 'failed' else len(value)}")
    for sentence in fails:
        say(f"MISSED: {sentence}")
    if fails:
        say(f"What failed is in {keep}.")
    return 1 if fails else 0


def _case(part: str) -> cases.Case:
    # By its name, as a worker is told it.
    return import_module(f"tests.hostile.{part}").case


def _alone(part: str, options: argparse.Namespace, keep: Path) -> Outcome:
    if part == "kills":
        return kills.session(options.seed, options.case, keep, say)
    return cases.run(part, options.seed, options.case, options.case + 1, keep, say)


if __name__ == "__main__":
    sys.exit(main())
