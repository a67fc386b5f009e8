"""Where weights came from: their files, a digest of their content, and the licence that the user stated."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rtdecode.disk.hashed_folder import file_hash
from rtdecode.errors import UsageError

Form = Literal["diffusers folder", "transformers folder", "safetensors", "torch", "lora", "table"]


@dataclass(frozen=True, slots=True)
class Source:
    """What weights were read.

    Attributes
    ----------
    paths : tuple of Path
        The files that were read.
    digest : str
        SHA-256, hexadecimal. Of one file it is the file's own; of several it is that of the lines
        ``NAME SHA-256`` in the order of the names.
    form : str
        How the files hold the weights, such as ``safetensors``; one of `Form`.
    licence : str
        As the user stated it.
    """

    paths: tuple[Path, ...]
    digest: str
    form: Form
    licence: str

    def to_manifest(self) -> dict[str, Any]:
        """Return what a manifest may hold, as JSON values: names of files without their folders."""
        return {
            "files": [path.name for path in self.paths],
            "sha256": self.digest,
            "form": self.form,
            "licence": self.licence,
        }


def of_files(paths: Sequence[Path], form: Form, licence: str) -> Source:
    """Hash files that are weights.

    Parameters
    ----------
    paths : sequence of Path
        Files of different names.
    form : str
        See `Source`.
    licence : str
        Licence of the weights, as the user states it.

    Raises
    ------
    UsageError
        If no licence is stated.
    """
    check_licence(licence, paths[0])
    files = tuple(sorted(paths, key=lambda path: path.name))
    hashes = [file_hash(path) for path in files]
    digest = hashes[0]
    if len(files) > 1:
        lines = [f"{path.name} {value}\n" for path, value in zip(files, hashes, strict=True)]
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Source(files, digest, form, licence.strip())


def check_licence(licence: str, where: Path) -> None:
    """Refuse weights whose licence nobody stated."""
    if not licence.strip():
        raise UsageError(
            "weights-missing-licence",
            "no licence was stated for the weights in {path}. Look it up where they were published, "
            "and give it with licence=, such as licence=Apache-2.0.",
            path=where,
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read what is said about weights beside them.

    Raises
    ------
    UsageError
        If the file is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(
            "weights-json-unreadable",
            "{path} is no JSON: {error}. Fetch the file again.",
            path=path,
            error=error,
        ) from error
