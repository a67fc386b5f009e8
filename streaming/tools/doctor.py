"""Check one by one what a session needs: the command ``rtdecode doctor``.

`check` loads the bundle and the calibration, listens to the EEG stream, reads the scanner's folder and looks
at the disks. Each check gives a `Finding` that says what was seen and what to do; `tell` prints them as a
table or as JSON. ``rtdecode preflight`` calls the same checks and adds its own.
"""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rtdecode import __version__, installing, strict_json, terminal
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle, engine, providers
from rtdecode.bundle.prepared import check_live
from rtdecode.disk import calibration as calibrations
from rtdecode.disk.calibration import Calibration
from rtdecode.errors import RtDecodeError
from rtdecode.types import Volume
from streaming.checks import table
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import BAD, COLOURS, NOTE, OK, Finding
from streaming.decode.decoder import Decoder
from streaming.tools import doctor_disk, doctor_fmri
from streaming.tools.doctor_disk import DiskFolder

# Time spent looking for streams on the network, s.
_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is to be checked.

    Attributes
    ----------
    lsl : str or None
        The EEG stream to listen to for some seconds; None lists the streams there are.
    fmri_dir : Path or None
        The scanner's folder.
    bundle : str
        The bundle to verify and run. Stream and volumes are judged against it.
    calibration : Path or None
        The calibration of the session to come.
    out, record : Path or None
        Folders that the session is to write into. If `out` is not given, its default is judged.
    minutes : float
        Length of the session, to tell whether it fits on the disks.
    """

    lsl: str | None
    fmri_dir: Path | None
    bundle: str
    calibration: Path | None = None
    out: Path | None = None
    record: Path | None = None
    minutes: float = 60.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, and what it was found in.

    Attributes
    ----------
    bundle : Bundle or None
        None if it could not be loaded.
    calibration : Calibration or None
        None if none was given, or if it does not fit the bundle.
    capture : EegCapture or None
        What came from the EEG stream; None if nobody listened to it.
    volume : Volume or None
        A volume of the series that a session would read.
    """

    findings: list[Finding]
    bundle: Bundle | None
    calibration: Calibration | None
    capture: EegCapture | None
    volume: Volume | None


def run(options: CheckOptions, *, as_json: bool) -> int:
    """Check everything, and say what to do about each thing that is missing.

    Returns
    -------
    int
        0, or 1 if a session would be refused or degraded.
    """
    # On stderr, so that stdout holds nothing but the report.
    with terminal.console(stderr=True).status("looking and listening, up to 25 s"):
        checked = check(options)
    return tell(checked.findings, as_json=as_json)


def check(options: CheckOptions, listen_s: float = 0.0) -> Checked:
    """Check everything.

    Parameters
    ----------
    listen_s : float
        Listen to the stream for so long at least, s.
    """
    # Bundle and calibration are loaded first, since everything else is judged against them.
    of_runtime = _runtime()
    loaded, of_bundle = _bundle(options.bundle)
    placed, of_calibration = _calibration(options.calibration, loaded)
    of_eeg, capture = _eeg(options.lsl, loaded, listen_s)
    of_fmri, volume = _fmri(options.fmri_dir, loaded, placed)
    findings = [_machine(), *of_eeg, *of_fmri, of_runtime, *of_bundle, *of_calibration]
    if loaded is not None:
        findings += _sources(options, loaded)
        places = [DiskFolder("disk", options.out or Path("runs"), doctor_disk.clips_a_minute(loaded))]
        if options.record is not None:
            rate = doctor_disk.recording_a_minute(loaded, capture and capture.montage, volume)
            places.append(DiskFolder("recording", options.record, rate))
        findings += doctor_disk.judge(places, options.minutes)
    return Checked(findings, loaded, placed, capture, volume)


def tell(findings: list[Finding], *, as_json: bool) -> int:
    """Print findings as a table, or as JSON; return 1 if one of them is bad, else 0."""
    if as_json:
        terminal.console().print_json(strict_json.dumps([asdict(f) for f in findings]))
    else:
        _show(findings)
    return int(any(f.state == BAD for f in findings))


def _sources(options: CheckOptions, bundle: Bundle) -> list[Finding]:
    """Judge whether a source that the bundle reads was given, if any was."""
    sources = {"eeg": options.lsl, "fmri": options.fmri_dir}
    if not any(sources.values()) or any(sources[name] for name in bundle.manifest.modalities):
        return []
    reads = " and ".join(bundle.manifest.modalities)
    return [table.SOURCES_UNREAD.find(bundle=bundle.manifest.name, reads=reads)]


def _machine() -> Finding:
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Finding("machine", OK, f"rtdecode {__version__} on {system}")


def _eeg(name: str | None, bundle: Bundle | None, listen_s: float) -> tuple[list[Finding], EegCapture | None]:
    """Look at the network, and judge the named stream against the bundle."""
    streams = _streams(name)
    if name is None or bundle is None or streams.state == BAD:
        return [streams], None
    # Imported only here, so that without liblsl everything else is still checked.
    from streaming.tools import doctor_eeg

    judged, capture = doctor_eeg.judge(name, bundle, listen_s)
    return [streams, *judged], capture


