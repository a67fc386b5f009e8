"""The session's side of the page: it tells what happens, and never waits for whoever looks on."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from rtdecode import installing
from rtdecode.bundle import Bundle
from rtdecode.errors import UsageError
from streaming import address as addresses
from streaming.address import Address
from streaming.message import Message
from streaming.session import entrance, interrupts
from streaming.session.flag import Flag
from streaming.session.mailbox import Mailbox, slot_bytes
from streaming.session.options import StreamOptions
from streaming.session.restarts import cause

# Messages that may wait. What comes beyond that is not shown.
_SLOTS = 32


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asks of the session on the page.

    Attributes
    ----------
    what : str
        ``stop``, ``withdraw``, ``mark`` (an event), ``label`` (the newest run), ``confirm`` (a changed source
        of the EEG is the participant's), ``twin`` (make null-brain twins from here on, or no longer) or
        ``say`` (the page itself has something for the terminal).
    word : str
        The label of a run; ``on`` or ``off`` for twins; the sentence to say; empty otherwise.
    requested_at : float
        When, by the local clock, s.
    """

    what: str
    word: str = ""
    requested_at: float = field(default_factory=time.monotonic)


def _serve(*args: object, **kwargs: object) -> None:
    # By its name and in its own process, which alone pays for its toolkit: a session knows no page.
    import_module("streaming.page.process").main(*args, **kwargs)


class PageLink:
    """The page's process, and the way to it.

    Parameters
    ----------
    address : Address
        Where it is to be served.
    folder : Path
        The session's ``--out``.
    options : StreamOptions
        The session's flags, which the page's process is told.
    bundle : Bundle
        The session's; the page's process reads it from its folder.
    body : callable
        What the process runs; a function of a module, as the process imports it by its name.

    Raises
    ------
    UsageError
        If the address cannot be served, or the toolkit is not installed.
    """

    def __init__(
        self,
        address: Address,
        folder: Path,
        options: StreamOptions,
        bundle: Bundle,
        body: Callable[..., None] = _serve,
    ) -> None:
        check_installed()
        socket = addresses.listening(address)
        self._address = replace(address, port=socket.getsockname()[1])
        self._folder = folder
        self._entrance: Path | None = None
        context = multiprocessing.get_context("spawn")
        self._mailbox = Mailbox(context, _SLOTS, slot_bytes(bundle))
        self._stop = Flag(context)
        # A request is some bytes, and the session takes them twenty times a second: the page never waits.
        self._requests, asking = context.Pipe(duplex=False)
        self._process = context.Process(
            target=body,
            args=(socket, self._address, folder.resolve(), options, bundle.path.resolve()),
            kwargs={"mailbox": self._mailbox, "stop": self._stop, "asking": asking},
            daemon=True,
        )
        # Ctrl-C reaches every process of a terminal. The page stays until the session has ended.
        with interrupts.ignored():
            self._process.start()
        socket.close()
        self._alive = self._hears = True
        self._twin: tuple[int, str] | None = None
        self._away_since: float | None = None

    @property
    def url(self) -> str:
        """Where the page is, with the token."""
        return self._address.url

    def write_entrance(self) -> None:
        """Write the file in the session's folder that leads a browser to the page; `close` deletes it.

        Raises
        ------
        OSError
            If it cannot be written, or others could read it.
        """
        self._entrance = entrance.write(self._folder, self._address)

    def requests(self) -> list[Request]:
        """Return what has been asked since the last call; nothing more from a page that has died."""
        requests: list[Request] = []
        try:
            while self._hears and self._requests.poll():
                requests.append(self._requests.recv())
        # So a pipe ends whose writer is gone, also in the middle of a request.
        except (EOFError, OSError):
            self._hears = False
        return requests

    def death(self) -> str:
        """Say, once, that the page's process has ended by itself, and how to go on; empty while it runs."""
        if not self._alive or self._process.is_alive():
            return ""
        self._alive = False
        code = self._process.exitcode
        why = "" if code is None or code < 0 else " What it printed above says why."
        return (
            f"The page ended unexpectedly ({cause(code)}).{why} Everything else goes on and nothing is lost. "
            "Ctrl-C ends the session from here on; the next one has a page again."
        )

    def tell(self, message: Message) -> None:
        """Hand a message on if there is room for it; a page that is slow misses it."""
        if self._alive:
            self._mailbox.put(message, timeout=0.0)

    def say(self, text: str) -> None:
        """Hand a sentence on."""
        self.tell(Message({"kind": "said", "text": text, "wall_s": time.time()}, {}))

    def show_twin(self, newest: tuple[int, str] | None) -> None:
        """Tell of the newest null-brain twin (number of its clip, file), once; None before there is one."""
        if newest is not None and newest != self._twin:
            self._twin = newest
            self.tell(Message({"kind": "twin", "clip": newest[0], "file": newest[1]}, {}))

    def show_decoder(self, away_since: float | None) -> None:
        """Tell, when it changes, since when no decoder elsewhere answers, in wall time, s; None: one does."""
        if away_since != self._away_since:
            self._away_since = away_since
            self.tell(Message({"kind": "decoder", "away_since": away_since}, {}))

    def confirmed(self, source: int) -> None:
        """Tell that sources of the EEG up to this number are the participant's."""
        self.tell(Message({"kind": "confirmed", "source": source}, {}))

    def over(self, ended: str) -> None:
        """Say why the session ended."""
        self.tell(Message({"kind": "over", "ended": ended}, {}))

    def close(self, end_within_s: float = 3.0) -> None:
        """End the page.

        Parameters
        ----------
        end_within_s : float
            How long its process may take to end by itself before it is killed, s.
        """
        if self._entrance is not None:
            # Where it cannot be deleted it leads nowhere: the token ends with the page.
            with suppress(OSError):
                self._entrance.unlink()
        self._stop.set()
        self._process.join(end_within_s)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def open_page(
    options: StreamOptions, bundle: Bundle, out: Path, running: ExitStack, console: Console
) -> PageLink | None:
    """Start the page and say where it is, if there is to be one.

    Parameters
    ----------
    options : StreamOptions
        The session's flags, which say where a page is to be served.
    bundle : Bundle
        The session's.
    out : Path
        The session's folder.
    running : ExitStack
        Ends the page.
    console : Console
        Where the page's address is printed.

    Raises
    ------
    UsageError
        If the address cannot be served, or the toolkit is not installed.
    """
    if options.dashboard is None:
        return None
    address = addresses.parse(options.dashboard, options.dashboard_token)
    page = PageLink(address, out, options, bundle)
    running.callback(page.close)
    # An IPv6 address looks like markup.
    where = f"The session's page, for the operator alone: {page.url}"
    console.print(where, highlight=False, markup=False, soft_wrap=True)
    return page


def write_entrance(page: PageLink | None, console: Console) -> None:
    """Write the file that leads a browser to the page, if there is one; the session goes on without it."""
    if page is None:
        return
    try:
        page.write_entrance()
    except OSError as error:
        console.print(
            f"No file that leads to the page is kept in the session's folder ({error.strerror or error}). "
            "Open the address above.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def check_installed() -> None:
    """Refuse a page where its toolkit is not installed.

    Raises
    ------
    UsageError
    """
    if find_spec("nicegui") is None:
        raise UsageError(
            "dashboard-package-missing",
            "--dashboard needs the package nicegui, which is not installed. Install it with: "
            "{install_command}",
            install_command=installing.command("dashboard"),
        )
