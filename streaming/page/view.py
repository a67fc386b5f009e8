"""What a viewer sees: built once for each, and brought up to date by one timer."""

import time
from collections.abc import Callable

from nicegui import ui
from nicegui.events import KeyEventArguments

from rtdecode.bundle.manifest import ClipGeometry
from streaming.page import lamps, strip, traces
from streaming.page.lamps import Lamp
from streaming.page.state import LAMPS, SAID, PageState, ShownClip

_EVERY = 0.5
# Colours and signs that are told apart by everyone (Okabe and Ito 2008, Color Universal Design).
_COLOURS = {lamps.GREEN: "#009E73", lamps.AMBER: "#E69F00", lamps.RED: "#D55E00", lamps.GREY: "#6b7278"}
_SIGNS = {lamps.GREEN: "●", lamps.AMBER: "▲", lamps.RED: "■", lamps.GREY: "○"}
_WORDS = {lamps.GREEN: "well", lamps.AMBER: "look", lamps.RED: "act", lamps.GREY: "off"}
_STYLE = """
body { background: #101214; color: #d6dade; font-size: 15px; }
.nicegui-content { padding: 8px 12px; gap: 6px; min-height: 100vh; }
.nicegui-row { align-items: stretch; }
.rt-head { font-size: 20px; font-weight: 600; white-space: nowrap; }
.q-btn { white-space: nowrap; }
.rt-small { color: #9aa1a8; font-size: 13px; }
.rt-banner { color: #E69F00; font-size: 16px; white-space: normal; line-height: 1.2; }
.rt-name { font-weight: 600; }
.rt-lamp { border-left: 6px solid #6b7278; background: #1a1d21; padding: 4px 10px; min-height: 88px;
  flex: 1 1 0; min-width: 0; line-height: 1.3; }
.rt-panel { background: #1a1d21; padding: 6px 10px; min-width: 0; }
.rt-third { flex: 2 1 0; }
.rt-rest { flex: 3 1 0; }
.rt-wide { width: 100%; flex: none; }
.rt-clip { width: 100%; height: 36vh; background: #000; object-fit: contain; }
.rt-traces { width: 100%; height: 42vh; }
.rt-line { width: 100%; height: 8vh; }
.rt-low { width: 100%; height: 11vh; image-rendering: pixelated; }
.rt-said { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; max-width: 100%; }
.rt-unknown { visibility: hidden; }
.rt-stale { outline: 4px solid #D55E00; }
.rt-blank { position: fixed; inset: 0; background: #000; z-index: 9999; display: flex; align-items: center;
  justify-content: center; color: #33373b; }
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
# An alarm is heard once in so many updates until someone acknowledges it.
_BEEPS_EVERY = 4


def build(state: PageState, stop: Callable[[], None]) -> None:
    """Register the page.

    Parameters
    ----------
    state : PageState
    stop : callable
        Ends the session.
    """

    @ui.page("/")
    def page() -> None:
        _Page(state, stop)


class _Page:
    """One viewer's page."""

    def __init__(self, state: PageState, stop: Callable[[], None]) -> None:
        self._state = state
        self._stop = stop
        self._updates = 0
        ui.add_css(_STYLE)
        ui.add_body_html(f"<script>{strip.SCRIPT}{traces.SCRIPT}</script>")
        self._build_head()
        with ui.row(wrap=False).classes("w-full gap-2"):
            self._lamps = [_LampCard() for _ in LAMPS]
        with ui.row(wrap=False).classes("w-full gap-2"):
            with _panel("decoded", "rt-third"):
                self._clip = _Clip(state.geometry)
                self._words = ui.label()
                self._numbers = ui.label().classes("rt-small")
            with _panel("shown to the participant meanwhile", "rt-third"):
                self._truth = _Clip(state.geometry)
                self._known = ui.label()
            with _panel("EEG as it is decoded, the last 8 s; orange: interpolated, brown: a hole", "rt-rest"):
                ui.element("canvas").classes("rt-traces")
        with _panel(
            "the last 2 minutes: windows (dark: previews, vermilion: late), volumes, triggers", "rt-wide"
        ):
            self._line = ui.html(sanitize=False).classes("rt-line")
        with ui.row(wrap=False).classes("w-full gap-2"):
            with _panel("finals after the last of their input, against one hop (dashed)", "rt-third"):
                self._ledger = ui.html(sanitize=False).classes("rt-low")
            with _panel("volumes as they are decoded, a column each", "rt-third"):
                self._carpet = ui.element("img").classes("rt-low")
                self._columns = 0
            with _panel("what happened", "rt-rest"):
                self._said = [ui.label().classes("rt-small rt-said") for _ in range(SAID)]
        self._blank = ui.element("div").classes("rt-blank")
        with self._blank:
            ui.label("Blanked on every display. B shows again.")
        self._ask = self._build_question()
        ui.keyboard(on_key=self._key)
        ui.timer(_EVERY, self._update)
        self._update()

    def _build_head(self) -> None:
        with ui.row(wrap=False).classes("w-full items-center gap-4"):
            self._time = ui.label().classes("rt-head")
            self._banner = ui.label().classes("rt-head rt-banner")
            ui.label("For the operator. Never for the participant's screen.").classes("rt-small")
            ui.space()
            self._alarm = ui.button("silence the alarm (A)", on_click=self._state.acknowledge).props("flat")
            ui.button("sound on", on_click=lambda: ui.run_javascript(_ARM)).props("flat")
            ui.button("blank (B)", on_click=self._toggle).props("flat")
            ui.button("stop", on_click=lambda: self._ask.open()).props("flat")

    def _build_question(self) -> ui.dialog:
        with ui.dialog() as dialog, ui.card():
            ui.label("Stop the session? Everything is written to its end, and it cannot be taken up again.")
            with ui.row():
                ui.button("stop it", on_click=self._stop).on_click(dialog.close)
                ui.button("go on", on_click=dialog.close).props("flat")
        return dialog

    def _key(self, event: KeyEventArguments) -> None:
        if not event.action.keydown or event.action.repeat:
            return
        if event.key == "b":
            self._toggle()
        elif event.key == "a":
            self._state.acknowledge()

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
        for card, lamp in zip(self._lamps, view.lamps, strict=False):
            card.show(lamp)
        if view.clip is not None:
            self._show_clip(view.clip)
        # What has not changed is not sent again.
        self._line.set_content(view.line)
        self._ledger.set_content(view.ledger)
        if view.clips != self._columns:
            self._columns = view.clips
            self._carpet.props(f'src="/carpet/{view.clips}"')
        ui.run_javascript(f"rtTraces({view.tick})")
        for label, (wall_s, sentence) in zip(self._said, view.said, strict=False):
            label.set_text(f"{time.strftime('%H:%M:%S', time.localtime(wall_s))}  {sentence}")
        if view.alarm and self._updates % _BEEPS_EVERY == 0:
            ui.run_javascript(_BEEP)

    def _show_clip(self, clip: ShownClip) -> None:
        self._clip.show(clip.url)
        self._clip.mark("rt-stale", clip.stale)
        stale = "STALE, " if clip.stale else ""
        self._words.set_text(f"{stale}{clip.words}, {clip.age_s:.0f} s ago")
        self._numbers.set_text(", ".join(f"{name} {value}" for name, value in clip.numbers))
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
        self._colour = ""

    def show(self, lamp: Lamp) -> None:
        self._name.set_text(f"{_SIGNS[lamp.colour]} {lamp.name}: {_WORDS[lamp.colour]}")
        self._found.set_text(lamp.found)
        self._advice.set_text(lamp.advice)
        if lamp.colour != self._colour:
            self._colour = lamp.colour
            self._card.style(f"border-color: {_COLOURS[lamp.colour]}")


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

    def mark(self, style: str, there: bool) -> None:
        self._canvas.classes(add=style) if there else self._canvas.classes(remove=style)


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
