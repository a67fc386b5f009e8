"""Show the participant a film, each frame at its time and marked: the command ``rtdecode play``.

`run` opens the screen and a thread that decodes ahead, waits for what starts the film (a volume trigger, a
key or a reader), shows every frame when it is due, and pushes a marker for each onto an LSL stream of the
film's own. From these markers, a recording of the session knows when each frame was on the screen.
"""

import contextlib
import math
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rtdecode import terminal
from rtdecode.disk import film_marks, private
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.liblsl import pylsl
from streaming.play import start_trigger
from streaming.play.frames import FilmFile, FilmPictures, Picture, read_film
from streaming.play.screen import FilmWindow, Nowhere, Screen, read_patch
from streaming.play.start_trigger import cancelled
from streaming.session import interrupts

# Period at which window and keyboard are asked while waiting for a frame, s.
_PUMP = 0.02
# Time given to the last markers to reach their readers before the stream is closed, s.
_GRACE = 0.7
# The progress bar is drawn only if at least this much time is left before the next frame, s.
_SLACK = 0.015


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """Options of the command line; see `run`."""

    film: Path
    lsl: str | None = None
    start_on: str = "trigger"
    screen: int | None = None
    headless: bool = False
    patch: str | None = "bottom-right:64"
    trigger: str | None = None
    wait: float = 60.0
    log: Path | None = None


@dataclass(slots=True)
class Showing:
    """What became of the frames.

    Attributes
    ----------
    late_s : list of float
        For each shown frame, how long after its time it appeared, s.
    dropped : int
        Frames whose time was over before they could be shown.
    """

    late_s: list[float] = field(default_factory=list)
    dropped: int = 0

    def sentence(self) -> str:
        """Describe the showing in one line."""
        text = f"{len(self.late_s)} frames shown, {self.dropped} dropped"
        if not self.late_s:
            return text
        middle, high = 1e3 * np.percentile(self.late_s, [50, 99])
        return f"{text}; late by {middle:.1f} ms (median), {high:.1f} ms (p99)"


def run(options: PlayOptions) -> int:
    """Show a film and mark its frames on the LSL stream ``NAME-film``.

    Frame n is due at start + n / fps on the local clock. A frame whose time is over is dropped, so that
    delays never add up.

    Parameters
    ----------
    options : PlayOptions
        ``film`` is any file that FFmpeg decodes; ``lsl`` is NAME, by default that
        of the only EEG stream on the network; ``start_on`` is ``trigger`` (the
        first volume trigger on ``NAME-markers``), ``key`` (space, or the 5 or t of a button box) or
        ``now``; ``screen`` is the number of the screen to fill, None opens a window; ``patch`` is the
        photodiode's square, ``CORNER:PIXELS``; ``trigger`` is the only text that counts as a trigger;
        ``wait`` is how long ``now`` waits for a reader of the markers, s; ``log`` is a TSV file to be
        written of the frames shown.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    UsageError
        If the film cannot be read, an option is not valid, or options contradict each other.
    RtDecodeError
        If no window can be opened, or the film turns out to be damaged while it is shown.
    """
    _check(options)
    film = read_film(options.film)
    console = terminal.console(stderr=True, soft_wrap=True)
    stop = threading.Event()
    with interrupts.on_interrupt(lambda _name: stop.set()), _log(options.log) as log:
        # The screen comes first: pictures are decoded straight to the size that fits it.
        screen = _screen(film, options)
        pictures = FilmPictures(film, screen.height, screen.width)
        try:
            name = options.lsl
            if name is None:
                name = start_trigger.session_name(options.start_on, lambda: cancelled(screen, stop), console)
            if name is None:
                return 0
            _introduce(film, name, screen, options, console)
            outlet = _outlet(name)
            start = _start(film, name, options, outlet, screen, stop, console)
            if start is not None:
                showing = _Show(film, screen, outlet, pictures, stop, log, console).run(start)
                console.print(f"{'stopped: ' if stop.is_set() else ''}{showing.sentence()}")
        finally:
            pictures.close()
            screen.close()
    return 0


