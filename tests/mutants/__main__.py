"""python -m tests.mutants [NAME ...] [--json]: apply mutants to a copy; do their tests notice?"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.mutants import ROOT, Mutant, applies, copied, mutants, notices, passing


def main() -> int:
    """Print what became of every mutant; 0 if none survived and every patch applies."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print counts and names as JSON alone")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; default: all")
    args = parser.parse_args()
    quiet = args.json
    all_mutants = mutants()
    unknown = set(args.names) - {mutant.name for mutant in all_mutants}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}; tests/mutants holds the patches")
    chosen = [mutant for mutant in all_mutants if mutant.name in args.names or not args.names]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        outcomes = _judged(copied(ROOT, Path(scratch).resolve()), chosen, quiet=quiet)
    by_outcome = {
        kind: [name for name, became in outcomes.items() if became == kind] for kind in outcomes.values()
    }
    survivors = by_outcome.get("survived", [])
    stale = by_outcome.get("stale", [])
    counts = {
        "killed": len(by_outcome.get("killed", [])),
        "equivalent": len(by_outcome.get("equivalent", [])),
        "of": len(outcomes),
    }
    if quiet:
        print(json.dumps(counts | {"survivors": survivors, "stale": stale}))
    else:
        print(f"{counts['killed']} killed and {counts['equivalent']} equivalent of {counts['of']}")
    return 1 if survivors or stale else 0


def _judged(tree: Path, chosen: list[Mutant], *, quiet: bool) -> dict[str, str]:
    """What became of each mutant by name: killed, survived, equivalent or stale."""
    tests = {test for mutant in chosen for test in mutant.tests}
    if not quiet:
        print(f"without any change: {len(tests)} tests ...", flush=True)
    if tests and not passing(tree, tuple(sorted(tests))):
        raise SystemExit("the tests that must notice mutants fail without any. Mend those first.")
    outcomes: dict[str, str] = {}
    for mutant in chosen:
        if not quiet:
            print(f"{mutant.name:<32}", end="", flush=True)
        if not applies(tree, mutant.patch):
            outcomes[mutant.name] = "stale"
        elif mutant.equivalent:
            outcomes[mutant.name] = "equivalent"
        else:
            outcomes[mutant.name] = "killed" if notices(tree, mutant) else "survived"
        if not quiet:
            print(_ADVICE.get(outcomes[mutant.name], outcomes[mutant.name]), flush=True)
    return outcomes


_ADVICE = {
    "survived": "survived: mend its tests",
    "stale": "stale: the patch no longer applies, make it anew",
}

if __name__ == "__main__":
    sys.exit(main())
