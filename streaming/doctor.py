"""What a session needs, checked one by one: the command ``rtdecode doctor``."""

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtdecode import __version__, strict_json
from rtdecode import bundle as bundles
from rtdecode.errors import RtDecodeError

_COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}
# Time for a look at the network's streams, and for reading what lies in the folder, s.
_LOOK_S, _READ_S = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    subject : str
        What was looked at.
    state : str
        ``ok``, ``note`` (a session can do without) or ``bad``.
    found : str
        What was seen.
    advice : str
        What to do; empty where nothing is to be done.
    """

    subject: str
    state: str
    found: str
    advice: str = ""


def run(lsl: str | None, fmri_dir: Path | None, bundle: str, as_json: bool) -> int:
    """Check everything and say what to do about each thing that is missing.

    Parameters
    ----------
    lsl : str or None
        Name of the EEG stream to look for; None lists what there is.
    fmri_dir : Path or None
        The folder to look into.
    bundle : str
        The bundle to verify and run.
    as_json : bool
        Print JSON instead of a table.

    Returns
    -------
    int
        0, or 1 if a session could not run.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "machine": _machine,
        "LSL": lambda: _streams(lsl),
        "folder": lambda: _folder(fmri_dir),
        "graphs": _providers,
        "bundle": lambda: _bundle(bundle),
        "disk": _space,
    }
    findings = [_checked(subject, check) for subject, check in checks.items()]
    if as_json:
        Console().print_json(strict_json.dumps([asdict(f) for f in findings]))
    else:
        _show(findings)
    return int(any(f.state == "bad" for f in findings))


def _checked(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except RtDecodeError as error:
        return Finding(subject, "bad", str(error))


def _machine() -> Finding:
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Finding("machine", "ok", f"rtdecode {__version__} on {system}")


def _streams(name: str | None) -> Finding:
    from rtdecode.liblsl import pylsl
    from streaming.sources.lsl import seen, select

    streams = pylsl.resolve_streams(wait_time=_LOOK_S)
    library = f"liblsl {pylsl.library_version()}"
    if name is not None and not select(streams, name):
        return Finding(
            "LSL",
            "bad",
            f"{library}: no stream '{name}'; seen: {seen(streams)}",
            "start the amplifier's LSL outlet, correct the name, or open UDP port 16571 and TCP 16572-16604",
        )
    if not streams:
        return Finding("LSL", "note", f"{library}: no stream on this network", "start the amplifier's outlet")
    return Finding("LSL", "ok", f"{library}: {seen(streams)}")


def _folder(directory: Path | None) -> Finding:
    if directory is None:
        return Finding("folder", "note", "none was given", "give --fmri-dir DIR to have it looked into")
    if not directory.is_dir():
        return Finding("folder", "bad", f"{directory} is not there", "mount the scanner's export folder")
    from streaming.sources.folder import FolderSource

    source = FolderSource(directory, "read")
    until_at = time.monotonic() + _READ_S
    first, count = None, 0
    while volumes := source.drain():
        first, count = first or volumes[0], count + len(volumes)
        if time.monotonic() > until_at:
            break
    if first is None:
        ignored = f", {len(source.ignored)} files of no use" if source.ignored else ""
        return Finding("folder", "note", f"{directory}: no volume yet{ignored}", "see rtdecode volumes DIR")
    size = " x ".join(str(n) for n in first.data.shape)
    least = "at least " if volumes else ""
    found = f"{directory}: {least}{count} volumes of {size} at TR {first.tr_s} s so far"
    return Finding("folder", "ok", found)


def _providers() -> Finding:
    from streaming.engine import providers

    names = providers()
    if names[0] == "CPUExecutionProvider":
        return Finding("graphs", "ok", "ONNX Runtime on the CPU", "on a GPU: pip install 'rtdecode[gpu]'")
    return Finding("graphs", "ok", f"ONNX Runtime with {', '.join(names)}")


def _bundle(name: str) -> Finding:
    from streaming.decoder import Decoder

    read = bundles.load(name)
    Decoder(read)
    reads = " + ".join(read.manifest.modalities)
    return Finding(
        "bundle", "ok", f"{read.manifest.name} {read.digest} reads {reads}; its golden window agrees"
    )


def _space() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    state = "ok" if free > 5 else "note"
    advice = "" if free > 5 else "a recorded hour takes about 3 GB: make room, or give --out elsewhere"
    return Finding("disk", state, f"{free:.0f} GB free here", advice)


def _show(findings: list[Finding]) -> None:
    table = Table(show_header=True, title_justify="left")
    for column in ("", "", "found", "to do"):
        table.add_column(column)
    for f in findings:
        colour = _COLOURS[f.state]
        table.add_row(f.subject, f"[{colour}]{f.state}[/]", escape(f.found), escape(f.advice))
    Console().print(table)
