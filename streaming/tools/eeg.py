"""Show what arrives from amplifiers on this network: the command ``rtdecode eeg``.

`run` looks for EEG streams, follows each with a `Watch`, and shows once a second what these have to say: as a
page on a terminal, or as JSON lines for programs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rtdecode import strict_json, terminal
from rtdecode.liblsl import pylsl, reach
from streaming.checks import signals, table
from streaming.checks.finding import BAD, COLOURS, NOTE, OK, Finding, joined
from streaming.session.interrupts import on_interrupt
from streaming.sources.lsl.source import select, stream_names
from streaming.tools.eeg_watch import Watch

_POLL_S = 0.01
_LOOK_EVERY = 0.5
_SHOW_EVERY = 1.0
_SAY_EVERY = 5.0
# Columns of the page.
_WIDTH = 100


def run(lsl: str | None, seconds: float | None, as_json: bool, *, peers: Sequence[str] = ()) -> int:
    """Follow the EEG streams on the network until Ctrl-C.

    Parameters
    ----------
    lsl : str or None
        Name, type or source id of the stream; None follows every stream.
    seconds : float or None
        Stop after this time; None follows until Ctrl-C.
    as_json : bool
        Instead of the page, write one line a second for each stream to stdout, with the keys of
        `streaming.tools.eeg_watch.KEYS`.
    peers : sequence of str
        Hosts to ask directly, for networks where discovery does not reach them.

    Returns
    -------
    int
        0.
    """
    if peers:
        reach(peers)
    network = _Network(lsl)
    stopped: list[str] = []
    end_at = None if seconds is None else time.monotonic() + seconds
    try:
        with on_interrupt(stopped.append), _json() if as_json else _page(network) as show:
            _follow(
                network, show, lambda: bool(stopped) or (end_at is not None and time.monotonic() >= end_at)
            )
    # A second Ctrl-C arrives as an exception: it ends the command as well as the first one.
    except KeyboardInterrupt:
        pass
    finally:
        network.close()
    return 0


class _Network:
    """The streams on the network, and the watches of those that are followed."""

    def __init__(self, name: str | None) -> None:
        self._wanted = name
        self._resolver = pylsl.ContinuousResolver(forget_after=5.0)
        self._seen: list[pylsl.StreamInfo] = []
        self.watches: dict[str, Watch] = {}

    def look(self) -> None:
        """Look at the network, and follow streams that are new."""
        self._seen = self._resolver.results()
        # Streams of text or without a rate hold markers.
        signals = [s for s in self._seen if s.channel_format() != pylsl.cf_string and s.nominal_srate() > 0]
        selected = signals if self._wanted is None else select(signals, self._wanted)
        for name in sorted({s.name() for s in selected} - self.watches.keys()):
            self.watches[name] = Watch(name)

    def poll(self) -> None:
        for watch in self.watches.values():
            watch.poll()

    def waiting(self) -> str | None:
        """Say what is waited for; None while there is EEG."""
        if any(watch.montage is not None for watch in self.watches.values()):
            return None
        target = "an EEG stream" if self._wanted is None else f"LSL stream '{self._wanted}'"
        return f"waiting for {target}; seen on this network: {stream_names(self._seen)}"

    def unfollowed(self) -> str | None:
        """Name the streams that are not followed; None if there are none."""
        # A watch also reads the markers that belong to its stream.
        followed = {*self.watches, *(f"{name}-markers" for name in self.watches)}
        ignored = [s for s in self._seen if s.name() not in followed]
        return f"also on this network: {stream_names(ignored)}" if ignored else None

    def close(self) -> None:
        for watch in self.watches.values():
            watch.close()


Show = Callable[[_Network], None]


def _follow(network: _Network, show: Show, over: Callable[[], bool]) -> None:
    """Read samples as they come, look for streams twice a second, and show once a second."""
    look_at = show_at = time.monotonic()
    show_at += _SHOW_EVERY
    while not over():
        now = time.monotonic()
        if now >= look_at:
            look_at = now + _LOOK_EVERY
            network.look()
        network.poll()
        if now >= show_at:
            show(network)
            # Keep to whole seconds from the start, and leave out those that were missed.
            show_at += _SHOW_EVERY * (1 + (time.monotonic() - show_at) // _SHOW_EVERY)
        time.sleep(_POLL_S)


@contextmanager
def _json() -> Iterator[Show]:
    last = {"at": time.monotonic() - _SAY_EVERY}
    refused: set[str] = set()

    def show(network: _Network) -> None:
        # Stdout carries the lines alone. Why a stream is not read goes to stderr, once per stream.
        for watch in network.watches.values():
            terminal.line(strict_json.dumps(watch.line()))
            for note in watch.notes():
                terminal.say(f"{watch.name}: {note}")
            if (watch.refused or watch.ambiguous) and watch.name not in refused:
                refused.add(watch.name)
                terminal.say(watch.state)
        text = network.waiting()
        now = time.monotonic()
        if text and now - last["at"] >= _SAY_EVERY:
            last["at"] = now
            terminal.say(text)

    yield show


@contextmanager
def _page(network: _Network) -> Iterator[Show]:
    """Show a page that renews itself on a terminal, elsewhere one every five seconds and one at the end."""
    console = terminal.console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda network: live.update(page(network), refresh=True)
        return
    console = terminal.console(width=_WIDTH)
    last = {"at": time.monotonic() - _SAY_EVERY}

    def show(network: _Network) -> None:
        if time.monotonic() - last["at"] >= _SAY_EVERY:
            last["at"] = time.monotonic()
            console.print(page(network))

    yield show
    console.print(page(network))


def page(network: _Network) -> RenderableType:
    """Draw all streams, one box each, what is waited for, and what else is on the network."""
    parts: list[RenderableType] = [box(watch) for watch in network.watches.values()]
    texts = [text for text in (network.waiting(), network.unfollowed()) if text]
    return Group(
        *parts, *(Text(text, "yellow" if i == 0 and not parts else "dim") for i, text in enumerate(texts))
    )


def box(watch: Watch) -> Panel:
    """Draw one stream."""
    colour = _colour(watch)
    title = Text(f" {watch.name} ", f"bold {colour}")
    if watch.montage is None:
        return Panel(Text(watch.state), title=title, title_align="left", border_style=colour, width=_WIDTH)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, width=10)
    table.add_column()
    for name, text in _rows(watch):
        table.add_row(name, text)
    return Panel(table, title=title, title_align="left", border_style=colour, width=_WIDTH)


def _colour(watch: Watch) -> str:
    age_ms = watch.age_ms()
    if watch.refused:
        return COLOURS[BAD]
    findings = signals.eeg(watch.details())
    silent = table.EEG_SILENT.of({"silent_s": None if age_ms is None else age_ms / 1e3})
    findings.append(silent or table.EEG_AWAITED.find())
    return COLOURS[joined("EEG", findings).state]


def _rows(watch: Watch) -> Iterator[tuple[str, str | Text]]:
    details = watch.details()
    line = watch.line(details)
    yield "channels", _channels(watch)
    measured = f"{_number(line['rate_hz'], '.3f')} Hz"
    yield "rate", f"{measured}, {_number(line['drift_ppm'], '+.1f')} ppm off its nominal rate"
    yield "jitter", f"{_number(line['jitter_ms'], '.3f')} ms"
    yield "lost", _lost(line, details)
    yield "triggers", _triggers(watch, line["triggers"])
    yield "level", _levels(watch)
    yield "gradient", _gradient(details)
    if details.get("gradient") is not None:
        yield "heartbeat", _heartbeat(details.get("heartbeat"))
    if watch.last_note:
        yield "note", Text(watch.last_note, "yellow")
    bad = signals.bad_channels(details)
    yield "bad", "none" if bad is None else _coloured(bad)
    age_ms = line["age_ms"]
    silent = table.EEG_SILENT.find(silent_s=(age_ms or 0.0) / 1e3)
    if silent.state != OK:
        yield "age", Text(f"{silent.found}: {watch.state}", COLOURS[silent.state])
    else:
        delay = details.get("delay_ms")
        later = f"; {delay:.0f} ms more until it is clean" if delay else ""
        yield "age", f"{_number(age_ms, '.0f')} ms{later}"


def _coloured(finding: Finding, before: str = "") -> Text:
    """Write a finding in the colour of its state, with its advice below."""
    text = Text(f"{before}{finding.found}", "" if finding.state == OK else COLOURS[finding.state])
    return text.append(f"\n{finding.advice}", "dim") if finding.advice else text


def _channels(watch: Watch) -> str:
    assert watch.montage is not None
    montage = watch.montage
    count = montage.kinds.count("eeg")
    other_channels = [
        f"{label} ({kind})"
        for label, kind in zip(montage.channels, montage.kinds, strict=True)
        if kind != "eeg"
    ]
    also = f" and {', '.join(other_channels)}" if other_channels else ""
    return f"{count} EEG{also}, against {montage.reference}, nominally {montage.sfreq:g} Hz"


def _lost(line: dict[str, Any], details: dict[str, Any]) -> Text:
    jumps = signals.jumps(details)
    gaps = "-" if line["gaps"] is None else table.EEG_GAPS.find(gaps=line["gaps"]).found
    also = f"; {jumps.found}" if jumps else ""
    text = f"{_number(line['lost_samples'], ',')} samples in {gaps}{also}"
    return Text(text, COLOURS[NOTE] if line["lost_samples"] or jumps else "")


def _triggers(watch: Watch, count: int | None) -> str:
    if count is None:
        return table.NO_TRIGGER_LINE.find().found
    interval_s = watch.trigger_every_s()
    last = watch.last_trigger
    rate = f", one every {interval_s:.3f} s" if interval_s else ""
    newest = f", the last {last.label} {pylsl.local_clock() - last.stamp:.1f} s ago" if last else ""
    return f"{count}{rate}{newest}"


def _levels(watch: Watch) -> str:
    before, after = watch.levels_uv()
    return f"{_number(before, '.1f')} uV as it comes, {_number(after, '.1f')} uV after the chain"


def _gradient(details: dict[str, Any]) -> str | Text:
    gradient = details.get("gradient")
    if gradient is None:
        return "no gradient artefact"
    levels = [_number(gradient[name], ".0f") for name in ("before_uv", "after_uv")]
    text = f"{levels[0]} uV before, {levels[1]} uV after; {gradient['state']}"
    residual = table.GRADIENT_RESIDUAL.of(details)
    if residual is None:
        return text
    return _coloured(residual, f"{text}; slice harmonics {gradient['slice_down_db']:.0f} dB down, ")


def _heartbeat(heartbeat: dict[str, Any] | None) -> str:
    if heartbeat is None or heartbeat["per_minute"] is None:
        return "-"
    beats = f"{heartbeat['per_minute']:.0f} a minute, removed by {heartbeat['method']}"
    return beats if heartbeat["peak_uv"] is None else f"{beats}, {heartbeat['peak_uv']:.0f} uV at its peak"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
