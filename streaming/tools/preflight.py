"""Say whether a run may start: the command ``rtdecode preflight``.

`run` makes the checks of ``rtdecode doctor`` and adds what only some seconds of listening tell of a
participant who lies in the scanner with the amplifier running: whether volumes come, triggers, the clocks,
impedances, the electrocardiogram, the closed eyes' alpha, and whether the calibration is of this head. It
speaks about data alone, never about safety.
"""

import sys
import time

import psutil
from rich.console import Console

from rtdecode import terminal
from rtdecode.bundle import EegInput
from rtdecode.errors import GeometryError, UsageError
from rtdecode.types import Volume
from streaming.checks import table
from streaming.checks.eeg_capture import EegCapture
from streaming.checks.finding import NOTE, OK, Finding
from streaming.sources.folder.source import FolderSource
from streaming.tools import doctor, doctor_fmri, preflight_fmri
from streaming.tools.doctor import Checked, CheckOptions
from streaming.tools.doctor_fmri import FolderVolumes

# What is said of both by the doctor and, after listening, by this command: the latter counts.
_CLOSER = "triggers"


def run(options: CheckOptions, as_json: bool, *, seconds: float = 20.0, eyes_closed: bool = False) -> int:
    """Check everything, and say whether a run may start.

    Parameters
    ----------
    as_json : bool
        Print JSON instead of a table.
    seconds : float
        How long to listen, s.
    eyes_closed : bool
        Ask for closed eyes, and listen once more.

    Returns
    -------
    int
        0 if a run may start, else 1.

    Raises
    ------
    UsageError
        If there is nothing to listen to.
    """
    if options.lsl is None and options.fmri_dir is None:
        raise UsageError(
            "preflight-source-missing",
            "nothing to listen to: give --lsl NAME, --fmri-dir DIR, or both.",
        )
    if eyes_closed and options.lsl is None:
        raise UsageError(
            "preflight-eyes-closed-without-eeg",
            "--eyes-closed reads the EEG: give --lsl NAME.",
        )
    console = terminal.console(stderr=True)
    began_at = time.monotonic()
    # Files that are there already are passed over, as by a session: what comes from now on is armed.
    source = None
    if options.fmri_dir is not None and options.fmri_dir.is_dir():
        source = FolderSource(options.fmri_dir, "ignore", bound=False)
    with console.status(f"looking and listening, about {seconds + 10:.0f} s"):
        checked = doctor.check(options, seconds)
        time.sleep(max(0.0, began_at + seconds - time.monotonic()))
        heard_s = time.monotonic() - began_at
        came = None if source is None else doctor_fmri.read(source)
        findings = _findings(checked, options, came, heard_s)
    if eyes_closed:
        findings.append(_eyes(checked, options, seconds, console))
    return doctor.tell(findings, as_json=as_json)


def _findings(
    checked: Checked, options: CheckOptions, came: FolderVolumes | None, heard_s: float
) -> list[Finding]:
    findings = list[Finding]()
    if came is not None:
        findings.append(preflight_fmri.export(came.directory, came, heard_s))
    volumes = None if came is None else sum(len(series.readable) for series in came.series)
    findings += _eeg(checked, volumes)
    if checked.calibration is not None and options.fmri_dir is not None:
        findings.append(preflight_fmri.head(_newest(checked, came), checked.calibration))
    findings += battery(options.minutes)
    closer = {finding.subject for finding in findings} & {_CLOSER}
    return [finding for finding in checked.findings if finding.subject not in closer] + findings


def _eeg(checked: Checked, volumes: int | None) -> list[Finding]:
    """Judge what was heard of the EEG; nothing if nothing came, which the doctor says already."""
    capture = checked.capture
    bundle = checked.bundle
    if capture is None or bundle is None or capture.montage is None or not capture.chunks:
        return []
    # Imported only here, so that without liblsl everything else is still checked.
    from streaming.sources.lsl import impedance
    from streaming.tools import preflight_eeg, preflight_sync
    from streaming.tools.preflight_clean import clean

    tr = bundle.manifest.grid.tr
    tr_s = None if tr is None else float(tr)
    cleaned = clean(capture, capture.montage, tr_s)
    sent = capture.impedances | impedance.sent(capture.montage.channels, capture.host)
    return [
        preflight_sync.triggers(capture, tr_s, volumes),
        preflight_sync.sync(capture, cleaned, tr_s),
        preflight_eeg.impedances(sent),
        preflight_eeg.ecg(cleaned),
    ]


def _newest(checked: Checked, came: FolderVolumes | None) -> Volume | None:
    """Return the newest volume of the series that a session would read, or of any that came."""
    reference = checked.volume
    fresh = [] if came is None else [series.last for series in came.series]
    alike = [volume for volume in fresh if reference is None or volume.data.shape == reference.data.shape]
    return alike[-1] if alike else reference


def battery(minutes: float) -> list[Finding]:
    """Judge whether this machine's battery lasts for a session of some minutes; nothing without a battery."""
    state = psutil.sensors_battery()
    if state is None:
        return []
    charged = f"{state.percent:.0f} % charged"
    if state.power_plugged:
        return [Finding("battery", OK, f"{charged}, on mains")]
    if state.secsleft is not None and 0 <= state.secsleft < 60 * minutes:
        values = {"percent": state.percent, "left_minutes": state.secsleft / 60, "minutes": minutes}
        return [table.BATTERY.find(**values)]
    return [Finding("battery", NOTE, f"{charged}, not on mains", table.BATTERY.advice)]


def _eyes(checked: Checked, options: CheckOptions, seconds: float, console: Console) -> Finding:
    """Have the eyes closed, listen once more, and compare."""
    from streaming.tools import preflight_eeg

    eeg_input = checked.bundle.manifest.eeg if checked.bundle is not None else None
    if checked.bundle is None or checked.capture is None or eeg_input is None or not checked.capture.chunks:
        sentence = "unknown: no EEG came with the eyes open"
        return Finding("alpha", NOTE, sentence, "see the lines above")
    console.print(
        f"Ask the participant to close the eyes for {seconds:g} s, and press Enter.",
        highlight=False,
        soft_wrap=True,
    )
    # Without a keyboard this returns at once: the eyes are then taken to be closed.
    sys.stdin.readline()
    with console.status(f"listening with the eyes closed, about {seconds:.0f} s"):
        closed = _closed(options, eeg_input, seconds)
    console.print("The eyes may be opened.", highlight=False)
    if closed is None:
        return Finding("alpha", NOTE, "unknown: no EEG came with the eyes closed", "see rtdecode eeg")
    return preflight_eeg.alpha(checked.capture, closed, checked.bundle, eeg_input)


def _closed(options: CheckOptions, eeg_input: EegInput, seconds: float) -> EegCapture | None:
    from streaming.tools import doctor_eeg

    assert options.lsl is not None
    try:
        return doctor_eeg.listen(options.lsl, eeg_input.band, seconds)
    except GeometryError:
        return None
