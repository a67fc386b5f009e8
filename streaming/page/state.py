"""What the page knows of a session: what the session's process tells, and what lies in its folder.

The session tells by messages and never waits for the page. Clips are read from the folder, where each is
whole as soon as its line in ``clips.jsonl`` is.
"""

import io
import json
import math
import threading
from collections import Counter, deque
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.disk.video import Frames
from rtdecode.types import Array, Window
from streaming.checks import table
from streaming.checks.finding import BAD, Finding, judged
from streaming.checks.signals import is_stale
from streaming.message import Message
from streaming.page import drawing, indicators, traces
from streaming.page.contents import ShownClip, View
from streaming.page.indicators import Debounced, Silence
from streaming.page.pictures import Pictures, forget
from streaming.page.running_score import RunningIdentification
from streaming.page.strip import strip
from streaming.session import slices
from streaming.session.mailbox import unpack, unpack_status
from streaming.session.options import StreamOptions
from streaming.sinks.operator_log import SNAPSHOTS
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.text import banner
from streaming.sinks.truth import Truth
from streaming.status import Status

Values = NDArray[np.floating]
SampleMask = NDArray[np.bool_]

# Length of the traces that are shown, s.
TRACES_S = 8.0
# Length of the time line, and number of clips in the ledger.
LINE_S = 120.0
LEDGER = 60
# Volumes in the carpet, and rows of it.
_CARPET = 150
_CARPET_ROWS = 120
# z-scored values of voxels from black to white.
_GREY_SPAN = 3.0
# Clips that are known by their records: more than the ledger and the time line show.
_RECORDS = 300
# The parts of a session that have a lamp; where it is decoded elsewhere, the decoder has one too.
LAMPS = ("EEG", "fMRI", "triggers", "clips", "brain", "recording")
# Sentences that can be read: as many as the report keeps.
MOST_SENTENCES = 1000
# A status may be so old and still tell of the present, s.
_UNTOLD_S = 5.0
_COLOURS = {"preview": "#3d5a73", "final": drawing.LINE, "refined": "#009E73"}


