"""What a session asks of its acquisition process; a light module, as both processes import it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdecode.disk.identity import new_key
from streaming.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """The flags of ``rtdecode stream`` and their defaults.

    Attributes
    ----------
    lsl : str or None
        Name, type or source id of the EEG stream.
    fmri_dir : Path or None
        The scanner's export folder.
    bundle : str
        A bundle's folder, or the name of a shipped one.
    subject : str or None
        One of the bundle's subjects.
    calibration : Path or None
        A folder made by ``rtdecode calibrate``.
    out, report : Path or None
        Folder of the clips, and file of the report; None lets the session choose.
    seconds : float or None
        Run time to be decoded, s; None goes on until the session is stopped.
    truth : Path or None
        Folder with the film and its events, or the table of events.
    record : Path or None
        Folder of the recording.
    dashboard : str or None
        ``HOST:PORT`` of the operator's page.
    dashboard_token : str or None
        What a viewer of the page has to show; None makes one.
    outlet : str or None
        Name of the LSL streams that emitted clips go out on: ``NAME-clips``, ``NAME-condition`` and
        ``NAME-scores``.
    osc : str or None
        ``HOST:PORT`` of an OSC receiver of emitted clips.
    decoder : str or None
        Addresses of decoders elsewhere, with commas between them; None decodes here.
    token_file : Path or None
        The file with the token of these decoders.
    ca : Path or None
        A site's own authority for their certificates; None takes those that this machine trusts.
    fallback : str or None
        A bundle's folder or name, which decodes here while no decoder elsewhere answers in time.
    wait : float
        Seconds to wait for a run to begin; 0 waits for ever.
    lost_after : float
        Seconds of silence from every source after which the session ends; 0 never ends it.
    existing : str
        What to do with files that lie in the export folder already: ``ignore`` or ``read``.
    dummies : int
        Number of dummy volumes in each run.
    overwrite : bool
        Write into a folder even if it is not empty.
    steps : int or None
        Denoising steps of a clip; None takes the bundle's.
    detail : float or None
        Share that is kept of the detail beyond what the brain told; None takes the bundle's.
    carry, twin : bool
        Carry each clip on from the one before it; show the null-brain twin beside it.
    series : int or None
        Take only the series with this SeriesNumber.
    moco : bool
        Take the scanner's motion-corrected copy instead of the original.
    include : str
        Part of the names of series that are not left out for their name alone.
    peers : tuple of str
        Hosts to ask directly for their LSL streams.
    markers : str or None
        Name of the LSL stream that brings the volume triggers; None chooses one.
    group_readable : bool
        Whether the group may read what the session writes, and not its owner alone.
    """

    lsl: str | None = None
    fmri_dir: Path | None = None
    bundle: str = "phantom"
    subject: str | None = None
    calibration: Path | None = None
    out: Path | None = None
    report: Path | None = None
    seconds: float | None = None
    truth: Path | None = None
    record: Path | None = None
    dashboard: str | None = None
    dashboard_token: str | None = field(default=None, repr=False)
    outlet: str | None = None
    osc: str | None = None
    decoder: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    fallback: str | None = None
    wait: float = 60.0
    lost_after: float = 30.0
    existing: str = "ignore"
    dummies: int = 0
    overwrite: bool = False
    steps: int | None = None
    detail: float | None = None
    carry: bool = True
    twin: bool = False
    series: int | None = None
    moco: bool = False
    include: str = ""
    peers: tuple[str, ...] = ()
    markers: str | None = None
    group_readable: bool = False

    @property
    def modalities(self) -> list[str]:
        """The modalities that have a source."""
        sources = {"eeg": self.lsl, "fmri": self.fmri_dir}
        return [name for name, source in sources.items() if source is not None]


@dataclass(frozen=True, slots=True)
class ResumeState:
    """What an acquisition process had told before it died; the next one goes on from there.

    Attributes
    ----------
    items : list of dict
        Triggers and volumes in the order they came (`streaming.session.resume`); they place the runs in time.
    status : Status
        The last status, ``Status()`` if none had come.
    """

    items: list[dict[str, Any]]
    status: Status


@dataclass(frozen=True, slots=True)
class AcquisitionConfig:
    """What the acquisition process is told: plain values, as they are sent to another process.

    Attributes
    ----------
    bundle : Path
        The bundle's folder, by whatever name the bundle was asked for.
    options : StreamOptions
        The session's flags.
    meta : dict
        Values to write into the recording.
    past : ResumeState or None
        What is known from the acquisition that died before this one; None for the first.
    key : bytes
        Random key of this session, under which names become digests in the recording. It is never written.
    """

    bundle: Path
    options: StreamOptions
    meta: dict[str, Any] = field(default_factory=dict)
    past: ResumeState | None = None
    key: bytes = field(default_factory=new_key, repr=False)
