"""What a viewer sees: built once for each, and brought up to date by one timer."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from nicegui import ui
from nicegui.events import KeyEventArguments

from rtdecode.bundle.manifest import ClipGeometry
from streaming.checks.finding import BAD, NOTE, OFF, OK, Finding
from streaming.page import strip, traces
from streaming.page.contents import ShownClip
from streaming.page.preflight import Preflight
from streaming.page.state import MOST_SENTENCES, PageState
from streaming.page.twice import WITHIN_S, Twice
from streaming.session.page_link import Request
from streaming.sinks.operator_log import LABELS

_UPDATE_INTERVAL_S = 0.5
# Colours and signs that are told apart by everyone (Okabe and Ito 2008, Color Universal Design).
_COLOURS = {OK: "#009E73", NOTE: "#E69F00", BAD: "#D55E00", OFF: "#6b7278"}
_SIGNS = {OK: "●", NOTE: "▲", BAD: "■", OFF: "○"}
_WORDS = {OK: "OK", NOTE: "check", BAD: "act", OFF: "off"}
# `--rt-free` is what words and frames leave of a display's height for the drawings.
_STYLE = """
:root { --rt-free: max(100vh - 330px, 300px); }
body { background: #101214; color: #d6dade; font-size: 15px; }
.nicegui-content { padding: 8px 12px; gap: 6px; min-height: 100vh; }
.rt-row { display: flex; gap: 8px; width: 100%; }
.rt-lamps { display: grid; grid-template-columns: repeat(var(--rt-lamps), minmax(0, 1fr)); gap: 8px;
  width: 100%; }
.rt-head { font-size: 20px; font-weight: 600; white-space: nowrap; }
.q-btn { white-space: nowrap; }
.rt-small { color: #9aa1a8; font-size: 13px; }
.rt-banner { color: #E69F00; font-size: 16px; white-space: normal; line-height: 1.2; }
.rt-name { font-weight: 600; }
.rt-lamp { border-left: 6px solid #6b7278; background: #1a1d21; padding: 4px 10px; min-height: 76px;
  min-width: 0; line-height: 1.3; overflow-wrap: anywhere; }
.rt-panel { background: #1a1d21; padding: 6px 10px; min-width: 0; overflow-wrap: anywhere; }
.rt-third { flex: 2 1 0; }
.rt-rest { flex: 3 1 0; }
.rt-wide { width: 100%; flex: none; }
.rt-clip { width: 100%; height: calc(0.6 * var(--rt-free)); background: #000; object-fit: contain; }
.rt-traces { width: 100%; height: calc(0.6 * var(--rt-free) + 45px); }
.rt-line { width: 100%; height: calc(0.1 * var(--rt-free)); }
.rt-low { width: 100%; height: calc(0.19 * var(--rt-free)); image-rendering: pixelated; }
.rt-slices { object-fit: contain; object-position: left top; }
.rt-sheet { display: grid; grid-template-columns: max-content 2fr 1fr; gap: 4px 20px; }
.rt-told { width: 100%; max-height: calc(0.19 * var(--rt-free) + 50px); overflow-y: auto; }
.rt-unknown { visibility: hidden; }
.rt-stale { outline: 4px solid #D55E00; }
.rt-blank { position: fixed; inset: 0; background: #000; z-index: 9999; display: flex; align-items: center;
  justify-content: center; color: #33373b; }
@media (max-width: 1100px) {
  .rt-row { flex-wrap: wrap; }
  .rt-lamps { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .rt-lamp:nth-child(7) { grid-column: 1 / -1; }
  .rt-third { flex: 1 1 40%; }
  .rt-rest { flex: 1 1 100%; }
  .rt-clip { height: auto; }
  .rt-traces { height: 320px; }
  .rt-line { height: 60px; }
  .rt-low { height: 130px; }
  .rt-told { max-height: 260px; }
}
@media (max-width: 600px) {
  .rt-lamps { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .rt-sheet { grid-template-columns: minmax(0, 1fr); }
  .rt-buttons .q-btn { padding: 4px 8px; }
}
"""
# A quarter of a second of 660 Hz, quietly.
_BEEP = """
if (window.rtSound) {
  const tone = window.rtSound.createOscillator();
  const volume = window.rtSound.createGain();
  tone.frequency.value = 660;
  volume.gain.value = 0.1;
  tone.connect(volume);
  volume.connect(window.rtSound.destination);
  tone.start();
  tone.stop(window.rtSound.currentTime + 0.25);
}
"""
# Browsers play no sound before somebody has pressed something.
_ARM = "window.rtSound = window.rtSound || new AudioContext(); window.rtSound.resume()"
# Takes the pictures of a person out of the page, not only out of sight.
_REMOVE = "document.querySelectorAll('canvas, img').forEach((one) => one.remove())"
# The labels of a run, in a sentence.
_ARTICLES = {"repeated": "a repetition", "aborted": "aborted", "localiser": "a localiser"}
# An alarm is heard once in so many updates until someone acknowledges it.
_BEEPS_EVERY = 4


def build(state: PageState, preflight: Preflight, ask: Callable[[Request], None]) -> None:
    """Register the page.

    Parameters
    ----------
    state : PageState
        What the page shows.
    preflight : Preflight
        What the first sheet shows while a run is waited for.
    ask : callable
        Hands on what the operator asks of the session.
    """

    @ui.page("/")
    def page() -> None:
        _Page(state, preflight, ask)


class _Page:
    """One viewer's page."""

    def __init__(self, state: PageState, preflight: Preflight, ask: Callable[[Request], None]) -> None:
        self._state = state
        self._ask = ask
        self._updates = 0
        self._gone = False
        self._twice = Twice()
        ui.add_css(_STYLE)
        ui.add_body_html(f"<script>{strip.SCRIPT}{traces.SCRIPT}</script>")
        self._build_head()
        with ui.element("div").classes("rt-lamps").style(f"--rt-lamps: {state.n_lamps}"):
            self._lamps = [_LampCard() for _ in range(state.n_lamps)]
        self._sheet = _Sheet(preflight)
        with ui.column().classes("w-full gap-2") as self._running:
            self._build_panels()
        self._blank = ui.element("div").classes("rt-blank")
        with self._blank:
            self._blanked = ui.label("Blanked on every display. B shows again.")
        ui.keyboard(on_key=self._key)
        ui.timer(_UPDATE_INTERVAL_S, self._update)
        self._update()

    def _build_panels(self) -> None:
        with ui.element("div").classes("rt-row"):
            with _panel("decoded", "rt-third"):
                self._clip = _Clip(self._state.geometry)
                self._words = ui.label()
                self._numbers = ui.label().classes("rt-small")
            with _panel("null brain: same noise, no signal", "rt-third") as self._twin_panel:
                self._twin = _Clip(self._state.geometry)
            with _panel("shown to the participant meanwhile", "rt-third"):
                self._truth = _Clip(self._state.geometry)
                self._known = ui.label()
                self._identified = ui.label().classes("rt-small")
            # What a bundle does not read leaves its place to the clips.
            if "eeg" in self._state.modalities:
                with _panel(
                    "EEG as it is decoded, the last 8 s; orange: interpolated, brown: a gap", "rt-rest"
                ):
                    ui.element("canvas").classes("rt-traces")
        with _panel(
            "the last 2 minutes: windows (dark: previews, vermilion: late), volumes, triggers", "rt-wide"
        ):
            self._line = ui.html(sanitize=False).classes("rt-line")
        with ui.element("div").classes("rt-row"):
            with _panel("finals after their input; dashed: one hop", "rt-third"):
                self._ledger = ui.html(sanitize=False).classes("rt-low")
            if "fmri" in self._state.modalities:
                with _panel("volumes as they are decoded, a column each", "rt-third"):
                    self._carpet = _Picture("carpet")
            with _panel("newest volume; orange: decoded", "rt-third"):
                self._slices = _Picture("slices", "rt-slices")
            with _panel("head: blue shifts, orange turns, grey displacement", "rt-third"):
                self._motion = ui.html(sanitize=False).classes("rt-low")
                self._displaced = ui.label().classes("rt-small")
            with _panel("what happened", "rt-rest"):
                self._told = _Told()

    def _build_head(self) -> None:
        with ui.row().classes("w-full items-center gap-x-4 gap-y-0"):
            self._time = ui.label().classes("rt-head")
            self._banner = ui.label().classes("rt-head rt-banner")
            ui.label("For the operator. Never for the participant's screen.").classes("rt-small")
            ui.space()
            with ui.row().classes("rt-buttons gap-0"):
                self._alarm = ui.button("silence the alarm (A)", on_click=self._state.acknowledge).props(
                    "flat"
                )
                ui.button("sound on", on_click=lambda: ui.run_javascript(_ARM)).props("flat")
                self._changed = ui.button("EEG source is right (C)", on_click=self._confirm).props("flat")
                ui.button("mark (M)", on_click=self._mark).props("flat")
                ui.button("blank (B)", on_click=self._toggle).props("flat")
                stop = _question("Stop the session? Everything is written to its end.", "stop it", self._stop)
                ui.button("stop", on_click=stop.open).props("flat")
                self._build_menu()

    def _build_menu(self) -> None:
        withdraw = _question(
            "Withdraw? The session stops, and its clips, report and recording are deleted for good. "
            f"Press twice within {WITHIN_S:.0f} seconds.",
            "delete everything",
            self._withdraw,
        )
        with ui.button("more").props("flat"), ui.menu():
            for label in LABELS:
                ui.menu_item(f"this run is {_ARTICLES[label]}", partial(self._label, label))
            ui.separator()
            ui.menu_item("keep a snapshot (S)", self._snapshot)
            ui.menu_item("null brain, on or off (N)", self._toggle_twin)
            ui.separator()
            ui.menu_item("withdraw ...", withdraw.open)

    def _stop(self) -> bool:
        self._ask(Request("stop"))
        return True

    def _withdraw(self) -> bool:
        if not self._twice.press():
            ui.notify(f"Press again within {WITHIN_S:.0f} seconds, and everything is deleted.")
            return False
        self._state.withdraw()
        self._ask(Request("withdraw"))
        return True

    def _mark(self) -> None:
        self._ask(Request("mark"))

    def _confirm(self) -> None:
        if self._state.view.eeg_changed:
            self._ask(Request("confirm"))

    def _label(self, label: str) -> None:
        self._ask(Request("label", label))

    def _toggle_twin(self) -> None:
        self._ask(Request("twin", "on" if self._state.toggle_twin() else "off"))

    def _snapshot(self) -> None:
        ui.notify(self._state.snapshot())

    def _key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.action.repeat:
            return
        keys = {
            "a": self._state.acknowledge,
            "b": self._toggle,
            "c": self._confirm,
            "m": self._mark,
            "n": self._toggle_twin,
            "s": self._snapshot,
        }
        name = str(event.key).lower()
        if name in keys:
            keys[name]()

    def _toggle(self) -> None:
        self._state.toggle_blank()
        self._blank.set_visibility(self._state.view.blank)

    def _update(self) -> None:
        view = self._state.view
        self._updates += 1
        self._blank.set_visibility(view.blank)
        self._time.set_text(f"over: {view.over}" if view.over else _clock(view.run_s))
        self._banner.set_text(view.banner)
        self._alarm.set_visibility(view.alarm)
        self._changed.set_visibility(view.eeg_changed)
        for card, lamp in zip(self._lamps, view.lamps, strict=False):
            card.show(lamp)
        waiting = view.run_s is None and not view.over
        self._sheet.show(waiting)
        self._running.set_visibility(not waiting)
        self._identified.set_text(view.identified)
        self._twin_panel.set_visibility(view.twin)
        if view.withdrawn:
            self._remove()
            return
        if view.clip is not None:
            self._show_clip(view.clip)
        # What has not changed is not sent again.
        self._line.set_content(view.line)
        self._ledger.set_content(view.ledger)
        self._motion.set_content(view.motion)
        self._displaced.set_text(view.displaced)
        if "fmri" in self._state.modalities:
            self._carpet.show(view.clips)
        self._slices.show(view.volumes)
        if "eeg" in self._state.modalities:
            ui.run_javascript(f"rtTraces({view.tick})")
        self._told.show(view.sentences, view.log_lines)
        if view.alarm and self._updates % _BEEPS_EVERY == 0:
            ui.run_javascript(_BEEP)

    def _remove(self) -> None:
        """Take every picture of a person who has withdrawn out of the page."""
        if not self._gone:
            self._gone = True
            self._blanked.set_text("Withdrawn: what this session wrote is being deleted.")
            ui.run_javascript(_REMOVE)

    def _show_clip(self, clip: ShownClip) -> None:
        self._clip.show(clip.url)
        self._clip.mark("rt-stale", clip.stale)
        stale = "STALE, " if clip.stale else ""
        self._words.set_text(f"{stale}{clip.words}, {clip.age_s:.0f} s ago")
        self._numbers.set_text(", ".join(f"{name} {value}" for name, value in clip.numbers))
        if clip.twin_url:
            self._twin.show(clip.twin_url)
        if clip.truth_url:
            self._truth.show(clip.truth_url)
        # Never what was shown during another clip.
        self._truth.mark("rt-unknown", not clip.truth_url)
        self._known.set_text("" if clip.truth_url else "not known yet")


class _LampCard:
    """One lamp, by colour, sign and word."""

    def __init__(self) -> None:
        with ui.column().classes("rt-lamp gap-0") as card:
            self._card = card
            self._name = ui.label().classes("rt-name")
            self._found = ui.label()
            self._advice = ui.label().classes("rt-small")
        self._state = ""

    def show(self, lamp: Finding) -> None:
        self._name.set_text(_titled(lamp))
        self._found.set_text(lamp.found)
        self._advice.set_text(lamp.advice)
        if lamp.state != self._state:
            self._state = lamp.state
            self._card.style(f"border-color: {_COLOURS[lamp.state]}")


class _Sheet:
    """What is there before the run: the findings of preflight, in place of clips."""

    def __init__(self, preflight: Preflight) -> None:
        self._preflight = preflight
        self._shown: list[Finding] | None = None
        with _panel("before the run", "rt-wide") as self._panel:
            self._button = ui.button("check everything (preflight, half a minute)", on_click=preflight.start)
            self._button.props("flat")
            self._said = ui.label()
            self._table = ui.element("div").classes("rt-sheet")

    def show(self, waiting: bool) -> None:
        self._panel.set_visibility(waiting)
        running = self._preflight.running
        self._button.set_enabled(not running)
        self._said.set_text("looking and listening" if running else self._preflight.fault)
        if self._preflight.findings is not self._shown:
            self._shown = self._preflight.findings
            self._table.clear()
            with self._table:
                for finding in self._shown:
                    self._row(finding)

    @staticmethod
    def _row(finding: Finding) -> None:
        ui.label(_titled(finding)).style(f"color: {_COLOURS[finding.state]}")
        ui.label(finding.found)
        ui.label(finding.advice).classes("rt-small")


def _titled(finding: Finding) -> str:
    return f"{_SIGNS[finding.state]} {finding.subject}: {_WORDS[finding.state]}"


class _Clip:
    """A clip by URL: the old one stays until the new one is there."""

    def __init__(self, geometry: ClipGeometry) -> None:
        self._canvas = ui.element("canvas").classes("rt-clip")
        self._geometry = geometry
        self._url = ""

    def show(self, url: str) -> None:
        if url != self._url:
            self._url = url
            aspect = self._geometry.height / self._geometry.width
            ui.run_javascript(f"rtClip('{self._canvas.html_id}', '{url}', {aspect}, {self._geometry.fps})")

    def mark(self, style: str, active: bool) -> None:
        self._canvas.classes(add=style) if active else self._canvas.classes(remove=style)


class _Picture:
    """A picture that is asked for anew when its number changes."""

    def __init__(self, path: str, style: str = "") -> None:
        self._image = ui.element("img").classes(f"rt-low {style}")
        self._path = path
        self._number = 0

    def show(self, number: int) -> None:
        if number != self._number:
            self._number = number
            self._image.props(f'src="{self._path}/{number}"')


class _Told:
    """What the operator was told, the newest at the top; the rest is reached by scrolling."""

    def __init__(self) -> None:
        self._list = ui.element("div").classes("rt-told").props("tabindex=0")
        self._count = 0

    def show(self, count: int, newest: Sequence[tuple[float, str]]) -> None:
        """Add what is new.

        Parameters
        ----------
        count : int
            Sentences since the session began.
        newest : sequence of (float, str)
            The newest ones with their wall-clock times, s, the newest first.
        """
        fresh = newest[: count - self._count]
        self._count = count
        for wall_s, sentence in reversed(fresh):
            with self._list:
                line = ui.label(f"{time.strftime('%H:%M:%S', time.localtime(wall_s))}  {sentence}")
                line.classes("rt-small").move(target_index=0)
        for line in self._list.default_slot.children[MOST_SENTENCES:]:
            line.delete()


def _question(text: str, yes: str, act: Callable[[], bool]) -> ui.dialog:
    """Build a question that is asked before something that cannot be undone, until that is done."""

    def press() -> None:
        if act():
            dialog.close()

    with ui.dialog() as dialog, ui.card():
        ui.label(text)
        with ui.row():
            ui.button(yes, on_click=press)
            ui.button("go on", on_click=dialog.close).props("flat")
    return dialog


def _panel(title: str, style: str) -> ui.column:
    panel = ui.column().classes(f"rt-panel gap-1 {style}")
    with panel:
        ui.label(title).classes("rt-small")
    return panel


def _clock(run_s: float | None) -> str:
    if run_s is None:
        return "waiting for a run"
    minutes, seconds = divmod(int(max(run_s, 0)), 60)
    return f"run time {minutes}:{seconds:02d}"
