"""Count names that say nothing of what they name, and refuse more of them than a package had.

`python -m tests.words` compares with `tests/words.json`; `--write` keeps today's counts there.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNTS = Path("tests/words.json")
PACKAGES = ("benchmarks", "export", "rtdecode", "streaming", "tests", "train")
# Participles of the field and of the contract are fine: acquired, simulated, fitted, expected, learned.
VAGUE = frozenset(
    [
        "apart",
        "asked",
        "at",
        "begun",
        "beside",
        "drawn",
        "each",
        "every",
        "few",
        "found",
        "given",
        "heard",
        "held",
        "inside",
        "kept",
        "known",
        "left",
        "looked",
        "made",
        "more",
        "most",
        "named",
        "one",
        "others",
        "ours",
        "own",
        "rest",
        "said",
        "seen",
        "shown",
        "spent",
        "stated",
        "taken",
        "theirs",
        "there",
        "told",
        "wanted",
        "whole",
        "wrong",
    ]
)


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every assignment, loop variable, parameter and public definition."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if not name.startswith("_"):
                    yield node.lineno, name


def vague(root: Path, package: str) -> list[str]:
    """Return the places of vague names in a package, as `path:line: name`."""
    places = []
    for path in sorted((root / package).rglob("*.py")):
        for line, name in sorted(bindings(ast.parse(path.read_bytes()))):
            if name.strip("_").lower() in VAGUE:
                places.append(f"{path.relative_to(root).as_posix()}:{line}: {name}")
    return places


def grown(root: Path) -> list[str]:
    """Return a line for each package with more vague names than it had, and their places."""
    limits = json.loads((root / COUNTS).read_text())
    lines = []
    for package in PACKAGES:
        places = vague(root, package)
        limit = limits.get(package, 0)
        if len(places) > limit:
            lines.append(
                f"{package}: {len(places)} vague names, {limit} are allowed. Say what each thing is:"
            )
            lines += _changed(root, places)
    return lines


def _changed(root: Path, places: list[str]) -> list[str]:
    # Those in lines that are newer than the counts; all of them where git cannot tell.
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout

    commit = git("log", "-1", "--format=%H", "--", str(COUNTS)).strip()
    added = set()
    path = ""
    for line in git("diff", "-U0", commit).splitlines() if commit else ():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ b/")
        elif line.startswith("@@"):
            start, _, length = line.split()[2].removeprefix("+").partition(",")
            added |= {f"{path}:{int(start) + offset}" for offset in range(int(length or 1))}
    newer = [place for place in places if place.rsplit(":", 1)[0] in added]
    return newer or places


def main() -> int:
    """Check the repository, or write its counts."""
    if sys.argv[1:] == ["--write"]:
        counts = {package: len(vague(ROOT, package)) for package in PACKAGES}
        (ROOT / COUNTS).write_text(json.dumps(counts, indent=2) + "\n")
        return 0
    lines = grown(ROOT)
    print("\n".join(lines) or "no new vague names")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
