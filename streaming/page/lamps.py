"""The state of every part of a session as a lamp: what is found, the likely cause, and what to do.

Causes are told from what still comes: triggers without volumes mean that the scanner runs and its export does
not. Nothing here is about safety.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtdecode.bundle.brain import LEAST
from streaming.session.news import is_stale
from streaming.sinks.presence import IN_A_ROW, NAMES, READ, mean_odds
from streaming.status import Status

GREEN = "green"
AMBER = "amber"
RED = "red"
# Not asked for, or not known.
GREY = "grey"
_WORSE = (GREY, GREEN, AMBER, RED)

# A source that has been silent for so long is told, and is missing in the clips by now, s.
_SILENT = {"EEG": (2.0, 8.0), "fMRI": (6.0, 20.0)}
# Triggers that come at most so many TRs apart say that the scanner runs.
_RUNNING_TRS = 3.0
# So many volumes within one TR are a burst.
_BURST = 3
_UNBELIEVED = (
    "Do not believe the clips. Check the cap, the participant's place in the scanner, and that --bundle is "
    "this participant's."
)
# A worse state has to last so long before it is shown, and a better one so long, s: a lamp must not flutter.
_HOLDS = {"worse": 1.0, "better": 2.0}


@dataclass(frozen=True, slots=True)
class Lamp:
    """The state of one part.

    Attributes
    ----------
    name : str
    colour : str
        ``green``, ``amber``, ``red``, or ``grey``: not asked for, or not known.
    found : str
        What is known of it.
    advice : str
        The likely cause and what to do; empty if nothing has to be done.
    """

    name: str
    colour: str
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """For how long each source has sent nothing, s; None for what never came.

    Attributes
    ----------
    eeg, volume, trigger : float or None
    """

    eeg: float | None = None
    volume: float | None = None
    trigger: float | None = None


def eeg(status: Status, silence: Silence, *, asked: bool) -> Lamp:
    """Tell of the EEG stream."""
    if not asked:
        return Lamp("EEG", GREY, "not asked for")
    if silence.eeg is None:
        return Lamp("EEG", AMBER, "no sample yet", "Start the amplifier's LSL stream, or correct its name.")
    late, gone = _SILENT["EEG"]
    if silence.eeg > late:
        return Lamp(
            "EEG",
            RED if silence.eeg > gone else AMBER,
            f"silent for {silence.eeg:.0f} s",
            "The amplifier's program has stopped sending, or the network is down. The session takes the "
            "stream up again by itself.",
        )
    counted = status["counters"]["eeg"]
    bad = counted.get("bad_channels") or []
    residual = counted.get("artifact_residual_db")
    found = f"{counted.get('rate_hz') or 0:.0f} Hz, {counted.get('gaps') or 0} gaps"
    if residual is not None:
        found += f", gradient residual {residual:.1f} dB"
    if bad:
        return Lamp(
            "EEG", AMBER, f"{found}; bad: {', '.join(bad)}", "Check these electrodes and their contact."
        )
    return Lamp("EEG", GREEN, found)


def fmri(status: Status, silence: Silence, tr_s: float, *, asked: bool) -> Lamp:
    """Tell of the scanner's export."""
    if not asked:
        return Lamp("fMRI", GREY, "not asked for")
    running = silence.trigger is not None and silence.trigger <= _RUNNING_TRS * tr_s
    late, gone = (max(limit, trs * tr_s) for limit, trs in zip(_SILENT["fMRI"], (4, 12), strict=True))
    if silence.volume is None:
        # The first volume comes after its own trigger, and may take as long as any.
        if running and (status["counters"]["eeg"].get("triggers") or 0) * tr_s <= late:
            return Lamp("fMRI", AMBER, "triggers, and no volume yet")
        if running:
            return Lamp(
                "fMRI",
                RED,
                "triggers, but no files",
                "The scanner runs. The console's export is off, or its mapped drive is gone: check both.",
            )
        return Lamp("fMRI", AMBER, "no volume yet", "Start the scanner's run with the export switched on.")
    counted = status["counters"]["fmri"]
    if silence.volume > late:
        found = f"no volume for {silence.volume:.0f} s"
        colour = RED if silence.volume > gone else AMBER
        if running:
            advice = (
                "The export stopped in the middle of a run, while triggers go on: check the export, the "
                "console's disk and its mapped drive."
            )
        else:
            advice = "The run is over, or the scanner has stopped: triggers are missing too."
        return Lamp("fMRI", colour, found, advice)
    found = f"{counted.get('volumes') or 0} volumes, {counted.get('missing') or 0} missing"
    burst = counted.get("burst") or 0
    if burst >= _BURST:
        found += f", bursts of up to {burst}"
    return Lamp("fMRI", GREEN, found)


