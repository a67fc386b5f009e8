"""Run one session from end to end: the command ``rtdecode demo``.

Two programs talk over the real interfaces, LSL and a folder. One plays the participant, the amplifier and the
scanner, or recorded fMRI; the other decodes what it receives.
"""

import os
import shutil
import subprocess
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

import rtdecode
from rtdecode import bundle as bundles
from rtdecode import child, terminal
from rtdecode.disk import private
from rtdecode.disk.folders import is_in_use
from rtdecode.errors import UsageError
from rtdecode.phantom.film.film import FPS
from rtdecode.phantom.film.watched import KINDS, watched
from streaming import address
from streaming.decode.decoder import check_detail
from streaming.session import entrance, interrupts
from streaming.session.page_link import check_installed
from streaming.sinks.osc import OscSender

# What the simulated participant watches where no film is named: a minute of a real one, whose README says
# whose it is.
FILM = Path(rtdecode.__file__).with_name("phantom") / "films" / "demo.mp4"

_CREDIT = "Caminandes 3: Llamigos, (c) Blender Foundation / studio.blender.org, CC-BY 4.0"
_RECORDED = Path(rtdecode.__file__).with_name("recorded") / "haxby"
_RUNS = ("run009", "run010")
# The shipped bundles that decode the two kinds of participants.
_VIDEO = "phantom"
_CATEGORIES = "haxby"
# Length where none is given, s.
_SECONDS = 60.0
# Within this time a session has opened its page, s.
_PAGE_WITHIN = 60.0
# Last lines of the player's log that are shown if the session fails.
_LINES = 12


def run(
    seconds: float | None = None,
    out: Path | None = None,
    open_film: bool = False,
    recorded: bool = False,
    film: str | None = None,
    dashboard: str | None = None,
    outlet: str | None = None,
    osc: str | None = None,
    group_readable: bool = False,
    detail: float | None = None,
    bundle: str | None = None,
) -> int:
    """Run a session and show what came of it.

    Parameters
    ----------
    seconds : float, optional
        Length of the film, or of each recorded run, s; by default a minute, or all of a film that is shorter.
    out : Path, optional
        Folder of the session; by default ``runs/demo-TIME``.
    open_film : bool
        Open the resulting film at the end.
    recorded : bool
        Play two runs of recorded human fMRI instead of a simulated participant.
    film : str, optional
        What the simulated participant watches: a word or a path, as `rtdecode.phantom.film.watched` takes
        them; by default `FILM`.
    dashboard : str, optional
        ``HOST:PORT`` of the operator's page, which is opened where there is a display.
    outlet, osc : str, optional
        Name of the LSL streams, and ``HOST:PORT`` of the OSC receiver, that emitted clips go out to.
    group_readable : bool
        Whether the group may read what the session writes.
    detail : float, optional
        Share of the detail that the brain did not tell; by default the bundle's.
    bundle : str, optional
        The bundle that decodes the simulated participant, a folder or the name of a shipped one; by default
        `_VIDEO`. The scanner takes its repetition time.

    Returns
    -------
    int
        Exit code of the decoding program.

    Raises
    ------
    UsageError
        If the folder is in use, if there is no such film or it is shorter than `seconds`, if a film or a
        bundle is named for recorded runs, if the page cannot be served at its address, if OSC cannot be sent,
        or if the bundle cannot keep `detail`.
    BundleError
        If there is no such bundle.
    """
    if recorded and film is not None:
        raise UsageError(
            "demo-film-conflict",
            "--film {film}: --recorded plays human runs, whose pictures are fixed. Leave out --film "
            "or --recorded.",
            film=film,
        )
    if recorded and bundle is not None:
        raise UsageError(
            "demo-bundle-conflict",
            "--bundle {bundle}: --recorded plays runs that {own} alone decodes. Leave out --bundle or "
            "--recorded.",
            bundle=bundle,
            own=_CATEGORIES,
        )
    bundle_name = bundle or (_CATEGORIES if recorded else _VIDEO)
    loaded = bundles.load(bundle_name)
    if detail is not None:
        # Refused here, before any program starts; the session checks it again.
        check_detail(loaded, detail)
    page = None
    if dashboard is not None:
        check_installed()
        # One port for all: both recorded runs have their page at one address.
        page = address.free(address.parse(dashboard))
    if osc is not None:
        # Refused here, before any program starts; the session opens its own.
        OscSender(osc).close()
    film_name = str(FILM) if film is None else film
    folder = out or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    if is_in_use(folder):
        raise UsageError(
            "output-folder-not-empty", "--out {folder} is in use. Give a new or empty folder.", folder=folder
        )
    length = _SECONDS if seconds is None else seconds
    if not recorded and film_name not in KINDS:
        # Read before any program starts, so that a film that cannot be shown is refused at once.
        length = min(length, watched(film_name, length, 0, "grid", at_most=seconds is None).count / FPS)
    console = terminal.console(stderr=True)
    stopped = list[str]()
    flags = [] if page is None else ["--dashboard", page.place]
    flags += [] if outlet is None else ["--outlet", outlet]
    flags += [] if osc is None else ["--osc", osc]
    flags += [] if detail is None else ["--detail", f"{detail!r}"]
    flags += ["--group-readable"] if group_readable else []
    if page is not None:
        _open_page(folder / _RUNS[0] if recorded else folder)
    token = None if page is None else page.token
    with interrupts.on_interrupt(stopped.append):
        if recorded:
            code = _recorded(folder, length, flags, token, console, stopped)
        else:
            # The scanner measures as often as the bundle was trained; the default serves one without fMRI.
            tr = loaded.manifest.grid.tr
            player_flags = [] if tr is None else ["--tr", f"{float(tr):g}"]
            code = _simulated(
                folder, length, film_name, bundle_name, player_flags, flags, token, console, stopped
            )
    films = sorted(folder.glob("**/film.mp4"))
    if open_film and code == 0 and films:
        webbrowser.open(films[0].resolve().as_uri())
    return code


