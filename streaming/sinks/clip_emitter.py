"""From a window to everything that is shown and kept of it, the same way in live sessions and replays.

Each window is decoded with as many steps as there is time for. A thread writes its clip, while the next
window is decoded. Once the clip is written it counts as emitted, and a line is added to ``clips.jsonl``. A
final is then kept: it goes into the film, the contact sheet and the archive, with the truth and the
null-brain twin where there are any. That takes as long as decoding, so in a live session it is done when no
window waits. At the end the archive is compared with the truth.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.disk.decisions import Decision
from rtdecode.types import Clip, Window
from streaming.decode.deadline import Cost, Job, steps_within
from streaming.decode.decoder import (
    AnyDecoder,
    Decoded,
    GivenUpError,
    NonFiniteError,
    check_detail,
    check_steps,
)
from streaming.sinks import curves, judged, meter
from streaming.sinks.clips import ClipSink
from streaming.sinks.film import FilmSink, describe
from streaming.sinks.judged import Sections
from streaming.sinks.presence import PresenceLog
from streaming.sinks.session_folder import ARCHIVE, writing
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.text import banner
from streaming.sinks.truth import Archive, Truth

_TWIN = "null brain (same noise, no signal)"
# Grey level that stands for a twin which a decoder elsewhere did not draw.
_NO_TWIN = 128
# Most finals that wait to be kept: each holds the frames of its clip.
_MOST_UNKEPT = 4

# Gets the record of a clip as ``clips.jsonl`` has it, and the clip, in the thread that writes clips.
OnEmitted = Callable[[dict[str, Any], Decoded], None]
# Gets a window, its clip or None where it was skipped, and why it was.
OnDecided = Callable[[Job, Decoded | None, str], None]


@dataclass(frozen=True, slots=True)
class LastClip:
    """The newest clip that was emitted.

    Attributes
    ----------
    name : str
        Its revision and window.
    emitted_at : float
        On the clock of the ledger, s.
    marks : list of str
        ``late``, ``degraded``.
    """

    name: str
    emitted_at: float
    marks: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class _Coming:
    """A window, and its clip that may still be on its way."""

    job: Job
    clip: Future[Decoded]


@dataclass(frozen=True, slots=True)
class _Unkept:
    """A window that is to be kept: its clip, None where it was skipped, and how late that was, s."""

    job: Job
    decoded: Decoded | None = None
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Published:
    """When a clip was out, how late that was, s, and how long its stages took."""

    emitted_at: float
    late_s: float
    durations: meter.Durations


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A clip that is being written."""

    job: Job
    decoded: Decoded
    published: Future[_Published]


