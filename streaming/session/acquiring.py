"""The acquisition process as the session's process has it: started, started again, stopped."""

import multiprocessing
from dataclasses import replace
from multiprocessing.context import SpawnProcess

from rtdecode.bundle import Bundle
from streaming.session import interrupts
from streaming.session.flag import Flag
from streaming.session.mailbox import Mailbox
from streaming.session.options import AcquisitionConfig, ResumeState, StreamOptions
from streaming.session.spawn import acquire

# Messages that may wait in the mailbox. When it is full, the acquisition waits.
_SLOTS = 16
# How long the process may take to end, s.
_END_WITHIN = 5.0


def sources(options: StreamOptions, bundle: Bundle, name: str) -> AcquisitionConfig:
    """Write the orders of the acquisition process of a session of this name."""
    meta = {
        "session": name,
        # Only a source can say that the participant is simulated. The bundle cannot: one
        # that was made on a simulated participant may be used on others.
        "simulated": False,
        "bundle": bundle.digest,
        "seconds": options.seconds,
        "dummies": options.dummies,
        # A replay counts as degraded what the session did.
        "asked": options.modalities,
        # Set by the acquisition once it has put a copy into the recording.
        "calibration": None,
    }
    return AcquisitionConfig(bundle.path.resolve(), options, meta)


class AcquisitionProcess:
    """The acquisition process: started, started again, stopped.

    Each start gets a new mailbox, because what a process that was killed had taken of it, or put into it, may
    be incomplete.

    Parameters
    ----------
    sources : AcquisitionConfig
        What the process is told: the bundle, and which sources it reads.
    message_bytes : int
        Size of the largest message.

    Attributes
    ----------
    mailbox : Mailbox
        Where its messages arrive.
    """

    def __init__(self, sources: AcquisitionConfig, message_bytes: int) -> None:
        self._sources = sources
        self._message_bytes = message_bytes
        self._make()

    def _make(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.mailbox = Mailbox(context, _SLOTS, self._message_bytes)
        self._stop = Flag(context)
        self._process: SpawnProcess = context.Process(
            target=acquire, args=(self._sources, self.mailbox, self._stop), daemon=True
        )

    @property
    def exit_code(self) -> int | None:
        """The exit code of a process that has ended."""
        return self._process.exitcode

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def start(self) -> None:
        """Start the process."""
        # The new process inherits what is ignored, so Ctrl-C cannot end it before its own code runs.
        with interrupts.ignored():
            self._process.start()

    def start_again(self, past: ResumeState, *, recording: bool) -> None:
        """Start another process that goes on from what the last one told."""
        options = self._sources.options
        # A recording whose disk was full stays as it is.
        if not recording:
            options = replace(options, record=None)
        self._sources = replace(self._sources, options=options, past=past)
        self._make()
        self.start()

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process.is_alive():
            self._stop.set()

    def join(self) -> None:
        """Wait until the process has ended, for a few seconds at most."""
        self._process.join(timeout=_END_WITHIN)

    def end(self) -> None:
        """Make sure that the process is gone; kill it if it does not end by itself."""
        self.stop()
        self.join()
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