def triggers(status: Status, silence: Silence, tr_s: float, *, asked: bool) -> Lamp:
    """Tell of the volume triggers in the EEG."""
    if not asked or not status["triggers_expected"]:
        return Lamp("triggers", GREY, "not expected")
    if silence.trigger is None:
        return Lamp(
            "triggers",
            AMBER,
            "none yet",
            "Check the cable from the scanner to the amplifier's trigger input.",
        )
    running = silence.volume is not None and silence.volume <= _RUNNING_TRS * tr_s
    clock = status["counters"]["clock"]
    residual = clock.get("residual_ms")
    if silence.trigger > _RUNNING_TRS * tr_s and running:
        return Lamp(
            "triggers",
            AMBER,
            f"none for {silence.trigger:.0f} s, while volumes come",
            "Check the trigger cable. Until it is back, windows rest on the times of the files.",
        )
    found = f"{status['counters']['eeg'].get('triggers') or 0}"
    if residual is not None:
        found += f", line fits to {residual:.3f} ms"
    return Lamp("triggers", GREEN, found)


def clips(age_s: float | None, late: int, finals: int, hop_s: float) -> Lamp:
    """Tell whether clips come, and in time."""
    if age_s is None:
        return Lamp("clips", GREY, "none yet")
    if is_stale(age_s, hop_s):
        return Lamp(
            "clips",
            RED if age_s > 4 * hop_s else AMBER,
            f"the last one is {age_s:.0f} s old",
            "What is shown is not the present. Look at the sources, then at this machine's load.",
        )
    return Lamp("clips", GREEN, f"{finals} finals, {late} late")


def brain(finals: Sequence[Mapping[str, Any]]) -> Lamp:
    """Tell whether the newest finals hold a brain that the bundle can read, by their records."""
    newest = [one for one in finals[-IN_A_ROW:] if one["brain"] is not None]
    if not newest:
        return Lamp("brain", GREY, "not told")
    probabilities = [one["brain"] for one in newest]
    with_brain = sum(value >= LEAST for value in probabilities)
    found = f"read in {with_brain} of the last {len(newest)} finals"
    unread = [name for name in NAMES if _unread(newest, name)]
    if unread:
        gone = [f"{NAMES[name]}: nothing readable in {IN_A_ROW} finals" for name in unread]
        still_read = [READ[name] for name in NAMES if name not in unread and _given(newest, name)]
        return Lamp("brain", RED, "; ".join([*gone, *still_read]), _UNBELIEVED)
    if len(newest) < IN_A_ROW or mean_odds(probabilities) >= 0:
        return Lamp("brain", GREEN if with_brain == len(newest) else AMBER, found)
    return Lamp("brain", RED, found, _UNBELIEVED)


def _given(finals: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return what finals say of one modality."""
    probabilities = [(one.get("brain_by") or {}).get(name) for one in finals]
    return [value for value in probabilities if value is not None]


def _unread(finals: Sequence[Mapping[str, Any]], name: str) -> bool:
    probabilities = _given(finals, name)
    return len(probabilities) == IN_A_ROW and all(value < LEAST for value in probabilities)


def recording(fault: str, *, asked: bool) -> Lamp:
    """Tell whether what arrives is kept."""
    if not asked:
        return Lamp("recording", GREY, "off: nothing is kept (--record)")
    if fault:
        return Lamp("recording", RED, fault, "Nothing more is recorded. Free space, and start a new session.")
    return Lamp("recording", GREEN, "on")


def decoder(away_since: float | None, *, falls_back: bool) -> Lamp:
    """Tell whether a decoder elsewhere answers.

    Parameters
    ----------
    away_since : float or None
        Wall time since which none does, s; None while one does.
    falls_back : bool
        Whether another bundle decodes here meanwhile.
    """
    if away_since is None:
        return Lamp("decoder", GREEN, "answers")
    found = f"away since {time.strftime('%H:%M:%S', time.localtime(away_since))}"
    if falls_back:
        return Lamp("decoder", AMBER, found, "The fallback decodes. Check the network, and `rtdecode serve`.")
    return Lamp("decoder", RED, found, "Windows are skipped. Check the network, and `rtdecode serve`.")


class Steadied:
    """Lamps that do not flutter: a change is shown only once it has lasted."""

    def __init__(self) -> None:
        self._shown: dict[str, Lamp] = {}
        self._since: dict[str, float] = {}

    def take(self, lamps: Sequence[Lamp], now_at: float) -> list[Lamp]:
        """Return the lamps as they are shown, in the same order.

        Parameters
        ----------
        lamps : sequence of Lamp
            As they are now.
        now_at : float
            Local clock, s.
        """
        return [self._steadied(lamp, now_at) for lamp in lamps]

    def _steadied(self, lamp: Lamp, now_at: float) -> Lamp:
        shown = self._shown.get(lamp.name, lamp)
        if shown.colour == lamp.colour:
            self._since.pop(lamp.name, None)
            self._shown[lamp.name] = lamp
            return lamp
        worse = _WORSE.index(lamp.colour) > _WORSE.index(shown.colour)
        lasted_s = now_at - self._since.setdefault(lamp.name, now_at)
        if lasted_s < _HOLDS["worse" if worse else "better"]:
            return shown
        del self._since[lamp.name]
        self._shown[lamp.name] = lamp
        return lamp
