"""Wait for a run's first volumes in a folder, and keep the operator informed.

`gather` polls a `FolderSource`, sorts volumes by run, and returns the first run that has enough of them. If
the scanner falls silent before that, it returns the longest run.
"""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rtdecode.errors import RtDecodeError
from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource

_POLL_S = 0.02
_SAY_EVERY = 5.0
# A run is over once it has been silent for this many TRs, and for this long (s).
_SILENT_TRS = 4.0
_SILENT_S = 3.0
_LEAST = 2


def gather(source: FolderSource, count: int, wait: float, console: Console) -> list[Volume]:
    """Return the first volumes of a run.

    The run is the first that reaches `count` volumes, or the longest one when all runs have fallen silent.

    Parameters
    ----------
    source : FolderSource
        The export folder, of whose runs one is chosen.
    count : int
        Number of volumes wanted.
    wait : float
        Seconds to wait for the first volume; 0 waits for ever.
    console : Console
        Where progress is shown.

    Returns
    -------
    list of Volume
        In order of index; at least two.

    Raises
    ------
    RtDecodeError
        If fewer than two volumes came.
    """
    runs: dict[str, dict[int, Volume]] = {}
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("volumes", total=count)
    with bar:
        _fill(runs, source, count, wait, lambda n: bar.update(task, completed=n), console)
    longest = max(runs.values(), key=len, default={})
    if len(longest) < _LEAST:
        raise _too_few(source, len(longest), count, wait)
    # Volumes may arrive out of order, and one poll may bring more than are wanted.
    return [longest[index] for index in sorted(longest)][:count]


def _fill(
    runs: dict[str, dict[int, Volume]],
    source: FolderSource,
    count: int,
    wait: float,
    show: Callable[[int], None],
    console: Console,
) -> None:
    began = said_at = time.monotonic()
    readable_at = began
    silent_s = _SILENT_S
    try:
        while max(map(len, runs.values()), default=0) < count:
            now = time.monotonic()
            volumes = source.poll(now)
            for volume in volumes:
                runs.setdefault(volume.uid, {})[volume.index] = volume
                readable_at = volume.readable_at
                silent_s = max(_SILENT_S, _SILENT_TRS * (volume.tr_s or 0.0))
            show(max(map(len, runs.values()), default=0))
            # While files are waiting to be read, silence says nothing about the scanner.
            if volumes or source.unread:
                continue
            if runs and now - readable_at > silent_s:
                return
            if not runs and wait and now - began > wait:
                return
            if not runs and now - said_at > _SAY_EVERY:
                said_at = now
                console.print(f"waiting for volumes: {source.state}", highlight=False, soft_wrap=True)
            time.sleep(_POLL_S)
    # Ctrl-C means that the run is over, not that the calibration is unwanted.
    except KeyboardInterrupt:
        console.print("stopped: continuing with the volumes so far", highlight=False)


def _too_few(source: FolderSource, volumes: int, count: int, wait: float) -> RtDecodeError:
    if volumes:
        return RtDecodeError(
            "calibrate-too-few-volumes",
            "only {volumes} volume of a run arrived in {folder}; a calibration needs at least {minimum} and "
            "should have {expected}. Let the scanner run on, and call again.",
            volumes=volumes,
            folder=source.directory,
            minimum=_LEAST,
            expected=count,
        )
    return RtDecodeError(
        "calibrate-volumes-timeout",
        "waited {wait_s:g} s (--wait) for volumes, none came: {state}. Start the scanner, correct "
        "--fmri-dir, or wait longer (--wait 0: for ever).",
        wait_s=wait,
        state=source.state,
    )
