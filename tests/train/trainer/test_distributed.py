"""Processes that train together."""

import errno
import os
from pathlib import Path

from rtdecode.errors import RtDecodeError
from tests.refusals import refused
from train.trainer.distributed import launch


class Large:
    """It finds no room on the disk."""

    def __reduce__(self) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_arguments_that_have_no_room_on_the_disk_are_said(tmp_path: Path) -> None:
    with refused(RtDecodeError, "processes-write-failed", count=2, folder=tmp_path) as refusal:
        launch(2, tmp_path, print, Large())
    assert "the disk is full" in str(refusal.value)
    assert not list(tmp_path.iterdir())