class Emitter:
    """Decode windows and hand the clips to every sink.

    At most one clip is being written at a time. Whatever else is written, counted or told of windows waits
    for it, so that they keep their order; see `settle`.

    Parameters
    ----------
    out : Path
        The session's folder (see `prepare`).
    session : str
        Name of the session, in each record.
    bundle : Bundle
    decoder : Decoder
        The session's decoder, here or elsewhere.
    truth : Truth
    now : callable
        Reads the clock of the ledger.
    simulated : bool
        Whether a source says that the participant is simulated; the bundle does not count.
    live : bool
        False on a virtual clock.
    steps : int, optional
        Denoising steps of a clip when there is time for them; by default the bundle's.
    detail : float, optional
        Share of detail that every clip keeps; by default the bundle's.
    twin : bool
        Show each final's null-brain twin beside it, in the film too. Where the truth is known, a bundle that
        denoises is compared with its twins in any case.
    modalities : sequence of str, optional
        The modalities that the session was asked for: a final is degraded that lacks one of these, or any of
        its data. By default all that the bundle decodes.
    on_emitted : callable, optional
        Gets the record of every clip, and the clip, once its line is in ``clips.jsonl``.
    on_decided : callable, optional
        Gets every window once its clip is out, or once it was skipped.

    Attributes
    ----------
    hop_s, tr_s : float
        Time from one window to the next, and from one volume to the next (0 without volumes), s.
    counts : Counter
        final, preview, refined, skipped, degraded, late, and fallback: finals that the fallback decoded.
    newest : LastClip or None
        The newest clip, None before the first.
    words : dict
        Sentence on the newest clip or window that counted as ``late``, ``degraded`` or ``skipped``.
    steps : Counter
        Emitted clips by the number of denoising steps that they got.
    detail : float or None
        Share of detail that clips keep, where no decision that is repeated says another; None where the
        bundle has no choice.
    presence : PresenceLog
        Whether the finals so far hold a brain that the bundle can read.
    confirmed_source : int
        Sources of the EEG up to this number are the participant's, as somebody has confirmed; it may be
        changed.
    twins_wanted : bool
        Whether to write the twin of each final beside it from here on; it may be changed.
    newest_twin : tuple of (int, str), or None
        Number of the final whose twin was written last, and the twin's file in the session's folder.
    runs_on : dict
        Stage -> what runs it, in words.
    pixels : str
        ``raw``, or ``mp4`` where clips come as MP4 from a decoder elsewhere.
    meter : Meter
    """

    def __init__(
        self,
        out: Path,
        session: str,
        bundle: Bundle,
        decoder: AnyDecoder,
        truth: Truth,
        now: Callable[[], float],
        *,
        simulated: bool,
        live: bool = True,
        steps: int | None = None,
        detail: float | None = None,
        twin: bool = False,
        modalities: Sequence[str] | None = None,
        on_emitted: OnEmitted | None = None,
        on_decided: OnDecided | None = None,
    ) -> None:
        manifest = bundle.manifest
        self._session = session
        self._bundle = bundle
        self._decoder = decoder
        self._now = now
        self._truth = truth
        self._live = live
        self._note = note = self._words(simulated=simulated)
        self._clips = ClipSink(out, simulated=simulated)
        title = "decoded category" if manifest.labels else "reconstruction"
        self._wanted = check_steps(bundle, steps)
        self.detail = check_detail(bundle, detail)
        self._twin = _TWIN if twin else None
        self._on_emitted = on_emitted
        self._on_decided = on_decided
        self._asked = [name for name in manifest.modalities if modalities is None or name in modalities]
        hop = manifest.grid.hop_frames
        self._film = FilmSink(out / "film.mp4", manifest.clip, hop, note, title, self._twin)
        self._sheet = ContactSheet(note, title, self._twin)
        self._out = out
        self._archive = Archive(out / ARCHIVE)
        self._cost = decoder.cost
        self._sections = judged.nothing()
        self._notes: list[str] = []
        self._categories: list[str] = []
        self._coming: deque[_Coming] = deque()
        self._unkept: deque[_Unkept] = deque()
        self._writer = ThreadPoolExecutor(1, "clips")
        self._under_way: _UnderWay | None = None
        self.hop_s = float(manifest.grid.hop)
        self.tr_s = float(manifest.grid.tr or 0)
        self.counts: Counter[str] = Counter()
        self.newest: LastClip | None = None
        self.words: dict[str, str] = {}
        self.steps: Counter[int] = Counter()
        self.presence = PresenceLog(manifest.brain)
        self.confirmed_source = 0
        self.twins_wanted = False
        self.newest_twin: tuple[int, str] | None = None
        self.runs_on = decoder.runs_on
        self.pixels = decoder.pixels
        self.meter = meter.Meter()

    def emit(self, job: Job, left_s: float = math.inf, *, repeated: Decision | None = None) -> None:
        """Decode a window and begin to write its clip, as `ask` does; wait until that is so."""
        self.ask(job, left_s, repeated=repeated)
        while self._coming:
            self.await_clip(None)
            self.collect()

    def ask(self, job: Job, left_s: float = math.inf, *, repeated: Decision | None = None) -> None:
        """Ask for the clip of a window; a final without any data, or a clip, is skipped.

        A decoder that runs here decodes it at once. One elsewhere may take a while, in which other windows
        can be asked for: `collect` takes what has come.

        Parameters
        ----------
        job : Job
        left_s : float
            Time that it may take, s. It gets fewer steps if that is not enough for all.
        repeated : Decision, optional
            What a live session decided: the steps, the share of detail, and which clip it carries on from.

        Raises
        ------
        OutputError
            If the clip before it could not be written, see `settle`.
        """
        if job.empty:
            self.skip(job, "nothing was received for it")
            return
        chain = None
        detail = self.detail
        if repeated is None:
            steps = steps_within(left_s, self._cost, self._wanted, self._decoder.numbers_of_steps)
        else:
            steps = repeated.steps or 0
            detail = repeated.detail
            chain = [repeated.carried_from] if repeated.carried_from else []
        # A closed-form bundle has 0 steps and refuses any number that is asked for, so None is passed.
        clip = self._decoder.ask(job.window, steps or None, detail=detail, chain=chain, left_s=left_s)
        self._coming.append(_Coming(job, clip))
        self.collect()

    @property
    def away_since(self) -> float | None:
        """Wall time since which no decoder elsewhere answers, s; None while one does, and for one here."""
        return self._decoder.away_since

    @property
    def pending(self) -> int:
        """Number of windows whose clips were asked for and have not been collected."""
        return len(self._coming)

    def await_clip(self, limit_s: float | None) -> None:
        """Wait until the clip of the oldest window is there, or for so long, s; None waits for it."""
        if self._coming:
            wait([self._coming[0].clip], limit_s)

    def collect(self) -> None:
        """Begin to write the clips that are there, and skip the windows that will never have one.

        Raises
        ------
        OutputError
            If a clip before them could not be written, see `settle`.
        """
        while (coming := self._whole()) is not None:
            self._coming.remove(coming)
            self._take(coming)

    def _whole(self) -> _Coming | None:
        """Return a window whose clip is there; finals keep their order, as the film has them in order."""
        is_final_missing = False
        for coming in self._coming:
            is_final = coming.job.window.revision == "final"
            if coming.clip.done() and not (is_final and is_final_missing):
                return coming
            is_final_missing = is_final_missing or is_final
        return None

    def _take(self, coming: _Coming) -> None:
        job = coming.job
        try:
            decoded = coming.clip.result()
        except GivenUpError as error:
            self._skip(job, str(error))
            return
        except NonFiniteError as error:
            self._notes.append(str(error))
            self._skip(job, "its decoded values are not finite")
            return
        self.settle()
        self._under_way = _UnderWay(job, decoded, self._writer.submit(self._publish, job, decoded))
        self._keep_most()

    @property
    def is_written(self) -> bool:
        """Whether no clip is being written any more, so that `settle` does not wait."""
        return self._under_way is None or self._under_way.published.done()

    def settle(self) -> None:
        """Wait until the clip that is being written is out, and count it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._under_way is None:
            return
        job, decoded = self._under_way.job, self._under_way.decoded
        future = self._under_way.published
        self._under_way = None
        published = future.result()
        if self._on_decided is not None:
            self._on_decided(job, *_decision(decoded))
        self._count(job, decoded, published)
        if decoded.bundle is None:
            self._follow_cost(decoded, published)
        if job.window.revision == "final":
            if decoded.clip.scores:
                self._categories.append(f"{_name(job.window)}: {top(decoded.clip.scores)}")
            self._follow_presence(job, decoded)
            self._unkept.append(_Unkept(job, decoded, published.late_s))

    def _follow_cost(self, decoded: Decoded, published: _Published) -> None:
        encode_s = decoded.encoded_at - decoded.started_at
        whole_s = published.emitted_at - decoded.started_at
        decode_s = whole_s - encode_s - decoded.denoising_s
        newest = Cost(encode_s, decoded.denoising_s / max(1, decoded.clip.steps), decode_s)
        self._cost = self._cost.followed_by(newest)

    @property
    def unkept(self) -> int:
        """Number of finals and skipped windows that are not in the film yet."""
        return len(self._unkept)

    def keep_one(self) -> None:
        """Put the oldest of the `unkept` windows into the film, and a final into sheet and archive too."""
        one = self._unkept.popleft()
        if one.decoded is not None:
            self._keep_final(one.job, one.decoded, one.late_s)
        else:
            with writing():
                self._film.skip(one.job.window)

    def leave_out(self) -> None:
        """Leave out what is not written yet: nothing can be written any more."""
        if self._under_way is not None:
            wait([self._under_way.published])
            self._under_way = None
        self._coming.clear()
        self._unkept.clear()

    def _follow_presence(self, job: Job, decoded: Decoded) -> None:
        if decoded.clip.presence is not None:
            at_s = round(job.window.session_s, 6)
            self._notes += self.presence.add(at_s, decoded.clip.presence, decoded.clip.brain_by)

    def _keep_most(self) -> None:
        # On a virtual clock no window waits.
        self._keep(_MOST_UNKEPT if self._live else 0)

    def _keep(self, most: int) -> None:
        """Keep finals until at most so many are left."""
        while len(self._unkept) > most:
            self.keep_one()

    @property
    def simulated(self) -> bool:
        """Whether the participant is simulated."""
        return self._clips.simulated

    def mark_simulated(self) -> None:
        """Mark everything that is written from here on as that of a simulated participant."""
        self.settle()
        self._clips.simulated = True
        self._note = self._words(simulated=True)
        self._film.note = self._sheet.note = self._note

    def _words(self, *, simulated: bool) -> str:
        manifest = self._bundle.manifest
        of_bundle = manifest.simulated
        return banner(manifest.note, manifest.chain, simulated=simulated, bundle_simulated=of_bundle)

    def skip(self, job: Job, why: str = "this machine cannot keep up") -> None:
        """Count a window that has no clip, say why, and show in the film that there is none."""
        clip: Future[Decoded] = Future()
        clip.set_exception(GivenUpError("window-given-up", "{why}", why=why))
        # In turn: clips of earlier windows may still be on their way.
        self._coming.append(_Coming(job, clip))
        self.collect()

    def _skip(self, job: Job, why: str) -> None:
        self.settle()
        # A preview does not count: every window ends in one final or one skip.
        if job.window.revision == "final":
            self.counts["skipped"] += 1
            self.words["skipped"] = f"{_name(job.window)}: {why}"
            # In the film, windows stand in order.
            self._unkept.append(_Unkept(job))
            self._keep_most()
        if self._on_decided is not None:
            self._on_decided(job, None, why)

    def notes(self) -> list[str]:
        """Return sentences on what the clips show of the session since the last call."""
        told = [*self._notes, *self._decoder.news()]
        self._notes = []
        return told

    def categories(self) -> list[str]:
        """Return the likeliest category of each final since the last call, where the bundle names any."""
        sentences = self._categories
        self._categories = []
        return sentences

    def abandon(self, count: int) -> None:
        """Count windows that were reached and never came here as skipped."""
        if count > 0:
            self.counts["skipped"] += count
            self.words["skipped"] = "the session ended before it was decoded"

    def judge(self) -> Sections:
        """Compare what was emitted with the truth; return the sections of the report that rest on it."""
        self.settle()
        self._keep(0)
        with writing():
            found = judged.sections(self._truth, self._archive, self._bundle)
        # A truth that turns out to be unreadable only here has judged nothing.
        self._sections = found if not self._truth.fault else judged.nothing()
        return self._sections

    def close(self) -> None:
        """Finish every file, even if another one cannot be finished."""
        with writing(), ExitStack() as last_first:
            last_first.callback(self._draw)
            last_first.callback(self._film.close)
            last_first.callback(self._clips.close)
            # Closed first: it is deleted, which makes room for the others on a full disk.
            last_first.callback(self._archive.close)
            # Before that, though: what is not kept yet.
            last_first.callback(self._keep, 0)
            last_first.callback(self._writer.shutdown)
            last_first.callback(self.settle)

    def _draw(self) -> None:
        self._sheet.save(self._out / "contact_sheet.png")
        if self._sections["confidence"] is not None:
            curves.save(self._out / "confidence.png", self._sections["confidence"], self._note)

    def _publish(self, job: Job, decoded: Decoded) -> _Published:
        """Write a clip and its line, and hand them on."""
        with writing():
            record, published = self._written(job, decoded)
        # Outside of `writing`: a fault of another program's is no fault of the session's folder.
        if self._on_emitted is not None:
            self._on_emitted(record, decoded)
        return published

    def _written(self, job: Job, decoded: Decoded) -> tuple[dict[str, Any], _Published]:
        """Write a clip and its line; return its record, and when it was out."""
        window = job.window
        fps = self._bundle.manifest.clip.fps
        file = self._clips.save(job.clip, window.revision, decoded.clip.frames, fps, decoded.film)
        latent = self._clips.save_latent(job.clip, window.revision, decoded.clip.latent)
        stamps = window.stamps | decoded.stamps | {"emitted": self._now()}
        spent = meter.durations(
            window, decoded.started_at, stamps, job.costs, live=self._live, wire_s=decoded.wire_s
        )
        # A backlog has no deadline.
        late_s = 0.0 if job.backlog else self._late_s(window, stamps["emitted"])
        record = self._record(job, decoded, stamps, spent) | {"late": late_s > 0}
        record |= {"file": file, "latent": latent}
        self._clips.append(record)
        return record, _Published(stamps["emitted"], late_s, spent)

    def _count(self, job: Job, decoded: Decoded, published: _Published) -> None:
        window = job.window
        # The session has counted the costs of each volume and chunk once already, from the
        # statuses. The time since the stimulus is summed up for finals alone.
        apart = {*job.costs, *(["since_stimulus"] if window.revision != "final" else [])}
        durations = published.durations
        self.meter.add({name: durations[name] for name in durations.keys() - apart})
        self.counts[window.revision] += 1
        if decoded.bundle is not None and window.revision == "final":
            self.counts["fallback"] += 1
        self.steps[decoded.clip.steps] += 1
        self._count_marks(window, published.emitted_at, published.late_s)

    def _late_s(self, window: Window, emitted_at: float) -> float:
        """Return the seconds after its floor of a clip that came more than a hop after it, else 0.

        By then the next clip was due. Nothing is late on a virtual clock.
        """
        after_s = emitted_at - window.floor_at
        return after_s if self._live and after_s > self.hop_s else 0.0

    def _count_marks(self, window: Window, emitted_at: float, late_s: float) -> None:
        """Count a clip as late or degraded, and keep what there is to say of it."""
        marks = []
        if late_s:
            marks.append("late")
            self.words["late"] = f"{_name(window)} came {late_s:.1f} s after its last input could be read"
        if window.revision == "final" and self._is_degraded(window):
            marks.append("degraded")
            self.words["degraded"] = describe(window)
        self.counts.update(marks)
        # A refined clip is of a window long gone: it does not tell whether the session keeps up.
        if window.revision != "refined":
            self.newest = LastClip(_name(window), emitted_at, marks)

    def _keep_final(self, job: Job, decoded: Decoded, late_s: float) -> None:
        """Add a final to film, contact sheet and archive."""
        # The clip is out, and waits for nothing that is done here. What reads the truth stays outside
        # `writing`, as an error of its files is no fault of the session's folder.
        frames = decoded.clip.frames
        is_own = decoded.bundle is None
        truth = self._truth.clip(job.window)
        word = self._truth.category(job.window)
        hop = self._bundle.manifest.grid.hop_frames
        judged_too = truth is not None and decoded.clip.steps > 0
        needed = self._twin or judged_too or self.twins_wanted
        # A fallback's clip has no twin, and counts for no figure of the session's bundle.
        twin = self._null_brain(job, decoded.clip) if needed and is_own else None
        # Clips and twins are compared in pairs: without its twin, a clip is not compared.
        compared = truth if is_own and (twin is not None or not needed) else None
        shown = twin if self._twin else None
        if self._twin and twin is None:
            shown = np.full_like(frames, _NO_TWIN)
        four = None if shown is None else shown[:hop]
        named = top(decoded.clip.scores)
        late = f"LATE {late_s:.1f} s" if late_s else ""
        by = "" if is_own else "FALLBACK"
        label = "   ".join(part for part in (f"window {job.window.index}", named, by, late) if part)
        with writing():
            self._film.write(job.window, frames, truth, word, shown, named=named, late=late)
            self._sheet.add(label, frames[:hop], truth, word, four)
            self._archive.add(job.window, decoded.clip, compared, twin)
            if twin is not None and self.twins_wanted:
                fps = self._bundle.manifest.clip.fps
                self.newest_twin = (job.clip, self._clips.save(job.clip, "twin", twin, fps))

    def _null_brain(self, job: Job, clip: Clip) -> NDArray[np.uint8] | None:
        """Decode the twin of a clip, in as many steps and with as much detail; None if it is given up."""
        try:
            twin = self._decoder.decode(job.window, clip.steps or None, detail=clip.detail, null=True)
        except GivenUpError as error:
            self._notes.append(f"the null-brain twin of {_name(job.window)} is missing: {error}")
            return None
        return twin.clip.frames

    def _is_degraded(self, window: Window) -> bool:
        return any(window.missing[name] > 0 for name in self._asked)

    def _eeg_source(self, window: Window) -> str | None:
        """Say whether a window's EEG is of the stream that the session opened; None without EEG."""
        if window.eeg is None:
            return None
        if not window.eeg_source:
            return "opened"
        return "confirmed" if window.eeg_source <= self.confirmed_source else "changed"

    def _record(
        self, job: Job, decoded: Decoded, stamps: dict[str, float], spent: meter.Durations
    ) -> dict[str, Any]:
        window = job.window
        length = window.stop_s - window.start_s
        presence = decoded.clip.presence
        record: dict[str, Any] = {
            "session": self._session,
            "run": window.run,
            "clip": job.clip,
            "revision": window.revision,
            "window_s": [window.start_s, window.stop_s],
            "session_s": [round(window.session_s, 6), round(window.session_s + length, 6)],
            "modalities": window.modalities,
            "missing": {name: round(share, 6) for name, share in window.missing.items()},
            "eeg_quality": {name: round(share, 6) for name, share in window.eeg_quality.items()} or None,
            "eeg_source": self._eeg_source(window),
            "confidence": None if decoded.clip.confidence is None else round(decoded.clip.confidence, 6),
            "brain": None if presence is None else round(presence.brain, 6),
            "inconsistent": None if presence is None else round(presence.inconsistent, 6),
            "brain_by": _rounded(decoded.clip.brain_by),
            "steps": decoded.clip.steps,
            "detail": decoded.clip.detail,
            "latency_ms": spent,
            "t_ms": meter.instants(window, stamps, live=self._live),
            "simulated": self.simulated,
            "bundle_simulated": self._bundle.manifest.simulated,
            "bundle": decoded.bundle or self._bundle.digest,
            "chain": self._bundle.manifest.chain,
        }
        if decoded.clip.scores is not None:
            record["scores"] = decoded.clip.scores
        if decoded.clip.recorded:
            record["recorded"] = {
                name: [round(value, 6) for value in values] for name, values in decoded.clip.recorded.items()
            }
        return record


def _decision(decoded: Decoded) -> tuple[Decoded | None, str]:
    """Return the clip that a replay is to repeat, or why there is none."""
    if decoded.bundle is None:
        return decoded, ""
    return None, "the fallback decoded it, whose clips a replay does not repeat"


def _rounded(told: dict[str, float | None] | None) -> dict[str, float | None] | None:
    if told is None:
        return None
    return {name: None if value is None else round(value, 6) for name, value in told.items()}


def top(scores: dict[str, float] | None) -> str:
    """Return the likeliest category and its probability, ``house 0.43``; empty without scores."""
    if not scores:
        return ""
    label = max(scores, key=lambda name: scores[name])
    return f"{label} {scores[label]:.2f}"


def _name(window: Window) -> str:
    """Name a window by its revision and number, and by its run from the second run on."""
    run = f" of run {window.run}" if window.run else ""
    return f"{window.revision} of window {window.index}{run}"