class PageState:
    """Everything that is shown, kept up to date by one thread and read by another.

    Parameters
    ----------
    folder : Path
        The session's ``--out``.
    options : StreamOptions
        The session's flags: which of its parts have a lamp, and where the truth is.
    bundle : Bundle
        Only what it says of itself is asked for.

    Attributes
    ----------
    view : View
        The newest one.
    geometry : ClipGeometry
        Of the clips.
    n_lamps : int
        Parts of the session that have a lamp.
    modalities : list of str
        What the bundle decodes.
    """

    def __init__(self, folder: Path, options: StreamOptions, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._folder = folder
        self._options = options
        self._truth = Truth(options.truth, bundle)
        self._names = list(manifest.eeg.channels) if manifest.eeg else []
        self._hop_s = float(manifest.grid.hop)
        self._tr_s = float(manifest.grid.tr or 0)
        self.geometry = manifest.clip
        self.n_lamps = len(LAMPS) + (options.decoder is not None)
        self._note = manifest.note
        self._chain = manifest.chain
        self._bundle_simulated = manifest.simulated
        self.modalities = manifest.modalities
        # What the bundle tells of clips; what it never does is not said to be unknown of each.
        calibrated = {"confidence": manifest.confidence, "brain": manifest.brain}
        self._stated = [name for name, about in calibrated.items() if about is not None]
        # Samples of EEG that are shown.
        self._most = TRACES_S * float(manifest.grid.sfreq)
        # Held while anything below changes or is drawn.
        self._lock = threading.Lock()
        self._status = Status()
        # When the newest status was told, by the clock of whoever told it (a replay has its own), and when
        # that was noticed here, s.
        self._told_at = self._known_at = 0.0
        self._heard_at = 0.0
        self._volumes_at: deque[float] = deque(maxlen=1000)
        self._triggers_at: deque[float] = deque(maxlen=1000)
        self._steadied = Debounced()
        self._read = 0
        self._records: deque[dict[str, Any]] = deque(maxlen=_RECORDS)
        self._clips = 0
        self._identified = ""
        self._counts: Counter[str] = Counter()
        self._said: deque[tuple[float, str]] = deque(maxlen=MOST_SENTENCES)
        self._sentences = 0
        self._pictures = Pictures(folder)
        self._truths: dict[int, Frames] = {}
        # Files of null-brain twins, by the clip.
        self._twins: dict[int, str] = {}
        mean_clip = bundle.stats.get("mean_clip")
        self._so_far = None if mean_clip is None else RunningIdentification(mean_clip)
        self._traces: deque[tuple[Values, SampleMask]] = deque()
        self._carpet: deque[Values] = deque(maxlen=_CARPET)
        self._slices: tuple[Array, SampleMask] | None = None
        self._volumes = 0
        # Where the head was, since the run began: (6,) in mm and rad.
        self._moved: deque[NDArray[np.float64]] = deque(maxlen=_CARPET)
        self._moved_in = -1
        self._motion = drawing.motion(np.zeros((0, 6)))
        # The newest source of the EEG that somebody has confirmed.
        self._confirmed = 0
        # Since when no decoder elsewhere answers, in wall time, s.
        self._away_since: float | None = None
        self._over = ""
        self._blank = self._withdrawn = self._twin_shown = False
        self._acknowledged: set[str] = set()
        self.view = View()

    def take(self, message: Message) -> None:
        """Take what the session's process tells."""
        kind = message.head["kind"]
        with self._lock:
            if kind == "window":
                self._take_window(unpack(message), message.head["clip"])
            elif kind == "said":
                self._said.appendleft((message.head["wall_s"], message.head["text"]))
                self._sentences += 1
            elif kind == "twin":
                self._twins[message.head["clip"]] = message.head["file"]
                forget(self._twins)
            elif kind == "confirmed":
                self._confirmed = message.head["source"]
            elif kind == "decoder":
                self._away_since = message.head["away_since"]
            elif kind == "over":
                self._over = message.head["ended"]
            elif kind != "fault":
                self._take_status(unpack_status(message), message.arrays)

    def refresh(self, now_at: float) -> None:
        """Read the clips that are new, and make the next view."""
        with self._lock:
            if self._told_at != self._known_at:
                self._known_at = self._told_at
                self._heard_at = now_at
            if not self._withdrawn:
                self._read_clips(now_at)
            indicators = self._steadied.take(self._lamps(now_at), now_at)
            red = {lamp.subject for lamp in indicators if lamp.state == BAD}
            # A part that is well again and fails once more is a new alarm.
            self._acknowledged &= red
            self.view = View(
                tick=self.view.tick + 1,
                clips=self._clips,
                run_s=self._status.elapsed,
                banner=banner(
                    self._note,
                    self._chain,
                    simulated=self._status.simulated,
                    bundle_simulated=self._bundle_simulated,
                ),
                lamps=indicators,
                alarm=bool(red - self._acknowledged),
                clip=self._clip(now_at),
                ledger=self._ledger(),
                line=self._line(),
                motion=self._motion,
                displaced=self._displaced(),
                volumes=self._volumes,
                log_lines=list(self._said),
                sentences=self._sentences,
                over=self._over,
                blank=self._blank or self._withdrawn,
                withdrawn=self._withdrawn,
                twin=self._twin_shown,
                eeg_changed=self._status.eeg_source > self._confirmed,
                identified=self._identified,
            )

    def toggle_blank(self) -> None:
        """Blank every display, or show again; what was withdrawn stays blank."""
        with self._lock:
            self._blank = not self._blank
            self.view = replace(self.view, blank=self._blank or self._withdrawn)

    def acknowledge(self) -> None:
        """Silence the alarm of everything that is red now."""
        with self._lock:
            self._acknowledged |= {lamp.subject for lamp in self.view.lamps if lamp.state == BAD}
            self.view = replace(self.view, alarm=False)

    def clip(self, number: int, revision: str) -> bytes | None:
        """Return the picture of a clip that the session has told of; None for any other."""
        with self._lock:
            files = [
                record["file"]
                for record in self._records
                if (record["clip"], record["revision"]) == (number, revision)
            ]
        return self._pictures.of(number, revision, files[-1] if files else None)

    def twin(self, number: int) -> bytes | None:
        """Return the picture of a clip's null-brain twin; None where none was made."""
        with self._lock:
            file = self._twins.get(number)
        return self._pictures.of(number, "twin", file)

    def truth(self, number: int) -> bytes | None:
        """Return the picture of what was shown; None where it is not known."""
        with self._lock:
            frames = self._truths.get(number)
        return None if frames is None else strip(frames)

    def snapshot(self) -> str:
        """Keep the newest clip and what was shown meanwhile as a picture; return in words what was kept."""
        with self._lock:
            record = self._newest()
            truth = None if record is None else self._truths.get(record["clip"])
        frames = None if record is None else self._pictures.frames(record["file"])
        if record is None or frames is None:
            return "there is no clip to keep"
        sheet = ContactSheet(self.view.banner)
        sheet.add(f"{record['revision']} of clip {record['clip']}", frames, truth)
        folder = self._folder / SNAPSHOTS
        private.folder(folder)
        name = f"clip_{record['clip']:05d}_{record['revision']}.png"
        sheet.save(folder / name)
        return f"kept as {SNAPSHOTS}/{name}"

    def toggle_twin(self) -> bool:
        """Show the null-brain twins, or no longer; return which."""
        with self._lock:
            self._twin_shown = not self._twin_shown
            self.view = replace(self.view, twin=self._twin_shown)
            return self._twin_shown

    def withdraw(self) -> None:
        """Blank every display for good."""
        with self._lock:
            self._withdrawn = True
            self._truths.clear()
            self._twins.clear()
            self._records.clear()
            self.view = replace(self.view, blank=True, withdrawn=True, clip=None)
        self._pictures.clear()

    def pack_traces(self) -> str:
        """Pack the newest EEG for the canvas."""
        with self._lock:
            values = [samples for samples, _ in self._traces]
            usable = [mask for _, mask in self._traces]
            bad = set(self._status.counters["eeg"].get("bad_channels") or [])
        if not values:
            return traces.packed(np.zeros((0, 0)), np.zeros(0, bool), [], set(), "no EEG yet")
        return traces.packed(np.concatenate(values, axis=1), np.concatenate(usable), self._names, bad)

    def draw_slices(self) -> bytes:
        """Draw the newest volume (PNG)."""
        with self._lock:
            planes = self._slices or (np.zeros((1, 1), np.uint8), np.zeros((1, 1), bool))
        return slices.picture(*planes)

    def draw_carpet(self) -> bytes:
        """Draw the newest volumes: a column each, a row for every few voxels (PNG)."""
        with self._lock:
            columns = list(self._carpet)
        if not columns:
            columns = [np.zeros(_CARPET_ROWS, np.float32)]
        grey = np.clip(np.stack(columns, 1) / _GREY_SPAN, -1, 1) * 127 + 128
        buffer = io.BytesIO()
        Image.fromarray(grey.astype(np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    def _take_status(self, status: Status, arrays: dict[str, Array]) -> None:
        for item in status.items:
            (self._volumes_at if "uid" in item else self._triggers_at).append(float(item["arrived_at"]))
        self._status = status
        self._told_at = status.sent_at or 0.0
        if "slices" in arrays:
            self._slices = (arrays["slices"], arrays["region"].astype(bool))
            self._volumes += 1
        self._take_motion(status)
        if "traces" in arrays:
            self._traces.append((arrays["traces"].astype(np.float32), arrays["traced"].astype(bool)))
            while sum(len(mask) for _, mask in self._traces) - len(self._traces[0][1]) >= self._most:
                self._traces.popleft()

    def _take_motion(self, status: Status) -> None:
        """Keep where the head is now, once for each volume or a little less often."""
        run = status.newest_run
        if run is None:
            return
        begins = run["run"] != self._moved_in
        if begins:
            self._moved.clear()
            self._moved_in = run["run"]
        now = (run["motion"] or {}).get("parameters")
        moves = now is not None and (not self._moved or not np.array_equal(self._moved[-1], now))
        if moves:
            self._moved.append(np.array(now, np.float64))
        # A volume comes less often than a view is made.
        if begins or moves:
            self._motion = drawing.motion(np.reshape(self._moved, (-1, 6)))

    def _take_window(self, window: Window, clip: int) -> None:
        # Of each volume once: the other revisions of a window have the same ones, or none.
        if window.revision == "final" and window.fmri is not None:
            rows = np.linspace(0, window.fmri.shape[1] - 1, _CARPET_ROWS).astype(int)
            self._carpet.extend(window.fmri[window.fmri_mask][:, rows])
        if (
            not self._withdrawn
            and clip not in self._truths
            and (frames := self._truth.clip(window)) is not None
        ):
            self._truths[clip] = frames
            forget(self._truths)

    def _read_clips(self, now_at: float) -> None:
        """Read the lines that ``clips.jsonl`` has got since; a line that is not whole yet is left."""
        try:
            with (self._folder / "clips.jsonl").open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except FileNotFoundError:
            return
        complete_lines = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(complete_lines)
        for line in complete_lines.splitlines():
            record = json.loads(line) | {"seen_at": now_at}
            self._records.append(record)
            self._clips += 1
            self._counts[record["revision"]] += 1
            self._counts["late"] += record["late"]
            self._identify(record)

    def _identify(self, record: dict[str, Any]) -> None:
        """Compare a final with what was shown, where that is known."""
        truth = self._truths.get(record["clip"])
        if self._so_far is None or truth is None or record["revision"] != "final":
            return
        frames = self._pictures.frames(record["file"])
        if frames is None:
            return
        start_s, stop_s = record["window_s"]
        self._so_far.add((record["run"], start_s, stop_s), frames, truth)
        self._identified = self._so_far.words({0: self._truth.events()})

    def _lamps(self, now_at: float) -> list[Finding]:
        status = self._status
        options = self._options
        # While the session decodes, statuses wait: sources are silent by what the newest one says of them,
        # until it is so old that nothing is known of them.
        untold_s = now_at - self._heard_at
        reference_at = self._told_at + (untold_s if untold_s >= _UNTOLD_S else 0.0)
        sample_at = status.newest_sample_at
        silence = Silence(
            eeg=None if sample_at is None else reference_at - sample_at,
            volume=reference_at - self._volumes_at[-1] if self._volumes_at else None,
            trigger=reference_at - self._triggers_at[-1] if self._triggers_at else None,
        )
        with_eeg = options.lsl is not None
        newest = self._newest()
        age_s = None if newest is None else now_at - newest["seen_at"]
        finals = [record for record in self._records if record["revision"] == "final"]
        falls_back = options.fallback is not None
        elsewhere = [indicators.decoder(self._away_since, falls_back=falls_back)] if options.decoder else []
        return [
            indicators.eeg(status, silence, requested=with_eeg, decoded="eeg" in self.modalities),
            indicators.fmri(status, silence, self._tr_s, requested=options.fmri_dir is not None),
            indicators.triggers(status, silence, self._tr_s, requested=with_eeg),
            indicators.clips(age_s, self._counts["late"], self._counts["final"], self._hop_s),
            indicators.brain(finals),
            indicators.recording(status.record_fault, requested=options.record is not None),
            *elsewhere,
        ]

    def _displaced(self) -> str:
        """Return in words how far the head moved in the newest run, and how steady its signal is."""
        run = self._status.newest_run
        run_motion = (run["motion"] if run is not None else None) or {}
        findings = judged((table.MOTION["max_fd_mm"], table.MOTION["tsnr"]), run_motion)
        return ", ".join(finding.found for finding in findings)

    def _ledger(self) -> str:
        """Draw how late after their floor the newest finals came."""
        delays_ms = [
            record["latency_ms"]["beyond_floor"] for record in self._records if record["revision"] == "final"
        ]
        newest_ms = [value for value in delays_ms if value is not None][-LEDGER:]
        return drawing.ledger(newest_ms, 1e3 * self._hop_s)

    def _line(self) -> str:
        """Draw the last minutes of the newest run, up to a whole second: it is sent anew when it changes."""
        run_s = self._status.elapsed or 0.0
        # Local times become run time through the last status.
        zero_at = self._told_at - run_s
        volumes = [arrived_at - zero_at for arrived_at in self._volumes_at]
        triggers = [arrived_at - zero_at for arrived_at in self._triggers_at]
        newest = self._records[-1]["run"] if self._records else 0
        windows = [
            (start_s, stop_s, drawing.LATE if record["late"] else _COLOURS[record["revision"]])
            for record in self._records
            if record["run"] == newest
            for start_s, stop_s in [record["window_s"]]
        ]
        end = math.ceil(run_s)
        begin = end - LINE_S
        return drawing.time_line(
            (begin, end),
            [window for window in windows if window[1] > begin],
            [volume_s for volume_s in volumes if volume_s > begin],
            [trigger_s for trigger_s in triggers if trigger_s > begin],
        )

    def _newest(self) -> dict[str, Any] | None:
        """Return the newest clip; a refined one is of a window long gone."""
        return next((record for record in reversed(self._records) if record["revision"] != "refined"), None)

    def _clip(self, now_at: float) -> ShownClip | None:
        record = self._newest()
        if record is None:
            return None
        number = record["clip"]
        age_s = now_at - record["seen_at"]
        start_s, stop_s = record["window_s"]
        marks = ["LATE"] if record["late"] else []
        missing = max(record["missing"][name] for name in self.modalities)
        marks += ["DEGRADED"] if missing > 0 and record["revision"] == "final" else []
        marks += ["EEG SOURCE CHANGED"] if record.get("eeg_source") == "changed" else []
        own_numbers = [
            (name, _written(record[name]))
            for name in ("confidence", "brain", "steps")
            if record[name] is not None or name in self._stated
        ]
        scores = record.get("scores") or {}
        likeliest = sorted(scores.items(), key=itemgetter(1))[-1:]
        class_scores = [(label, _written(value)) for label, value in likeliest]
        recorded = [
            (name, " ".join(_written(value) for value in values))
            for name, values in (record.get("recorded") or {}).items()
        ]
        return ShownClip(
            url=f"clip/{number}/{record['revision']}",
            truth_url=f"truth/{number}" if number in self._truths else "",
            twin_url=f"twin/{next(reversed(self._twins))}" if self._twins else "",
            words=", ".join([f"{record['revision']} of {start_s:g} to {stop_s:g} s", *marks]),
            numbers=own_numbers + class_scores + recorded,
            age_s=age_s,
            stale=is_stale(age_s, self._hop_s),
        )


def _written(value: float | None) -> str:
    if value is None:
        return "unknown"
    # A row of a large memory is written out: 4319, not 4.32e+03.
    return str(value) if isinstance(value, int) else f"{value:.3g}"
