"""Print how plain and how small the house is: vague names, circles, big objects, private uses, lines.

`python -m tests.house [ROOT]` reads the source of a checkout, by default this one, and runs none of it.
"""

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import words
from tests.parsed import tree_of
from tests.test_imports import MAY

# Those of the wheel, then those that only a checkout has.
SHIPPED = ("rtdecode", "streaming", "train", "export")
PACKAGES = (*SHIPPED, "benchmarks", "tests")
# An object that knew everything -> the classes that have its work today.
OBJECTS = {
    "_Acquisition": (
        *("_Acquisition", "SourceReader", "AcquisitionLoop", "Intake", "DeadlineClock", "Recorder"),
        *("StatusBuilder", "SourceActivity", "Outbox"),
    ),
    "_Session": (
        *("_Session", "Receiver", "EndConditions", "DecodeLoop", "SessionFaults", "Reporter", "PageFeed"),
    ),
    "Emitter": (
        *("ClipEmitter", "PendingClips", "StepChooser", "ClipWriter", "ClipTally", "FinalArchiver", "Scorer"),
    ),
}
Trees = dict[str, ast.Module]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LAYOUT = {
    *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.COMMENT, tokenize.ENDMARKER),
}


def read(root: Path, packages: Sequence[str] = PACKAGES) -> Trees:
    """Parse every module: path below the root, with slashes -> its tree."""
    files = [file for package in packages for file in sorted((root / package).rglob("*.py"))]
    return {file.relative_to(root).as_posix(): tree_of(file) for file in files}


def of(trees: Trees, package: str) -> Trees:
    """Return the modules of one package."""
    return {path: tree for path, tree in trees.items() if path.startswith(f"{package}/")}


def same_classes(trees: Trees) -> dict[str, int]:
    """Count the public classes of each name that a sub-package (`train/models`) has more than once."""
    names = [
        f"{'/'.join(path.split('/')[:2]) if path.count('/') > 1 else path.split('/')[0]}: {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    return {name: count for name, count in Counter(names).items() if count > 1}


def imports(trees: Trees) -> dict[str, set[str]]:
    """Find which of these modules each of them imports, wherever in its body."""
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
    graph: dict[str, set[str]] = {path: set() for path in trees}
    for path, tree in trees.items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # A module of a package, or else a name of a module.
                names |= {
                    full if (full := f"{node.module}.{alias.name}") in modules else node.module
                    for alias in node.names
                }
        graph[path] = {modules[name] for name in names if name in modules} - {path}
    return graph


def arrows_up(graph: dict[str, set[str]]) -> list[str]:
    """Name the imports that cross packages against the arrows."""
    return [
        f"{path} -> {target}"
        for path, targets in graph.items()
        for target in sorted(targets)
        if target.split("/")[0] not in MAY[path.split("/")[0]]
    ]


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the same arrows between folders.

    A module that nothing imports is a command (`train/run.py`, a `__main__`): it stands above all folders,
    and its arrows are not those of the folder that it lies in.
    """
    imported = set().union(*graph.values())
    folders: dict[str, set[str]] = defaultdict(set)
    for path, targets in graph.items():
        folder = str(Path(path).parent)
        folders[folder] |= {str(Path(target).parent) for target in targets} if path in imported else set()
    return {folder: targets - {folder} for folder, targets in folders.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that all reach each other, the largest first."""
    reached = {}
    for start in graph:
        visited: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in visited:
                visited.add(node)
                waiting += graph.get(node, ())
        reached[start] = visited
    groups = {
        tuple(sorted(other for other in visited if start in reached.get(other, ())))
        for start, visited in reached.items()
        if start in visited
    }
    return sorted((list(group) for group in groups), key=lambda group: (-len(group), group))


def fields(trees: Trees) -> dict[str, int]:
    """Count what each of `OBJECTS` keeps: names of its body, and those that it gives to `self`."""
    counts = {}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and any(node.name in names for names in OBJECTS.values()):
                annotated = {
                    ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)
                }
                counts[node.name] = len(annotated | _given_to_self(node))
    return counts


def _annotated(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)}


def _given_to_self(node: ast.ClassDef) -> set[str]:
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }


def private_uses(trees: Trees) -> list[str]:
    """Name every use in tests of what a package keeps to itself: `path:line: name`."""
    private = {name for path, tree in trees.items() if not _is_test(path) for name in _private_names(tree)}
    uses = []
    for path, tree in trees.items():
        if _is_test(path):
            foreign = private - _private_names(tree)
            uses += [f"{path}:{line}: {name}" for line, name in sorted(_taken(tree)) if name in foreign]
    return uses


