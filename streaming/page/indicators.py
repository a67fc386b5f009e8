"""The state of every part of a session as a lamp: what is found, the likely cause, and what to do.

Causes are told from what still comes: triggers without volumes mean that the scanner runs and its export does
not. Nothing here is about safety.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdecode.bundle.brain import LEAST
from streaming.checks import signals, table
from streaming.checks.finding import OFF, OK, STATES, Finding, joined, judged
from streaming.sinks.presence import IN_A_ROW, NAMES, READ, mean_odds
from streaming.status import Status

# A worse state has to last so long before it is shown, and a better one so long, s: a lamp must not flutter.
_HOLDS = {"worse": 1.0, "better": 2.0}


@dataclass(frozen=True, slots=True)
class Silence:
    """For how long each source has sent nothing, s; None for what never came."""

    eeg: float | None = None
    volume: float | None = None
    trigger: float | None = None


def eeg(status: Status, silence: Silence, *, requested: bool, decoded: bool = True) -> Finding:
    """Judge the EEG stream, of which a bundle of fMRI alone takes the triggers."""
    if not requested:
        return Finding("EEG", OFF, "not asked for")
    if not decoded:
        return Finding("EEG", OFF, "not read by this bundle")
    if silence.eeg is None:
        return table.EEG_AWAITED.find()
    silent = table.EEG_SILENT.find(silent_s=silence.eeg)
    if silent.state != OK:
        return silent
    report = status.counters["eeg"]
    return joined("EEG", [table.EEG_RATE.find(rate_hz=report.get("rate_hz") or 0), *signals.eeg(report)])


def fmri(status: Status, silence: Silence, tr_s: float, *, requested: bool) -> Finding:
    """Judge the scanner's export."""
    if not requested:
        return Finding("fMRI", OFF, "not asked for")
    scanning = _comes(silence.trigger, tr_s)
    if silence.volume is None and not scanning:
        return table.VOLUMES_AWAITED.find()
    if silence.volume is None:
        # The first volume comes after its own trigger, and may take as long as any.
        since_s = (status.counters["eeg"].get("triggers") or 0) * tr_s
        is_due = signals.volumes_stopped(since_s, tr_s).state != OK
        return (table.EXPORT_OFF if is_due else table.FIRST_VOLUME_DUE).find()
    cause = table.EXPORT_STOPPED if scanning else table.RUN_OVER
    stopped = signals.volumes_stopped(silence.volume, tr_s, cause)
    return stopped if stopped.state != OK else signals.volumes(status.counters["fmri"])


def triggers(status: Status, silence: Silence, tr_s: float, *, requested: bool) -> Finding:
    """Judge the volume triggers in the EEG."""
    if not requested or not status.triggers_expected:
        return Finding("triggers", OFF, "not expected")
    if silence.trigger is None:
        return table.TRIGGERS_AWAITED.find(triggers="no trigger")
    if not _comes(silence.trigger, tr_s) and _comes(silence.volume, tr_s):
        silent_s = silence.trigger
        return table.TRIGGERS_LOST.find(triggers="no trigger", silent_s=silent_s, volumes="volumes")
    counts = {"triggers": 0} | status.counters["eeg"] | status.counters["clock"]
    return joined("triggers", judged((table.TRIGGERS, table.TRIGGER_FIT), counts))


def _comes(silent_s: float | None, tr_s: float) -> bool:
    """Return whether triggers, or volumes, still come with every TR."""
    return silent_s is not None and silent_s <= table.RUNNING_TRS * tr_s


def clips(age_s: float | None, late: int, finals: int, hop_s: float) -> Finding:
    """Judge whether clips come, and in time."""
    if age_s is None:
        return table.CLIPS_AWAITED.find()
    age = signals.clip_age(age_s, hop_s)
    return age if age.state != OK else table.CLIPS.find(finals=finals, late=late)


def brain(finals: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge whether the newest finals hold a brain that the bundle can read, by their records."""
    newest = [record for record in finals[-IN_A_ROW:] if record["brain"] is not None]
    if not newest:
        return table.BRAIN_UNTOLD.find()
    by = {name: [(record.get("brain_by") or {}).get(name) for record in newest] for name in NAMES}
    by = {name: [value for value in values if value is not None] for name, values in by.items()}
    unread = [name for name, values in by.items() if len(values) == IN_A_ROW and max(values) < LEAST]
    if unread:
        gone = [table.MODALITY_UNREAD.find(modality=NAMES[name], finals=IN_A_ROW) for name in unread]
        still_read = [Finding("brain", OK, READ[name]) for name in by if name not in unread and by[name]]
        return joined("brain", [*gone, *still_read], "; ")
    probabilities = [record["brain"] for record in newest]
    n_read = sum(value >= LEAST for value in probabilities)
    if len(newest) == IN_A_ROW and mean_odds(probabilities) < 0:
        check = table.BRAIN_GONE
    else:
        check = table.BRAIN_READ if n_read == len(newest) else table.BRAIN_DOUBTED
    return check.find(read=n_read, finals=len(newest))


def recording(fault: str, *, requested: bool) -> Finding:
    """Judge whether what arrives is kept."""
    if not requested:
        return table.NOT_RECORDED.find()
    return table.RECORDING_BROKE.find(fault=fault) if fault else table.RECORDED.find()


def decoder(away_since: float | None, *, falls_back: bool) -> Finding:
    """Judge a decoder elsewhere, by the wall time since which it is away, s; another may decode meanwhile."""
    if away_since is None:
        return table.DECODER_THERE.find()
    since = time.strftime("%H:%M:%S", time.localtime(away_since))
    return (table.DECODER_REPLACED if falls_back else table.DECODER_AWAY).find(since=since)


class Debounced:
    """Shows a change of a lamp only once it has lasted."""

    def __init__(self) -> None:
        self._shown: dict[str, Finding] = {}
        self._since: dict[str, float] = {}

    def take(self, lamps: Sequence[Finding], now_at: float) -> list[Finding]:
        """Return lamps as they are shown, in the same order, at a time of the local clock, s."""
        return [self._steadied(lamp, now_at) for lamp in lamps]

    def _steadied(self, lamp: Finding, now_at: float) -> Finding:
        current = self._shown.get(lamp.subject, lamp)
        if current.state == lamp.state:
            self._since.pop(lamp.subject, None)
            self._shown[lamp.subject] = lamp
            return lamp
        worse = STATES.index(lamp.state) > STATES.index(current.state)
        lasted_s = now_at - self._since.setdefault(lamp.subject, now_at)
        if lasted_s < _HOLDS["worse" if worse else "better"]:
            return current
        del self._since[lamp.subject]
        self._shown[lamp.subject] = lamp
        return lamp