def _open_page(folder: Path) -> None:
    """Open the page of the session in this folder, where there is a display; nobody waits for it."""
    if not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        return
    way = folder / entrance.NAME

    def wait() -> None:
        last = time.monotonic() + _PAGE_WITHIN
        while time.monotonic() < last:
            if way.is_file() and way.stat().st_size:
                webbrowser.open(way.resolve().as_uri())
                return
            time.sleep(0.2)

    threading.Thread(target=wait, daemon=True).start()


def _simulated(
    folder: Path,
    seconds: float,
    film: str,
    bundle: str,
    player_flags: Sequence[str],
    flags: Sequence[str],
    token: str | None,
    console: Console,
    stopped: Sequence[str],
) -> int:
    console.print(
        f"Demo: {seconds:g} s of film ({_title(film)}), seen by a",
        terminal.bold("simulated participant"),
        "(preset easy), no person. One program is the participant, the amplifier and the scanner; the other "
        "decodes what it receives.",
        soft_wrap=True,
    )
    # A name of its own keeps two demos on one network apart.
    name = f"rtdecode-demo-{os.getpid()}-{time.time_ns() % 100000}"
    volumes = folder / "scanner"
    truth = folder / "truth"
    private.folder(volumes)
    length = ["--seconds", f"{seconds:g}"]
    sources = ["--lsl", name, "--fmri-dir", str(volumes), "--truth", str(truth), *length]
    player = ["simulate", *sources, "--preset", "easy", "--film", film, *player_flags]
    reader = ["stream", *sources, "--bundle", bundle, *flags]
    return _session(player, reader, token, folder, volumes, console, stopped)


def _title(film: str) -> str:
    if film in KINDS:
        return film
    return _CREDIT if Path(film).resolve() == FILM.resolve() else Path(film).name


def _recorded(
    folder: Path,
    seconds: float,
    flags: Sequence[str],
    token: str | None,
    console: Console,
    stopped: Sequence[str],
) -> int:
    console.print(
        f"Demo: the first {seconds:g} s of two runs of",
        terminal.bold("recorded human fMRI"),
        "(one slice, eight categories of objects), played at their own pace. Category decoding, not a "
        "reconstruction.",
        soft_wrap=True,
    )
    code = 0
    for run_name in _RUNS:
        if code or stopped:
            break
        source = _RECORDED / run_name
        target = folder / run_name
        volumes = target / "scanner"
        private.folder(volumes)
        player = ["play-volumes", str(source / "bold_1slice.nii.gz"), "--fmri-dir", str(volumes)]
        reader = ["stream", "--fmri-dir", str(volumes), "--bundle", _CATEGORIES, "--existing", "read"]
        reader += ["--truth", str(source / "bold_events.tsv"), "--seconds", f"{seconds:g}", *flags]
        code = _session(player, reader, token, target, volumes, console, stopped)
    return code


def _session(
    player: Sequence[str],
    reader: Sequence[str],
    token: str | None,
    folder: Path,
    volumes: Path,
    console: Console,
    stopped: Sequence[str],
) -> int:
    """Run both programs until the reader ends, the player fails, or the demo is stopped.

    The reader has the terminal; what the player says goes into a log.
    """
    log = folder / f"{player[0]}.log"
    # A long film takes minutes to be made. A player that fails ends the demo at once.
    reader = [*reader, "--out", str(folder), "--overwrite", "--wait", "0", "--lost-after", "20"]
    with (
        private.open_file(log) as lines,
        _program(player, lines.fileno()) as played,
        _program(reader, None, token) as read,
    ):
        # A player that ends with 0 has played everything: the reader still has work to do.
        while not stopped and read.poll() is None and played.poll() in (None, 0):
            time.sleep(0.1)
        failed = played.poll() not in (None, 0)
    # The exported volumes were only the way from one program to the other.
    shutil.rmtree(volumes, ignore_errors=True)
    if not stopped and (failed or read.returncode != 0):
        console.print(
            f"`rtdecode {reader[0]}` ended with exit code {read.returncode}: see its output above. "
            f"`rtdecode {player[0]}` said last:",
            *log.read_text().splitlines()[-_LINES:],
            sep="\n",
        )
        return read.returncode or 1
    return 0


@contextmanager
def _program(
    command: Sequence[str], output: int | None, token: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of rtdecode; it has ended when the block is left, however the block is left.

    A token is that of its page.
    """
    with ExitStack() as inherited:
        descriptors = [] if token is None else [inherited.enter_context(address.hand_over(token))]
        flags = [word for number in descriptors for word in ("--dashboard-token-fd", str(number))]
        process = subprocess.Popen(
            child.command(*command, *flags),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