def _check(options: PlayOptions) -> None:
    if options.start_on not in start_trigger.STARTS:
        raise UsageError(
            "play-start-unknown",
            "--start-on {start_on}: choose from {available}",
            start_on=options.start_on,
            available=list(start_trigger.STARTS),
        )
    if options.headless and options.start_on == "key":
        raise UsageError(
            "play-start-key-headless",
            "--start-on key needs a window to be pressed in: leave --headless out, or start on now",
        )
    if options.headless and options.screen is not None:
        raise UsageError(
            "play-screen-headless-conflict",
            "--headless shows nothing, --screen fills a screen: give one of them",
        )
    if options.lsl is not None and not options.lsl.strip():
        raise UsageError(
            "play-lsl-name-empty",
            "--lsl is empty: give the name of the EEG stream, so that its recording finds the film",
        )
    if not 0 <= options.wait < math.inf:
        raise UsageError(
            "play-wait-invalid", "--wait {wait_s:g} must be 0 or more seconds", wait_s=options.wait
        )


def _screen(film: FilmFile, options: PlayOptions) -> Screen:
    if options.headless:
        return Nowhere(film)
    return FilmWindow(film, options.screen, None if options.patch is None else read_patch(options.patch))


def _introduce(film: FilmFile, name: str, screen: Screen, options: PlayOptions, console: Console) -> None:
    where = "nowhere (--headless)" if options.headless else f"at {screen.width} x {screen.height}"
    console.print(
        f"{film.path.name}: {film.frames} frames at {float(film.fps):g} a second, {film.seconds:.1f} s, "
        f"shown {where}; frames are marked on the LSL stream {name}{film_marks.SUFFIX}"
    )
    if film.lost:
        console.print(
            f"the file was cut short: it says that it has {film.lost} frames more. Copy it again to show "
            "all of it."
        )
    if screen.note:
        console.print(f"the window system says: {screen.note}")


def _outlet(name: str) -> pylsl.StreamOutlet:
    # Each showing gets a source id of its own, so that a reader of the last showing's stream does
    # not reconnect to this one unasked.
    source = f"rtdecode-play-{uuid.uuid4().hex}"
    info = pylsl.StreamInfo(
        f"{name}{film_marks.SUFFIX}", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, source
    )
    return pylsl.StreamOutlet(info)


def _start(
    film: FilmFile,
    name: str,
    options: PlayOptions,
    outlet: pylsl.StreamOutlet,
    screen: Screen,
    stop: threading.Event,
    console: Console,
) -> float | None:
    """Wait for what starts the film; return the local time of its first frame, None if called off."""

    def off() -> bool:
        return cancelled(screen, stop)

    if options.start_on == "trigger":
        start = start_trigger.on_trigger(name, options.trigger, float(1 / film.fps), off, console)
    elif options.start_on == "key":
        start = start_trigger.on_key(screen, stop, console)
    else:
        start = start_trigger.on_reader(outlet, options.wait, off, console)
    if start is not None and not outlet.have_consumers():
        console.print(
            f"nobody reads the markers: start `rtdecode stream --lsl {name} --record DIR` first to "
            "have them recorded, or keep them with --log"
        )
    return start


