"""python -m tests.mutants [--json]: apply every mutant to a copy, and see whether its tests notice."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.mutants import ROOT, applies, copied, mutants, notices, passing


def main() -> int:
    """Print what became of every mutant; 0 if none survived and every patch applies."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print counts and names as JSON alone")
    quiet = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        found = _judged(copied(ROOT, Path(scratch).resolve()), quiet=quiet)
    named = {kind: [name for name, became in found.items() if became == kind] for kind in found.values()}
    survivors = named.get("survived", [])
    stale = named.get("stale", [])
    counts = {
        "killed": len(named.get("killed", [])),
        "equivalent": len(named.get("equivalent", [])),
        "of": len(found),
    }
    if quiet:
        print(json.dumps(counts | {"survivors": survivors, "stale": stale}))
    else:
        print(f"{counts['killed']} killed and {counts['equivalent']} equivalent of {counts['of']}")
    return 1 if survivors or stale else 0


def _judged(tree: Path, *, quiet: bool) -> dict[str, str]:
    """What became of each mutant by name: killed, survived, equivalent or stale."""
    every = mutants()
    named = {test for mutant in every for test in mutant.tests}
    if not quiet:
        print(f"without any change: {len(named)} tests ...", flush=True)
    if not passing(tree, tuple(sorted(named))):
        raise SystemExit("the tests that must notice mutants fail without any. Mend those first.")
    found: dict[str, str] = {}
    for mutant in every:
        if not quiet:
            print(f"{mutant.name:<32}", end="", flush=True)
        if not applies(tree, mutant.patch):
            found[mutant.name] = "stale"
        elif mutant.equivalent:
            found[mutant.name] = "equivalent"
        else:
            found[mutant.name] = "killed" if notices(tree, mutant) else "survived"
        if not quiet:
            print(_ADVICE.get(found[mutant.name], found[mutant.name]), flush=True)
    return found


_ADVICE = {
    "survived": "survived: mend its tests",
    "stale": "stale: the patch no longer applies, make it anew",
}

if __name__ == "__main__":
    sys.exit(main())
