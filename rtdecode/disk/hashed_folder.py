"""Folders of files under one digest, such as bundles and calibrations, read strictly.

A head, a JSON file, lists the SHA-256 of every other file and states a digest of itself. `write_tree` and
`replacing` make such a folder, `read_tree` reads the head, and `HashedFolder` reads the files, each of which
must have the hash that the head states.
"""

import hashlib
import json
import lzma
import mmap
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.disk.regular import open_regular
from rtdecode.errors import BundleError, UsageError

# Number of bytes of a mapped file that are hashed at a time.
_PIECE_BYTES = 2**24
# What numpy raises, besides the usual errors, for bytes that are not an `.npz`, or a
# damaged or encrypted one, or one that states sizes that nothing has.
_NO_ARRAYS = (
    *(TypeError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(MemoryError, OverflowError, SyntaxError),
)


def digest_of(tree: dict[str, Any]) -> str:
    """Return the first 16 digits of the SHA-256 over the canonical form of JSON values."""
    text = strict_json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, reading it in pieces as it may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def held_in(folder: Path) -> set[str]:
    """Name everything that lies in a folder and its subfolders, relative to it, with slashes.

    Links are named but not followed. A subfolder is named only if it is empty; otherwise its contents are.

    Raises
    ------
    OSError
        If one of them cannot be read.
    """
    paths: set[str] = set()
    waiting = [""]
    while waiting:
        subfolder = waiting.pop()
        with os.scandir(folder / subfolder) as entries:
            names = {f"{subfolder}{entry.name}": entry.is_dir(follow_symlinks=False) for entry in entries}
        paths |= {name for name, is_folder in names.items() if not is_folder}
        waiting += [f"{name}/" for name, is_folder in names.items() if is_folder]
        if not names and subfolder:
            paths.add(subfolder.removesuffix("/"))
    return paths


def check_target(target: Path, head: str, kind: str) -> None:
    """Refuse to replace anything but a folder that holds only the files that its `head` names.

    Parameters
    ----------
    target : Path
        Folder whose contents are about to be deleted.
    head : str
        Name of the JSON file with the digest.
    kind : str
        What such a folder is called, for messages.

    Raises
    ------
    UsageError
    """
    if not target.exists():
        return
    existing = held_in(target) if target.is_dir() else {target.name}
    if other := existing - _listed(target / head):
        raise UsageError(
            "output-folder-foreign-files",
            "{folder} exists and holds something other than a {folder_kind}: found {foreign_files}. "
            "Give an empty or new folder with --out.",
            folder=target,
            folder_kind=kind,
            foreign_files=list(sorted(other)[:8]),
        )


def _listed(file: Path) -> set[str]:
    """Return the files that a head names, including itself; none if there is no readable head."""
    try:
        return {file.name, *json.loads(file.read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which replaces `target`, or what it links to, when it is complete."""
    # The new folder lies beside the old one, so that it can be renamed; an error leaves the old one.
    target = target.resolve()
    part = target.with_name(target.name + ".part")
    old = target.with_name(target.name + ".replaced")
    shutil.rmtree(part, ignore_errors=True)
    private.folder(part)
    yield part
    # The old folder is deleted last, so that a crash at any moment leaves it or the new one. After a crash
    # between the two renames it is the only one, and stays until there is another.
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_tree(file: Path, tree: dict[str, Any]) -> None:
    """Write a head: JSON values, the hashes of the files beside it under ``files``, and its digest."""
    tree["files"] = {name: file_hash(file.parent / name) for name in sorted(held_in(file.parent))}
    tree["digest"] = digest_of(tree)
    private.file(file).write_text(strict_json.dumps(tree, indent=1) + "\n")


def read_tree(file: Path, advice: str, *, verify: bool = True) -> tuple[dict[str, Any], str]:
    """Read a JSON object that states its own digest under ``digest``.

    Parameters
    ----------
    file : Path
        Path of the JSON file.
    advice : str
        What to do about an error; ends its message.
    verify : bool
        Whether to check the digest.

    Returns
    -------
    tree : dict
        The object without its digest.
    digest : str
        Digest of what was read.

    Raises
    ------
    BundleError
        If the file holds no such object, or was changed.
    """
    try:
        with open_regular(file) as opened:
            tree = json.loads(opened.read())
        # Python's parser accepts NaN, infinities and halves of surrogate pairs, which are not JSON.
        json.dumps(tree, allow_nan=False, ensure_ascii=False).encode()
    except OSError as error:
        raise BundleError(
            "manifest-unreadable",
            "{path} cannot be read ({error}). Give a folder that can be read.",
            path=file,
            error=error,
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(
            "manifest-not-json",
            "{path} is not JSON ({error}). {advice}",
            path=file,
            error=error,
            advice=advice,
        ) from error
    if not isinstance(tree, dict):
        raise BundleError(
            "manifest-not-object",
            "{path} must be an object, found {json_type}. {advice}",
            path=file,
            json_type=type(tree).__name__,
            advice=advice,
        )
    expected = tree.pop("digest", None)
    digest = digest_of(tree)
    if verify and expected != digest:
        raise BundleError(
            "manifest-digest-mismatch",
            "{path} was changed: its digest says {expected_digest}, found {actual_digest}. {advice}",
            path=file,
            expected_digest=expected or "nothing",
            actual_digest=digest,
            advice=advice,
        )
    return tree, digest


@dataclass(frozen=True, slots=True)
class HashedFolder:
    """The files beside a head, each of which must have the SHA-256 that the head states.

    Attributes
    ----------
    head : Path
        The JSON file.
    hashes : dict
        File name -> SHA-256, as stated by the head. Files in subfolders have names with slashes.
    advice : str
        What to do about an error; ends its message.
    """

    head: Path
    hashes: dict[str, str]
    advice: str

    def check(self) -> None:
        """Check every file against its hash.

        Raises
        ------
        BundleError
            If a file is missing, was changed, or lies outside the folder.
        """
        for name in self.hashes:
            self.check_file(name)

    def check_whole(self) -> None:
        """Refuse a folder that holds anything that its head does not name.

        Raises
        ------
        BundleError
        """
        unlisted = sorted(self._held() - {self.head.name, *self.hashes})
        if unlisted:
            raise BundleError(
                "bundle-unlisted-files",
                "{folder} holds {unlisted_files}, which {manifest} does not list under files. Take "
                "it out of the folder. {advice}",
                folder=self.head.parent,
                unlisted_files=list(map(repr, unlisted[:8])),
                manifest=self.head.name,
                advice=self.advice,
            )

    def read(self, name: str) -> bytes:
        """Read a file that the head lists, and return the same bytes whose hash was checked.

        Raises
        ------
        BundleError
            If the head does not list the file, or it is missing, lies outside the folder, cannot be read, or
            was changed.
        """
        path = self._place(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self._unreadable(path, error) from error
        # The bytes that were read are hashed, and not the file, which may change in between.
        self._hold(path, name, hashlib.sha256(data).hexdigest())
        return data

    def check_file(self, name: str) -> None:
        """Check a file that the head lists against its hash, without reading the whole file into memory.

        Raises
        ------
        BundleError
            See `read`.
        """
        path = self._place(name)
        try:
            digest = file_hash(path)
        except OSError as error:
            raise self._unreadable(path, error) from error
        self._hold(path, name, digest)

    def mapped(self, name: str) -> mmap.mmap:
        """Map a file that the head lists into memory, read-only, and check the mapped bytes' hash.

        Raises
        ------
        BundleError
            See `read`; also if the file is empty.
        """
        path = self._place(name)
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error
        digest = hashlib.sha256()
        for start in range(0, len(data), _PIECE_BYTES):
            digest.update(memoryview(data)[start : start + _PIECE_BYTES])
        self._hold(path, name, digest.hexdigest())
        return data

    def _place(self, name: str) -> Path:
        """Find the path of a file that the head lists.

        Raises
        ------
        BundleError
            If the head does not list the file, it is missing, or it lies outside the folder.
        """
        folder = self.head.parent
        if name not in self.hashes:
            raise BundleError(
                "manifest-entry-missing",
                "{manifest} does not list {file!r} under files. {advice}",
                manifest=self.head,
                file=name,
                advice=self.advice,
            )
        # The name is looked up among the names that exist, which never include '../x' or '/x'. A
        # backslash is part of a name here, but would separate folders on another system.
        if name not in self._held() or "\\" in name:
            raise BundleError(
                "bundle-missing-file",
                "{folder}/{file} is missing, but the {manifest} names it: expected the name of a "
                "file in this folder or a subfolder, with slashes. {advice}",
                folder=folder,
                file=name,
                manifest=self.head.stem,
                advice=self.advice,
            )
        path = folder / name
        # Unlike `Path.resolve`, this does not raise for a link that leads to itself.
        leads_to = os.path.realpath(path)
        root = os.path.realpath(folder) + os.sep
        if not leads_to.startswith(root) or not path.is_file():
            raise BundleError(
                "bundle-file-not-regular",
                "{path} is not a file of this folder: it is a folder, or a link to {link_target}. {advice}",
                path=path,
                link_target=leads_to,
                advice=self.advice,
            )
        return path

    def _unreadable(self, path: Path, error: Exception) -> BundleError:
        return BundleError(
            "bundle-file-unreadable",
            "{path} cannot be read ({error}). {advice}",
            path=path,
            error=error,
            advice=self.advice,
        )

    def _hold(self, path: Path, name: str, digest: str) -> None:
        """Refuse a file whose hash differs from the one that the head states."""
        expected = self.hashes[name]
        if digest != expected:
            raise BundleError(
                "bundle-file-digest-mismatch",
                "{path} was changed: the {manifest} says SHA-256 {expected_sha256}..., found "
                "{actual_sha256}.... {advice}",
                path=path,
                manifest=self.head.stem,
                expected_sha256=expected[:12],
                actual_sha256=digest[:12],
                advice=self.advice,
            )

    def arrays(self, name: str, *required: str) -> dict[str, NDArray[Any]]:
        """Read the arrays of an ``.npz`` that the head lists, which must include those `required`.

        Raises
        ------
        BundleError
            See `read`; also if the file holds no arrays, or lacks a wanted one.
        """
        path = self.head.parent / name
        try:
            with np.load(BytesIO(self.read(name)), allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
        except (*_NO_ARRAYS, OSError, EOFError, ValueError) as error:
            raise BundleError(
                "npz-unreadable",
                "{path} cannot be read as arrays ({error}). {advice}",
                path=path,
                error=error,
                advice=self.advice,
            ) from error
        if missing := set(required) - set(arrays):
            raise BundleError(
                "npz-array-missing",
                "{path} lacks {missing_arrays}. {advice}",
                path=path,
                missing_arrays=sorted(missing),
                advice=self.advice,
            )
        return arrays

    def _held(self) -> set[str]:
        try:
            return held_in(self.head.parent)
        except OSError as error:
            raise BundleError(
                "bundle-folder-unreadable",
                "{folder} cannot be read ({error}). Give a folder that can be read.",
                folder=self.head.parent,
                error=error,
            ) from error
