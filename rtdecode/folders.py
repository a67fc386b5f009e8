"""Folders that a command is about to fill."""

from pathlib import Path


def taken(folder: Path) -> bool:
    """Whether something is in the way of a new folder: a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
