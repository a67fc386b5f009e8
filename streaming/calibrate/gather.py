"""Wait for a run's first volumes in a folder, with the operator kept informed."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rtdecode.errors import RtDecodeError
from rtdecode.types import Volume
from streaming.sources.folder.source import FolderSource

_POLL_S = 0.02
_SAY_EVERY = 5.0
# A run that has been silent for so many TRs, and for so long, is over.
_SILENT_TRS = 4.0
_SILENT_S = 3.0
_LEAST = 2


def gather(source: FolderSource, count: int, wait: float, console: Console) -> list[Volume]:
    """The first volumes of a run: the first that reaches `count`, else the longest once all is silent.

    Parameters
    ----------
    source : FolderSource
    count : int
    wait : float
        Seconds to wait for the first volume; 0 for ever.
    console : Console
        For progress, on stderr.

    Returns
    -------
    list of Volume
        In order of index, two at the least.

    Raises
    ------
    RtDecodeError
        If no volume, or a single one, came.
    """
    runs: dict[str, dict[int, Volume]] = {}
    bar = Progress(
        TextColumn("{task.description}"),
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
        raise RtDecodeError(_too_few(source, len(longest), count, wait))
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
            found = source.poll(now)
            for volume in found:
                runs.setdefault(volume.uid, {})[volume.index] = volume
                readable_at = volume.readable_at
                silent_s = max(_SILENT_S, _SILENT_TRS * (volume.tr_s or 0.0))
            show(max(map(len, runs.values()), default=0))
            if found or source.unread:
                continue
            if runs and now - readable_at > silent_s:
                return
            if not runs and wait and now - began > wait:
                return
            if not runs and now - said_at > _SAY_EVERY:
                said_at = now
                console.print(f"waiting for volumes: {source.state}", highlight=False, soft_wrap=True)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        console.print("stopped: going on with what is there", highlight=False)


def _too_few(source: FolderSource, found: int, count: int, wait: float) -> str:
    if found:
        return (
            f"{found} volume of a run came into {source.directory}, and then none for a while; a calibration "
            f"needs {_LEAST} at the least and should have {count}. Let the scanner run on, and call again."
        )
    return (
        f"waited {wait:g} s (--wait) for volumes, none came: {source.state}. Start the scanner, correct "
        f"--fmri-dir, or wait longer (--wait 0: for ever)."
    )
