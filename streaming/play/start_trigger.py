"""Wait for what starts a film: a volume trigger, a key, or a reader of its markers.

`on_trigger`, `on_key` and `on_reader` return the local time of the film's first frame, or None if it was
called off. `session_name` finds the name of the session's EEG stream where it was not given.
"""

import threading
from collections.abc import Callable

from rich.console import Console

from rtdecode.disk import film_marks
from rtdecode.liblsl import pylsl
from rtdecode.types import Trigger
from streaming.play.screen import Screen
from streaming.sources.lsl.markers import MarkerSource
from streaming.sources.lsl.source import LslSource, stream_names

STARTS = ("trigger", "key", "now")

# How often each kind of start is looked for, s.
_TRIGGER_POLL = 0.002
_KEY_POLL = 0.005
_READER_POLL = 0.02
# If there is no stream NAME-markers by then, stim channels and other marker streams count too, s.
_STIM_AFTER = 3.0
_SAY_EVERY = 5.0
# A film that waits for no trigger does not wait longer for the EEG stream to be seen, s.
_LOOK_WITHIN = 2.0
# What the markers are named after where there is no EEG stream.
_NOBODY = "rtdecode"
# From the start to the first frame, where no trigger gives the time, s.
_LEAD = 0.05


def session_name(start_on: str, off: Callable[[], bool], console: Console) -> str | None:
    """Find the only EEG stream on the network, whose session is to hear of the film.

    A film that starts with a trigger waits for it, for ever. Any other is shown without it, and its markers
    then belong to no EEG stream.

    Parameters
    ----------
    start_on : str
        One of `STARTS`.
    off : callable
        Returns whether the film is called off.
    console : rich.console.Console
        Where it is said what is waited for, and which stream was found.

    Returns
    -------
    str or None
        Its name; None if called off.
    """
    resolver = pylsl.ContinuousResolver(forget_after=5.0)
    began = pylsl.local_clock()
    said_at = began + _LOOK_WITHIN - _SAY_EVERY
    while not off():
        streams = resolver.results()
        names = sorted({stream.name() for stream in streams if stream.type().lower() == "eeg"})
        now = pylsl.local_clock()
        # By then every stream that is there has answered, so that the only one is the only one.
        if now - began > _LOOK_WITHIN and len(names) == 1:
            console.print(f"without --lsl: the EEG stream is {names[0]}, the only one on this network")
            return names[0]
        several = f"there are several EEG streams ({', '.join(names)}): choose one by --lsl NAME"
        none = f"there is no EEG stream on this network (seen: {stream_names(streams)})"
        state = several if names else none
        if now - began > _LOOK_WITHIN and start_on != "trigger":
            console.print(f"without --lsl: {state}. No recording hears of this film: keep it with --log")
            return _NOBODY
        if now - said_at > _SAY_EVERY:
            said_at = now
            console.print(
                f"waiting for the EEG stream, whose triggers start the film: {state}; --start-on key needs "
                "none"
            )
        threading.Event().wait(_READER_POLL)
    return None


def on_trigger(
    lsl: str, label: str | None, frame_s: float, off: Callable[[], bool], console: Console
) -> float | None:
    """Wait, for ever, for a volume trigger.

    Triggers are found as `rtdecode stream` finds them: on ``NAME-markers``, or else on a stim channel or
    another marker stream.

    Parameters
    ----------
    lsl : str
        NAME.
    label : str or None
        Text of the trigger, as for `is_trigger`.
    frame_s : float
        Duration of a frame, s.
    off : callable
        Returns whether the film is called off.
    console : rich.console.Console
        Where it is said what is waited for.

    Returns
    -------
    float or None
        The trigger's own stamp if it arrived within a frame, otherwise the time it arrived; None if called
        off.
    """
    box = MarkerSource(lsl, "-markers")
    amplifier = None
    began = pylsl.local_clock()
    said_at = began - _SAY_EVERY
    other = ""
    while not off():
        now = pylsl.local_clock()
        if amplifier is None and not box.is_found and now - began > _STIM_AFTER:
            amplifier = LslSource(lsl)
        for mark in _triggers(box, amplifier):
            if is_trigger(mark.label, label):
                now = pylsl.local_clock()
                # With an older stamp the film would begin with dropped frames.
                return mark.stamp if 0 <= now - mark.stamp < frame_s else now
            other = f"; seen: '{mark.label}', which --trigger would take"
        if now - said_at > _SAY_EVERY:
            said_at = now
            state = f"no {lsl}-markers; {amplifier.state}" if amplifier and not box.is_found else box.state
            console.print(f"waiting for the volume trigger {label or 'R128'}: {state}{other}")
        threading.Event().wait(_TRIGGER_POLL)
    return None


def _triggers(box: MarkerSource, amplifier: LslSource | None) -> list[Trigger]:
    marks = [Trigger(stamp, label, arrived_at) for label, stamp, arrived_at in box.poll()]
    return marks + [m for m in (amplifier.poll() if amplifier else []) if isinstance(m, Trigger)]


def is_trigger(label: str, trigger_text: str | None) -> bool:
    """Return whether a marker is the volume trigger: `trigger_text`, else ``R128`` or a decimal number."""
    # The markers of another showing are never triggers, even where their text was asked for.
    if film_marks.is_film_mark(label):
        return False
    return label == trigger_text if trigger_text is not None else label == "R128" or label.isdecimal()


def on_key(screen: Screen, stop: threading.Event, console: Console) -> float | None:
    """Wait for a key in the window; return the local time of the first frame, None if called off."""
    console.print("press space in the window to start (5 and t do it too); Esc ends")
    while not stop.wait(_KEY_POLL):
        commands = screen.commands()
        if "quit" in commands:
            stop.set()
        elif "start" in commands:
            return pylsl.local_clock() + _LEAD
    return None


def on_reader(
    outlet: pylsl.StreamOutlet, wait: float, off: Callable[[], bool], console: Console
) -> float | None:
    """Wait up to `wait` seconds for a reader of the markers, then start with or without one.

    Markers are not kept for readers that come later. Return the local time of the first frame, or None if
    called off.
    """
    until = pylsl.local_clock() + wait
    if wait:
        console.print(f"waiting up to {wait:g} s for a reader of the markers")
    while not outlet.have_consumers() and pylsl.local_clock() < until:
        if off():
            return None
        threading.Event().wait(_READER_POLL)
    return pylsl.local_clock() + _LEAD


def cancelled(screen: Screen, stop: threading.Event) -> bool:
    """Attend to window and keyboard; return whether the film is to end."""
    if "quit" in screen.commands():
        stop.set()
    return stop.is_set()
