"""What a session asks of its acquisition process; light, as both processes import it."""

from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from rtdecode.disk.identity import new_key
from streaming.session.mailbox import Mailbox


@dataclass(frozen=True, slots=True)
class Past:
    """What an acquisition process had told before it died: the next one goes on from there.

    Attributes
    ----------
    items : list of dict
        Triggers and volumes in the order they came (`streaming.session.past`); they place the runs in time.
    status : dict
        The last status; empty before the first.
    """

    items: list[dict[str, Any]]
    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """What the acquisition process is to read; plain values, as they cross to another process.

    Attributes
    ----------
    bundle : Path
    lsl : str or None
        Name, type or source id of the EEG stream.
    fmri_dir : Path or None
        The scanner's export folder.
    existing : str
        ``ignore`` or ``read``: files that lie in it already.
    seconds : float or None
        Run time to be decoded.
    dummies : int
        Dummy volumes of each run.
    record : Path or None
        Folder of the recording.
    series : int or None
        Take this SeriesNumber alone.
    moco : bool
        Take the scanner's motion-corrected copy instead of the original.
    calibration : Path or None
        A folder made by ``rtdecode calibrate``.
    subject : str or None
        One of the bundle's subjects.
    peers : tuple of str
        Hosts that are asked for their LSL streams directly.
    meta : dict
        Written into the recording.
    past : Past or None
        Of the acquisition that died before this one.
    key : bytes
        Of this session: under it names become digests in the recording. It is never written.
    """

    bundle: Path
    lsl: str | None
    fmri_dir: Path | None
    existing: str
    seconds: float | None
    dummies: int
    record: Path | None
    series: int | None = None
    moco: bool = False
    calibration: Path | None = None
    subject: str | None = None
    peers: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    past: Past | None = None
    key: bytes = field(default_factory=new_key, repr=False)


def acquire(sources: Sources, mailbox: Mailbox, stop: Event) -> None:
    """Be the acquisition process until `stop` is set."""
    # Only the process that reads pays for what reading imports.
    from streaming.session.acquisition import main

    main(sources, mailbox, stop)
