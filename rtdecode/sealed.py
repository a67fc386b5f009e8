"""Folders of files under one digest, as bundles and calibrations are: read strictly, or not at all."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.errors import BundleError, UsageError


def digest_of(tree: dict[str, Any]) -> str:
    """Digest of JSON values: SHA-256 over their canonical form, first 16 digits."""
    text = strict_json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_target(target: Path, head: str, kind: str) -> None:
    """Refuse to replace a folder that holds anything but what its `head` names, or what is no folder.

    Parameters
    ----------
    target : Path
        What is there is about to be deleted.
    head : str
        Name of the JSON file with the digest.
    kind : str
        What such a folder is called.

    Raises
    ------
    UsageError
    """
    if not target.exists():
        return
    held = {file.name for file in target.iterdir()} if target.is_dir() else {target.name}
    if other := held - _listed(target / head):
        raise UsageError(
            f"{target} exists and is no {kind}, or not that alone: found {', '.join(sorted(other)[:8])}. "
            "Give an empty or new folder with --out."
        )


def _listed(file: Path) -> set[str]:
    """The files that a head names, itself among them; none where there is no head."""
    try:
        return {file.name, *json.loads(file.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a new folder to fill, which takes the place of `target`, or of what it links to, when whole."""
    target = target.resolve()
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    if target.exists():
        shutil.rmtree(target)
    part.rename(target)


def write_tree(file: Path, tree: dict[str, Any]) -> None:
    """Write a head: JSON values with the hashes of the files beside it, under ``files``, and its digest."""
    tree["files"] = {other.name: file_hash(other) for other in sorted(file.parent.iterdir())}
    tree["digest"] = digest_of(tree)
    file.write_text(strict_json.dumps(tree, indent=1) + "\n")


def read_tree(file: Path, advice: str, *, verify: bool = True) -> tuple[dict[str, Any], str]:
    """Read a JSON object that states its own digest under ``digest``.

    Parameters
    ----------
    file : Path
    advice : str
        What to do about a fault; ends its message.
    verify : bool
        False leaves the digest unchecked.

    Returns
    -------
    tree : dict
        Without the digest.
    digest : str
        As found.

    Raises
    ------
    BundleError
        If it is no such object, or was changed.
    """
    try:
        tree = json.loads(file.read_bytes())
    except ValueError as error:
        raise BundleError(f"{file} is not JSON ({error}). {advice}") from error
    if not isinstance(tree, dict):
        raise BundleError(f"{file} must be an object, found {type(tree).__name__}. {advice}")
    stated = tree.pop("digest", None)
    found = digest_of(tree)
    if verify and stated != found:
        raise BundleError(
            f"{file} was changed: its digest says {stated or 'nothing'}, found {found}. {advice}"
        )
    return tree, found


def check_files(file: Path, hashes: dict[str, str], advice: str) -> None:
    """Hold the files beside `file` to the SHA-256 that it states of each.

    Raises
    ------
    BundleError
        If one is missing or was changed.
    """
    for name, expected in hashes.items():
        path = file.parent / name
        if not path.is_file():
            raise BundleError(f"{path} is missing, the {file.stem} names it. {advice}")
        found = file_hash(path)
        if found != expected:
            raise BundleError(
                f"{path} was changed: the {file.stem} says SHA-256 {expected[:12]}..., "
                f"found {found[:12]}.... {advice}"
            )


def read_arrays(path: Path, advice: str, *names: str) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz``, among them `names`.

    Raises
    ------
    BundleError
        If it cannot be read, or one is not in it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as arrays ({error}). {advice}") from error
    if missing := set(names) - set(arrays):
        raise BundleError(f"{path} lacks {', '.join(sorted(missing))}. {advice}")
    return arrays