@dataclass(frozen=True, slots=True)
class _Show:
    """One showing of a film, with everything that its loop needs."""

    film: FilmFile
    screen: Screen
    outlet: pylsl.StreamOutlet
    pictures: FilmPictures
    stop: threading.Event
    log: Callable[[int, float, float], None]
    console: Console

    def run(self, start: float) -> Showing:
        film = self.film
        showing = Showing()
        label = film_marks.start_label(film.path.name, float(film.fps), film.frames)
        # Stamped with the film's start, which may be a trigger's stamp and lie before now.
        self.outlet.push_sample([label], start)
        try:
            with _bar(film, self.console) as tick:
                frames = self._frames(start, showing, tick)
            # The last frame stays for its whole time.
            self._until(start + float(frames / film.fps))
        finally:
            # Even after an error, turn the screen black and mark the film's end.
            self.screen.draw(None, white=False)
            self.outlet.push_sample([film_marks.END], self.screen.flip())
            threading.Event().wait(_GRACE)
        return showing

    def _frames(self, start: float, showing: Showing, tick: Callable[[int], None]) -> int:
        """Show every frame whose time is not over; return how many passed, shown or not."""
        fps = float(self.film.fps)
        number = 0
        while (picture := self._next()) is not False:
            now = pylsl.local_clock()
            if picture is None or now >= start + (number + 1) / fps:
                showing.dropped += 1
                # All frames up to here are over: the decoder need not scale them, and catches up.
                self.pictures.skip_to = math.floor((now - start) * fps)
            else:
                due = start + number / fps
                # The photodiode's patch changes with every frame shown, not with every frame of
                # the film: its k-th edge is the k-th marker.
                self.screen.draw(picture, white=len(showing.late_s) % 2 == 0)
                if due - now > _SLACK:
                    tick(number)
                if not self._until(due):
                    break
                self._mark(number, start, due, showing)
            number += 1
        return number

    def _mark(self, number: int, start: float, due: float, showing: Showing) -> None:
        # The time at which the window system took the frame. What the screen adds, no program can
        # see: the photodiode measures it.
        shown_at = self.screen.flip()
        self.outlet.push_sample([film_marks.frame_label(number)], shown_at)
        self.log(number, shown_at, shown_at - start)
        showing.late_s.append(shown_at - due)

    def _next(self) -> Picture | Literal[False] | None:
        """Return the next picture, None for a skipped one, or False at the end or if called off."""
        while not cancelled(self.screen, self.stop):
            with contextlib.suppress(queue.Empty):
                try:
                    return self.pictures.next(_PUMP)
                except EOFError:
                    return False
        return False

    def _until(self, due: float) -> bool:
        """Wait until a time of the local clock; return False if the film is to end."""
        while (remaining_s := due - pylsl.local_clock()) > 0 and not cancelled(self.screen, self.stop):
            self.stop.wait(min(remaining_s, _PUMP))
        return not self.stop.is_set()


@contextlib.contextmanager
def _bar(film: FilmFile, console: Console) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; the caller draws it, so that it never delays a frame by itself.

    Yields
    ------
    callable
        Takes the frame's number, and draws at most once a second.
    """
    if not console.is_terminal:
        yield lambda _number: None
        return
    columns = TextColumn("{task.completed:.0f} s", markup=False), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task("playing", total=film.seconds)
        drawn_at = 0.0

        def tick(number: int) -> None:
            nonlocal drawn_at
            if pylsl.local_clock() - drawn_at > 1.0:
                drawn_at = pylsl.local_clock()
                bar.update(task, completed=float(number / film.fps), refresh=True)

        yield tick


@contextlib.contextmanager
def _log(path: Path | None) -> Iterator[Callable[[int, float, float], None]]:
    """Open the table of frames, written line by line.

    A full disk is reported after the film, so that it does not stop it. If no frame was shown, no file is
    left.
    """
    if path is None:
        yield lambda _number, _shown_at, _since: None
        return
    failed: list[OSError] = []
    rows = 0

    def keep(line: str) -> None:
        try:
            if not failed:
                file.write(line)
        except OSError as error:
            failed.append(error)

    def write(number: int, shown_at: float, since: float) -> None:
        nonlocal rows
        rows += 1
        keep(f"{number}\t{shown_at:.6f}\t{since:.6f}\n")

    file = _new(path)
    keep("frame\tshown_at\tsince_start_s\n")
    try:
        yield write
    finally:
        # Closing tries once more to write what did not fit, and fails again on a disk that is still full.
        try:
            file.close()
        except OSError as error:
            failed.append(error)
        if rows == 0:
            path.unlink()
    if failed and rows:
        raise RtDecodeError(
            "play-log-incomplete",
            "--log {path} ends early ({error}): make room. The film was shown.",
            path=path,
            error=failed[0].strerror,
        )


def _new(path: Path) -> IO[str]:
    # Line by line, so that a crash leaves all frames shown so far; never over an existing table.
    try:
        return private.open_file(path, "x", buffering=1)
    except OSError as error:
        raise UsageError(
            "play-log-unwritable",
            "--log {path} cannot be written ({error}). Give a file that is not there yet, in a "
            "folder that is.",
            path=path,
            error=error.strerror,
        ) from error
