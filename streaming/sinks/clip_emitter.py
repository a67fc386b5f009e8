r"""From a window to everything that is shown and kept of it, the same way in live sessions and replays.

Each window is decoded with as many steps as there is time for. A thread writes its clip, while the next
window is decoded. Once the clip is written it counts as emitted, and a line is added to ``clips.jsonl``. A
final is then kept: it goes into the film, the contact sheet and the archive, with the truth and the
null-brain twin where there are any. That takes as long as decoding, so in a live session it is done when no
window waits. At the end the archive is compared with the truth.

::

    window -> decoder -> PendingClips -> ClipWriter -> ClipTally
                                                   \-> FinalArchiver -> Scorer
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

from rtdecode.bundle import Bundle
from rtdecode.bundle.decisions import Decision
from rtdecode.types import Clip, Window
from streaming.decode.deadline import Cost, Job, StepChooser
from streaming.decode.decoder import (
    AnyDecoder,
    Decoded,
    GivenUpError,
    NonFiniteError,
    check_detail,
    check_steps,
)
from streaming.sinks.accuracy import AccuracySections, Scorer
from streaming.sinks.clip_record import ClipOrigin
from streaming.sinks.clip_tally import ClipTally, window_name
from streaming.sinks.clip_writer import ClipWriter, EmittedClip, OnEmitted
from streaming.sinks.clips import ClipSink
from streaming.sinks.film import FilmSink
from streaming.sinks.final_archiver import TWIN_TITLE, FinalArchiver, FinalSinks, Frames
from streaming.sinks.pending_clips import PendingClip, PendingClips
from streaming.sinks.presence import PresenceLog
from streaming.sinks.session_folder import ARCHIVE, writing
from streaming.sinks.sheet import ContactSheet
from streaming.sinks.text import banner
from streaming.sinks.truth import Archive, Truth

# Most finals that wait to be archived in a live session: each holds the frames of its clip.
_MOST_UNARCHIVED = 4


class Caption(Protocol):
    """Return the sentence under every picture."""

    def __call__(self, *, simulated: bool) -> str:
        """Return it for a participant who is simulated, or is not."""
        ...


# Gets a window, its clip or None where it was skipped, and why it was.
OnDecided = Callable[[Job, Decoded | None, str], None]


class ClipEmitter:
    """Ask for the clips of windows, and hand each to the writer, the tally and the archiver in turn.

    At most one clip is being written at a time. Whatever else is written, counted or told of windows waits
    for it, so that they keep their order; see `settle`.

    Parameters
    ----------
    decoder : Decoder
        The session's decoder, here or elsewhere.
    chooser : StepChooser
        Chooses how many denoising steps a clip gets.
    writer : ClipWriter
        Writes the clips and their records.
    tally : ClipTally
        Counts what was emitted and skipped.
    archiver : FinalArchiver
        Keeps finals for the film, the contact sheet and the scores.
    scorer : Scorer
        Compares the finals with the truth at the end.
    out : Path
        Folder of the pictures that are drawn at the end.
    caption : callable
        Returns the sentence under every picture, for a participant who is `simulated` or not.
    most_unarchived : int
        Finals that may wait to be archived; 0 archives each once it is out.
    detail : float, optional
        Share of detail that every clip keeps; None where the bundle has no choice.
    on_decided : callable, optional
        Gets every window once its clip is out, or once it was skipped.

    Attributes
    ----------
    tally : ClipTally
        Counts, durations and sentences.
    detail : float or None
        Share of detail that clips keep, where no decision that is repeated says another.
    """

    def __init__(
        self,
        decoder: AnyDecoder,
        chooser: StepChooser,
        writer: ClipWriter,
        tally: ClipTally,
        archiver: FinalArchiver,
        scorer: Scorer,
        *,
        out: Path,
        caption: Caption,
        most_unarchived: int = _MOST_UNARCHIVED,
        detail: float | None = None,
        on_decided: OnDecided | None = None,
    ) -> None:
        self._decoder = decoder
        self._chooser = chooser
        self._writer = writer
        self._archiver = archiver
        self._scorer = scorer
        self._out = out
        self._caption = caption
        self._most_unarchived = most_unarchived
        self._on_decided = on_decided
        self._pending = PendingClips()
        self.tally = tally
        self.detail = detail

    def emit(self, job: Job, left_s: float = math.inf, *, repeated: Decision | None = None) -> None:
        """Decode a window and begin to write its clip, as `ask` does; wait until that is so."""
        self.ask(job, left_s, repeated=repeated)
        while len(self._pending):
            self.await_clip(None)
            self.collect()

    def ask(self, job: Job, left_s: float = math.inf, *, repeated: Decision | None = None) -> None:
        """Ask for the clip of a window; a final without any data, or a clip, is skipped.

        A decoder that runs here decodes it at once. One elsewhere may take a while, in which other windows
        can be asked for: `collect` takes what has come.

        Parameters
        ----------
        job : Job
            The window, and what is known of it.
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
            steps = self._chooser.steps(left_s)
        else:
            steps = repeated.steps or 0
            detail = repeated.detail
            chain = [repeated.carried_from] if repeated.carried_from else []
        # A closed-form bundle has 0 steps and refuses any number that is asked for, so None is passed.
        clip = self._decoder.ask(job.window, steps or None, detail=detail, chain=chain, left_s=left_s)
        self._pending.add(job, clip)
        self.collect()

    @property
    def away_since(self) -> float | None:
        """Wall time since which no decoder elsewhere answers, s; None while one does, and for one here."""
        return self._decoder.away_since

    @property
    def runs_on(self) -> dict[str, str]:
        """Stage -> what runs it, in words."""
        return self._decoder.runs_on

    @property
    def pixels(self) -> str:
        """``raw``, or ``mp4`` where clips come as MP4 from a decoder elsewhere."""
        return self._decoder.pixels

    @property
    def pending(self) -> int:
        """Number of windows whose clips were asked for and have not been collected."""
        return len(self._pending)

    def await_clip(self, limit_s: float | None) -> None:
        """Wait until the clip of the oldest window is there, or for so long, s; None waits for it."""
        self._pending.wait(limit_s)

    def collect(self) -> None:
        """Begin to write the clips that are there, and skip the windows that will never have one.

        Raises
        ------
        OutputError
            If a clip before them could not be written, see `settle`.
        """
        while (ready := self._pending.take()) is not None:
            self._write(ready)

    def _write(self, ready: PendingClip) -> None:
        job = ready.job
        try:
            decoded = ready.clip.result()
        except GivenUpError as error:
            self._skip(job, str(error))
            return
        except NonFiniteError as error:
            self.tally.note(str(error))
            self._skip(job, "its decoded values are not finite")
            return
        self.settle()
        self._writer.begin(job, decoded)
        self._archiver.archive_down_to(self._most_unarchived)

    @property
    def is_written(self) -> bool:
        """Whether no clip is being written any more, so that `settle` does not wait."""
        return self._writer.idle

    def settle(self) -> None:
        """Wait until the clip that is being written is out, and count it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        emitted = self._writer.finish()
        if emitted is None:
            return
        decoded = emitted.decoded
        if self._on_decided is not None:
            self._on_decided(emitted.job, *_decision(decoded))
        self.tally.add(emitted)
        if decoded.bundle is None:
            self._chooser.follow(_cost(emitted))
        if emitted.job.window.revision == "final":
            self._archiver.add(emitted.job, decoded, emitted.late_s)

    @property
    def unarchived(self) -> int:
        """Number of finals and skipped windows that are not in the film yet."""
        return len(self._archiver)

    def archive_next(self) -> None:
        """Put the oldest of the `unarchived` windows into the film, and a final also into the sheet."""
        self._archiver.archive_next()

    def leave_out(self) -> None:
        """Leave out what is not written yet: nothing can be written any more."""
        self._writer.drop()
        self._pending.clear()
        self._archiver.clear()

    @property
    def simulated(self) -> bool:
        """Whether the participant is simulated."""
        return self._writer.simulated

    def mark_simulated(self) -> None:
        """Mark everything that is written from here on as that of a simulated participant."""
        self.settle()
        self._writer.mark_simulated()
        self._archiver.annotate(self._caption(simulated=True))

    @property
    def confirmed_source(self) -> int:
        """Sources of the EEG up to this number are the participant's, as somebody has confirmed."""
        return self._writer.confirmed_source

    def confirm_source(self, number: int) -> None:
        """Take the sources of the EEG up to a number as the participant's."""
        self._writer.confirmed_source = number

    @property
    def newest_twin(self) -> tuple[int, str] | None:
        """Number of the final whose twin was written last, and the twin's file in the session's folder."""
        return self._archiver.newest_twin

    def want_twins(self, *, enabled: bool) -> None:
        """Write the null-brain twin of each final beside it from here on, or no longer."""
        self._archiver.twins_wanted = enabled

    def skip(self, job: Job, why: str = "this machine cannot keep up") -> None:
        """Count a window that has no clip, say why, and show in the film that there is none."""
        clip: Future[Decoded] = Future()
        clip.set_exception(GivenUpError("window-given-up", "{why}", why=why))
        # In turn: clips of earlier windows may still be on their way.
        self._pending.add(job, clip)
        self.collect()

    def _skip(self, job: Job, why: str) -> None:
        self.settle()
        self.tally.skip(job, why)
        if job.window.revision == "final":
            self._archiver.add_skipped(job)
            self._archiver.archive_down_to(self._most_unarchived)
        if self._on_decided is not None:
            self._on_decided(job, None, why)

    def notes(self) -> list[str]:
        """Return sentences on what the clips show of the session since the last call."""
        return [*self.tally.notes(), *self._decoder.news()]

    def judge(self) -> AccuracySections:
        """Compare what was emitted with the truth; return the sections of the report that rest on it."""
        self.settle()
        self._archiver.archive_down_to(0)
        with writing():
            return self._scorer.score()

    def close(self) -> None:
        """Finish every file, even if another one cannot be finished."""
        caption = self._caption(simulated=self.simulated)
        with writing(), ExitStack() as last_first:
            last_first.callback(self._scorer.save_curves, self._out / "confidence.png", caption)
            last_first.callback(self._archiver.save_sheet, self._out / "contact_sheet.png")
            last_first.callback(self._archiver.close_film)
            last_first.callback(self._writer.close)
            # Closed first: it is deleted, which makes room for the others on a full disk.
            last_first.callback(self._archiver.close_pairs)
            # Before that, though: what is not archived yet.
            last_first.callback(self._archiver.archive_down_to, 0)
            last_first.callback(self._writer.shut_down)
            last_first.callback(self.settle)