def _streams(name: str | None) -> Finding:
    try:
        from rtdecode.liblsl import pylsl
    except RtDecodeError as error:
        return Finding("LSL", BAD, str(error))
    from streaming.sources.lsl.source import ambiguity, choice, select, stream_names

    streams = pylsl.resolve_streams(wait_time=_LOOK_S)
    library = f"liblsl {pylsl.library_version()}"
    matches = [] if name is None else select(streams, name)
    if name is not None and (several := ambiguity(matches, name)):
        matches_text, _, advice = several.rpartition(". ")
        return Finding("LSL", BAD, f"{library}: {matches_text}", advice)
    if name is not None and not matches:
        listing = f"{library}: no stream '{name}'; seen: {stream_names(streams)}"
        ports = "open UDP port 16571 and TCP 16572-16604 to it"
        return Finding("LSL", BAD, listing, f"{table.EEG_AWAITED.advice}, or {ports}")
    if not streams:
        return Finding("LSL", NOTE, f"{library}: no stream on this network", "start the amplifier's outlet")
    listing = f"{library}: {stream_names(streams)}"
    if name is not None and (chosen := choice(matches[0], name)):
        listing = f"{listing}. {chosen}"
    advice = "" if name is not None else "give --lsl NAME to have one judged"
    return Finding("LSL", OK, listing, advice)


def _fmri(
    directory: Path | None, bundle: Bundle | None, calibration: Calibration | None
) -> tuple[list[Finding], Volume | None]:
    """Look into the folder, and judge its volumes against the bundle."""
    if directory is None:
        advice = "give --fmri-dir DIR to have it checked"
        return [Finding("folder", NOTE, "no folder given", advice)], None
    if not directory.is_dir():
        return [table.FOLDER_MISSING.find(folder=directory)], None
    return doctor_fmri.judge(doctor_fmri.look(directory), bundle, calibration)


def _bundle(name: str) -> tuple[Bundle | None, list[Finding]]:
    """Load the bundle, decode its golden window on what a session would use, and say what that was."""
    try:
        read = bundles.load(name)
        check_live(read.manifest)
        # Making the decoder runs the golden window on this machine.
        decoder = Decoder(read)
    except RtDecodeError as error:
        return None, [table.BUNDLE_REFUSED.find(error=error)]
    return read, _decoded(read, decoder)


def _calibration(folder: Path | None, bundle: Bundle | None) -> tuple[Calibration | None, list[Finding]]:
    """Load the calibration; return it only if it fits the bundle."""
    if folder is None or bundle is None:
        return None, []
    try:
        read = calibrations.load(folder)
        if bundle.projection is not None:
            read.matched(bundle.projection)
    except RtDecodeError as error:
        return None, [Finding("calibration", BAD, str(error), "calibrate with --bundle")]
    sentence = f"{read.record.features} features of {read.record.volumes} volumes, {read.record.made_at}"
    return read, [Finding("calibration", OK, sentence)]


def _runtime() -> Finding:
    """Judge which ONNX Runtime is installed, and whether two packages of it are."""
    try:
        names = providers.available()
    except RtDecodeError as error:
        return Finding("graphs", BAD, str(error))
    clash = providers.clash()
    if clash is not None:
        return Finding("graphs", BAD, clash, "decode with one of the packages alone")
    sentence = f"ONNX Runtime {providers.runtime().__version__}"
    if names == [providers.CPU]:
        return Finding("graphs", OK, f"{sentence} on the CPU", f"on a GPU: {installing.command('gpu')}")
    return Finding("graphs", OK, f"{sentence} with {', '.join(names)}")


def _decoded(bundle: Bundle, decoder: Decoder) -> list[Finding]:
    """Say what runs each stage, how far the golden window is off, and whether a GPU has ever run the graphs.

    Parameters
    ----------
    decoder : Decoder
        Of that bundle. It decoded the golden window when it was made.
    """
    manifest = bundle.manifest
    reads = " + ".join(manifest.modalities)
    far = ", ".join(f"{name} {error:.2g}" for name, error in decoder.differences.items())
    sentence = f"{manifest.name} {bundle.digest} reads {reads}; its golden window agrees (off by {far})"
    status = manifest.parity.get("status")
    if status is not None:
        sentence += f"; parity of its export: {status}"
    state = NOTE if decoder.notes else OK
    engines = Finding("engines", state, " ".join([f"{engine.places(decoder.runs_on)}.", *decoder.notes]))
    return [Finding("bundle", OK, sentence), engines, _of_gpu(bundle)]


def _of_gpu(bundle: Bundle) -> Finding:
    gpu = bundle.manifest.gpu
    if gpu is None:
        sentence = (
            f"{bundle.manifest.name}: not run on a GPU. Its graphs and engines were checked on CPUs alone"
        )
        return Finding("GPU", NOTE, sentence)
    return Finding("GPU", OK, f"{bundle.manifest.name} was run on {gpu}")


def _show(findings: list[Finding]) -> None:
    table = Table(show_header=True, title_justify="left")
    for column in ("", "", "found", "to do"):
        table.add_column(column)
    for f in findings:
        colour = COLOURS[f.state]
        table.add_row(f.subject, Text(f.state, colour), f.found, f.advice)
    terminal.console().print(table)