def _is_test(path: str) -> bool:
    return path.startswith("tests/")


def _private_names(tree: ast.Module) -> set[str]:
    """Return the names with one underscore that a module defines."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def _taken(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every attribute of another object, import, and name in a string to patch."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(names=aliases):
                yield from ((node.lineno, alias.name) for alias in aliases)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield node.lineno, name


def matched_sentences(trees: Trees) -> int:
    """Count the tests' expectations of an error by its wording."""
    calls = [
        node for tree in of(trees, "tests").values() for node in ast.walk(tree) if isinstance(node, ast.Call)
    ]
    return sum(keyword.arg == "match" for call in calls for keyword in call.keywords)


def parallel(trees: Trees) -> tuple[int, int]:
    """Count the assignments of several values to several names, and all assignments."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    several = [
        node
        for node in nodes
        if isinstance(node.value, ast.Tuple) and any(isinstance(target, ast.Tuple) for target in node.targets)
    ]
    return len(several), len(nodes)


def lines_of(source: str, tree: ast.Module) -> tuple[set[int], int]:
    """Return which lines hold code, without blanks, comments and docstrings, and count the comments."""
    code: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        comments += token.type == tokenize.COMMENT
        if token.type not in _LAYOUT:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return code, comments


def lengths(tree: ast.Module, code: set[int]) -> dict[str, int]:
    """Count the lines of code of each function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    return {
        f"{node.name}, line {node.lineno}": len(code & set(range(node.lineno, (node.end_lineno or 0) + 1)))
        for node in functions
    }


def doc_words(root: Path) -> int:
    """Count the words of the pages, without those of the notebook."""
    pages = [page for page in (root / "docs").rglob("*.md") if "notebook" not in page.parts]
    return sum(len(page.read_text().split()) for page in pages)


def report(root: Path) -> Iterator[str]:
    """Yield the lines that are printed."""
    trees = read(root)
    shipped = {path: tree for package in SHIPPED for path, tree in of(trees, package).items()}
    for package in PACKAGES:
        names = sum(len(list(words.bindings(tree))) for tree in of(trees, package).values())
        vague = len(words.vague(root, package))
        yield f"vague words, {package}: {vague} of {names}, {vague / max(names, 1):.2%}"
    same = same_classes({path: tree for path, tree in trees.items() if not _is_test(path)})
    yield f"public classes of one name in a sub-package: {len(same)}"
    yield from (f"  {name}, {count} times" for name, count in sorted(same.items()))
    # The command line alone may reach up.
    graph = imports({path: tree for path, tree in shipped.items() if path != "rtdecode/cli.py"})
    up = arrows_up(graph)
    yield f"arrows up: {len(up)}"
    yield from (f"  {arrow}" for arrow in up)
    for kind, groups in (("modules", circles(graph)), ("folders", circles(rooms(graph)))):
        yield f"circles of {kind}: {len(groups)}"
        yield from (f"  {len(group)}: {', '.join(group)}" for group in groups)
    counts = fields(shipped)
    for name, successors in OBJECTS.items():
        parts = [f"{part} {counts[part]}" for part in successors if part in counts]
        yield f"fields of {name}: {', '.join(parts) or 'gone'}"
    yield f"uses of private members in tests: {len(private_uses(trees))}"
    yield f"matched sentences in tests: {matched_sentences(trees)}"
    several, assignments = parallel(trees)
    yield f"parallel assignments: {several} of {assignments}, {several / max(assignments, 1):.2%}"
    yield from _sizes(root, trees)
    yield f"words of the docs without the notebook: {doc_words(root)}"


def _sizes(root: Path, trees: Trees) -> Iterator[str]:
    functions: dict[str, int] = {}
    for package in PACKAGES:
        total = 0
        code_lines = 0
        comments = 0
        for path, tree in of(trees, package).items():
            source = (root / path).read_text()
            code, remarks = lines_of(source, tree)
            total += source.count("\n")
            code_lines += len(code)
            comments += remarks
            if package in SHIPPED:
                functions |= {f"{path}: {name}": count for name, count in lengths(tree, code).items()}
        share = 100 * comments / max(code_lines, 1)
        yield f"lines, {package}: {total}, {code_lines} of code, {share:.1f} comments per hundred of these"
    longest = max(functions, key=functions.__getitem__, default="none")
    yield f"longest function: {functions.get(longest, 0)} lines of code, {longest}"


def main() -> None:
    """Print the report of a checkout."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else words.ROOT
    for line in report(root):
        print(line)


if __name__ == "__main__":
    main()
