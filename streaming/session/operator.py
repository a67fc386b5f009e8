"""What the operator asks for on the page or at the terminal, done in the session's process."""

import time
from collections.abc import Callable
from pathlib import Path

from streaming.session import keys
from streaming.session.page_link import PageLink, Request
from streaming.session.progress import Progress
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.sinks.operator_log import Moment, OperatorLog
from streaming.status import Status

# What is typed at the terminal to confirm a changed source of the EEG.
_CONFIRM = "c"


class Operator:
    """Take the operator's requests and carry them out.

    Parameters
    ----------
    page : PageLink or None
        None without a page: then a key at the terminal alone is listened to.
    folder : Path
        The session's ``--out``, where notes are kept.
    progress : Progress
        Says on the terminal what was asked for.
    output : ClipEmitter
        Is told whether twins are wanted, and which source of the EEG is confirmed.

    Attributes
    ----------
    ended : str
        In words, why the operator ends the session; empty while it goes on.
    withdrawn : bool
        Whether the participant has withdrawn.
    """

    def __init__(self, page: PageLink | None, folder: Path, progress: Progress, output: ClipEmitter) -> None:
        self._page = page
        self._log = OperatorLog(folder)
        self._progress = progress
        self._output = output
        self.ended = ""
        self.withdrawn = False

    def follow(self, status: Status) -> None:
        """Carry out what was asked since the last call."""
        if status.eeg_source > self._output.confirmed_source and _CONFIRM in keys.entered():
            self._confirm(Request("confirm"), status)
        if self._page is None:
            return
        for request in self._page.requests():
            self._obey(request, status)
        self._page.show_twin(self._output.newest_twin)
        self._page.show_decoder(self._output.away_since)
        death = self._page.death()
        if death:
            self._progress.tell(death)

    def _obey(self, request: Request, status: Status) -> None:
        match request.what:
            case "stop":
                self.ended = "stopped on the page"
            case "withdraw":
                self.ended = "withdrawn"
                self.withdrawn = True
            case "twin":
                self._output.want_twins(enabled=request.word == "on")
            case "say":
                # On the terminal alone, as it names an address.
                self._progress.say(request.word)
            case "confirm":
                self._confirm(request, status)
            case "mark":
                self._note(request, status, self._log.mark)
            case "label":
                self._note(request, status, lambda moment: self._log.label(moment, request.word))

    def _confirm(self, request: Request, status: Status) -> None:
        """Take the source that the EEG is read from as the participant's."""
        source = status.eeg_source
        if source <= self._output.confirmed_source:
            return
        self._output.confirm_source(source)
        if self._page is not None:
            self._page.confirmed(source)
        self._note(request, status, self._log.confirm)

    def _note(self, request: Request, status: Status, note: Callable[[Moment], str]) -> None:
        """Write down what the operator noted, and say it; decoding goes on if the disk is full."""
        newest_run = status.newest_run
        elapsed_s = status.elapsed
        sent_at = status.sent_at
        moment = Moment(
            run=0 if newest_run is None else newest_run["run"],
            # The session may have been decoding when the operator pressed.
            run_s=None
            if elapsed_s is None or sent_at is None
            else elapsed_s + request.requested_at - sent_at,
            wall_s=time.time() + request.requested_at - time.monotonic(),
        )
        try:
            self._progress.tell(f"the operator noted in run {moment.run}: {note(moment)}")
        except OSError as error:
            self._progress.say(f"The operator's note could not be written: {error.strerror}.")