def open_emitter(
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
) -> ClipEmitter:
    """Open the files of a session and return the emitter that fills them.

    Parameters
    ----------
    out : Path
        The session's folder (see `streaming.sinks.session_folder.prepare`).
    session : str
        Name of the session, in each record.
    bundle : Bundle
        What the session decodes with.
    decoder : Decoder
        The session's decoder, here or elsewhere.
    truth : Truth
        Film and events of the session, where they are known.
    now : callable
        Reads the clock of the ledger.
    simulated : bool
        Whether a source says that the participant is simulated; the bundle does not count.
    live : bool
        False on a virtual clock: then no window waits, and finals are archived at once.
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
    """
    manifest = bundle.manifest
    grid = manifest.grid
    caption = partial(banner, manifest.note, manifest.chain, bundle_simulated=manifest.simulated)
    note = caption(simulated=simulated)
    clips = ClipSink(out, simulated=simulated)
    chooser = StepChooser(decoder.cost, check_steps(bundle, steps), decoder.numbers_of_steps)
    detail = check_detail(bundle, detail)
    title = "decoded category" if manifest.labels else "reconstruction"
    twin_title = TWIN_TITLE if twin else None
    film = FilmSink(out / "film.mp4", manifest.clip, grid.hop_frames, note, title, twin_title)
    sheet = ContactSheet(note, title, twin_title)
    pairs = Archive(out / ARCHIVE)
    required = [name for name in manifest.modalities if modalities is None or name in modalities]
    tally = ClipTally(required, PresenceLog(manifest.brain), float(grid.hop), float(grid.tr or 0))
    origin = ClipOrigin.of(session, bundle, live=live)
    writer = ClipWriter(clips, origin, now, ThreadPoolExecutor(1, "clips"), on_emitted)
    archiver = FinalArchiver(
        FinalSinks(film, sheet, pairs),
        truth,
        grid.hop_frames,
        partial(_null_brain, decoder, tally),
        writer.save_twin,
        twin_shown=twin,
    )
    return ClipEmitter(
        decoder,
        chooser,
        writer,
        tally,
        archiver,
        Scorer(truth, pairs, bundle),
        out=out,
        caption=caption,
        most_unarchived=_MOST_UNARCHIVED if live else 0,
        detail=detail,
        on_decided=on_decided,
    )


def _null_brain(decoder: AnyDecoder, tally: ClipTally, window: Window, clip: Clip) -> Frames | None:
    """Decode the twin of a clip, in as many steps and with as much detail; None if it is given up."""
    try:
        twin = decoder.decode(window, clip.steps or None, detail=clip.detail, null=True)
    except GivenUpError as error:
        tally.note(f"the null-brain twin of {window_name(window)} is missing: {error}")
        return None
    return twin.clip.frames


def _cost(emitted: EmittedClip) -> Cost:
    """Return what a clip has cost."""
    decoded = emitted.decoded
    encode_s = decoded.encoded_at - decoded.started_at
    emit_s = emitted.emitted_at - decoded.started_at
    decode_s = emit_s - encode_s - decoded.denoising_s
    return Cost(encode_s, decoded.denoising_s / max(1, decoded.clip.steps), decode_s)


def _decision(decoded: Decoded) -> tuple[Decoded | None, str]:
    """Return the clip that a replay is to repeat, or why there is none."""
    if decoded.bundle is None:
        return decoded, ""
    return None, "the fallback decoded it, whose clips a replay does not repeat"
