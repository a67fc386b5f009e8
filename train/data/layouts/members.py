"""The numbered files of a release, read where they lie: in a folder, or still inside a tar archive.

An archive is not unpacked. Its members are listed once, with the places of their bytes in it, and each is
then read from its place.
"""

import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import UsageError

# Bytes of a tar block; members begin at whole blocks, and at least one block of zeros ends an archive.
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Member:
    """One file, of which a release has many thousands.

    Attributes
    ----------
    place : str
        Path of the archive or of the folder.
    name : str
        The file's name in it.
    offset : int
        First byte in the archive. In an archive a header comes first, so that 0 is a file of a folder.
    size : int
        Number of bytes.
    """

    place: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.place}: {self.name}" if self.offset else f"{self.place}/{self.name}"

    def read(self) -> bytes:
        """Read the bytes.

        Raises
        ------
        UsageError
            If the file is no longer there, or ends too early.
        """
        path = Path(self.place) if self.offset else Path(self.place, self.name)
        try:
            with path.open("rb", buffering=0) as file:
                content = os.pread(file.fileno(), self.size, self.offset)
        except OSError as error:
            raise UsageError(
                "member-unreadable",
                "{member} cannot be read ({error}). Restore the file, or open the folder again.",
                member=self,
                error=error.strerror,
            ) from error
        if len(content) < self.size:
            raise UsageError(
                "member-truncated",
                "{member} is cut short: {expected_bytes} bytes were expected, {actual_bytes} are "
                "there. Fetch it again.",
                member=self,
                expected_bytes=self.size,
                actual_bytes=len(content),
            )
        return content


def numbered(place: Path, ending: str, subfolder: str | None = None) -> dict[int, Member]:
    """List the files whose names are numbers, number -> file.

    Parameters
    ----------
    place : Path
        A folder or an uncompressed tar archive.
    ending : str
        How the names end, such as ``.npy``.
    subfolder : str, optional
        Of an archive's members, take those whose folder has this name.

    Raises
    ------
    UsageError
        If the archive is cut short or damaged.
    """
    if place.is_dir():
        return _in_folder(place, ending)
    return _in_archive(place, ending, subfolder)


def array(member: Member) -> NDArray[Any]:
    """Read a file as one array.

    Raises
    ------
    UsageError
        If it cannot be read, or is no array.
    """
    content = member.read()
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(
            "member-not-array",
            "{member} is no array ({error}). Fetch the file again.",
            member=member,
            error=error,
        ) from error


def _in_folder(folder: Path, ending: str) -> dict[int, Member]:
    members = {}
    # One string for all, which is sent to other processes once.
    place = str(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            number = _number(entry.name, ending)
            if number is not None:
                members[number] = Member(place, entry.name, 0, entry.stat().st_size)
    return members


def _in_archive(path: Path, ending: str, subfolder: str | None) -> dict[int, Member]:
    members = {}
    place = str(path)
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                end = entry.offset_data + -(-entry.size // _BLOCK) * _BLOCK
                name = PurePosixPath(entry.name)
                number = _number(name.name, ending)
                if entry.isfile() and number is not None and subfolder in (None, name.parent.name):
                    members[number] = Member(place, entry.name, entry.offset_data, entry.size)
    except (tarfile.TarError, OSError) as error:
        raise _cut(path, str(error)) from error
    # An archive that ends between two members is whole to the library. Its end has a mark.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise _cut(path, "it has no end mark")
    return members


def _cut(path: Path, fault: str) -> UsageError:
    return UsageError(
        "archive-truncated",
        "{path} is no whole tar archive ({error}): it was probably cut short on its way. Fetch it "
        "again, or remove it, so that the unpacked folder beside it is read.",
        path=path,
        error=fault,
    )


def _number(name: str, ending: str) -> int | None:
    stem = name.removesuffix(ending)
    return int(stem) if stem != name and stem.isascii() and stem.isdigit() else None
