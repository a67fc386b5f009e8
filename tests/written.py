"""Find what makes files or folders past `rtdecode.disk.private`, so that the umask says who reads them."""

import ast
from collections.abc import Iterable
from pathlib import Path

# Where that is meant, and why; a name that ends in a slash stands for all modules below.
ELSEWHERE = {
    "rtdecode/disk/private.py": "makes the files itself",
    "rtdecode/disk/video.py": "writes to a path that its callers made",
    "rtdecode/phantom/": "export folders and truth of a simulated participant are as the umask has them",
    "streaming/tools/play_volumes.py": "an export folder is as the umask has it",
    "streaming/tools/bench_volumes.py": "temporary folders, which are their owner's alone",
    "streaming/tools/doctor_disk.py": "temporary folders, which are their owner's alone",
    "export/decoded.py": "temporary folders, which are their owner's alone",
    "export/engines.py": "temporary folders, which are their owner's alone",
    "export/files.py": "temporary folders, which are their owner's alone",
    "export/fitted.py": "temporary folders, which are their owner's alone",
    "export/parity.py": "temporary folders, which are their owner's alone",
    "export/run.py": "temporary folders, which are their owner's alone",
    "train/trainer/checkpoints.py": "within the stages of a run, a closed folder",
    "train/parts/codecs/decoded_films.py": "films, which are no participant's data",
    "train/data/standard.py": "means over the windows of a data set",
    "train/distillation/teaching.py": "within the stages of a run, a closed folder",
    "train/trainer/stage_cache.py": "copies into folders of mkdtemp, which are their owner's alone",
    "train/data/target_cache.py": "values of films, which are no participant's data",
    "train/tiny_decoder.py": "a decoder of films, which are no participant's data",
}
_METHODS = {"write_text", "write_bytes", "mkdir", "makedirs", "touch", "tofile", "to_filename"}
_FUNCTIONS = {
    "save",
    "savez",
    "savez_compressed",
    "copy",
    "copy2",
    "copyfile",
    "copytree",
    "write_mp4",
    "FilmWriter",
}
_OF_MODULES = {"np", "numpy", "torch", "shutil"}
_PICTURES = {"_draw", "figure", "picture", "image", "fromarray", "quantize", "convert"}
_BUFFERS = {"held", "buffer"}


def faults(root: Path, packages: Iterable[str]) -> list[str]:
    """Return a line for each place in modules that `ELSEWHERE` does not name."""
    lines = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            name = str(path.relative_to(root))
            if not any(name == other or (other[-1] == "/" and name.startswith(other)) for other in ELSEWHERE):
                lines += [f"{name}:{fault}" for fault in faults_of(path.read_text())]
    return lines


def faults_of(source: str) -> list[str]:
    """Return line and call of each place in a module."""
    return [
        f"{node.lineno}: {ast.unparse(node)[:80]} is not made by rtdecode.disk.private"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _writes(node) and not _private(node)
    ]


def _writes(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in {"write_mp4", "FilmWriter"} or (function.id == "open" and _mode(call, 1))
    if not isinstance(function, ast.Attribute):
        return False
    owner = _name(function.value)
    if function.attr == "open":
        of_module = owner in {"av", "os", "io", "gzip", "tarfile", "zipfile"}
        return "O_CREAT" in ast.unparse(call) if owner == "os" else _mode(call, 1 if of_module else 0)
    if function.attr in {"save", "savefig"} and owner in _PICTURES:
        return bool(call.args) and _name(call.args[0]) not in _BUFFERS
    return function.attr in _METHODS or (function.attr in _FUNCTIONS and owner in _OF_MODULES)


def _mode(call: ast.Call, position: int) -> bool:
    """Return whether a call of `open` writes."""
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    modes += call.args[position : position + 1]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


def _private(call: ast.Call) -> bool:
    """Return whether the path of a call, or what it is called on, comes from `private`."""
    function = call.func
    places = [*call.args, *([function.value] if isinstance(function, ast.Attribute) else [])]
    owners = [place.func.value for place in places if _is_method(place)]
    return any(_name(owner) == "private" for owner in owners) or _name(function) == "open_file"


def _is_method(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
