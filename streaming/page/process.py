"""The page's process: it serves the page, and follows the session in a thread of its own."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socket

import uvicorn
from fastapi import FastAPI, Response
from nicegui import run, ui

from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.disk import private
from streaming.address import Address
from streaming.page.guard import Guard
from streaming.page.preflight import Preflight
from streaming.page.refusals import Refusals
from streaming.page.state import PageState
from streaming.page.view import build
from streaming.session.flag import Flag
from streaming.session.mailbox import Mailbox
from streaming.session.options import StreamOptions
from streaming.session.page_link import Request

# How often a new view is made, s.
_VIEW_INTERVAL_S = 0.5
_NICE = 5
# After the session has ended the page tells so for a moment, s.
_LINGERS = 1.5


def main(
    opened: socket,
    address: Address,
    folder: Path,
    options: StreamOptions,
    bundle: Path,
    *,
    mailbox: Mailbox,
    stop: Flag,
    asking: Connection,
) -> None:
    """Serve the page until `stop` is set or the session's process is gone."""
    terminal.guard()
    private.share_with_group(options.group_readable)
    # Where there are few cores, decoding goes first.
    os.nice(_NICE)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The toolkit makes a pool of processes, which nothing here uses. So made, its semaphores are gone with
    # this process even if it is killed, and the session has nothing to clean up at its end.
    run.process_pool_start_method = "fork"
    # Not verified again: the session did so before it started this process.
    state = PageState(folder, options, bundles.load(bundle, verify=False, subject=options.subject))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_pictures(app, state)
    preflight = Preflight(options, bundle, folder)
    talking = threading.Lock()

    def ask(request: Request) -> None:
        # A session that is gone takes nothing; `follow` then ends the page.
        with talking, suppress(BrokenPipeError):
            asking.send(request)

    build(state, preflight, ask)
    ui.run_with(app, title="rtdecode", dark=True, favicon="🧠")
    refusals = Refusals()
    config = uvicorn.Config(
        Guard(app, address, refusals.add),
        log_level="critical",
        access_log=False,
        # Viewers that are still there do not hold the end of a session up.
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        made_at = 0.0
        ends_at: float | None = None
        while ends_at is None or time.monotonic() < ends_at:
            message = mailbox.get(timeout=0.1)
            if message is not None:
                state.take(message)
            now_at = time.monotonic()
            if now_at - made_at > _VIEW_INTERVAL_S:
                made_at = now_at
                state.refresh(now_at)
                refused = refusals.sentence(now_at)
                if refused:
                    ask(Request("say", refused))
            if ends_at is None and (stop.is_set() or (parent is not None and not parent.is_alive())):
                ends_at = now_at + _LINGERS
        server.should_exit = True

    threading.Thread(target=follow, daemon=True).start()
    server.run(sockets=[opened])
    preflight.close()


def _add_pictures(app: FastAPI, state: PageState) -> None:
    """Serve what is drawn by numbers alone: no part of a request is ever a path."""

    @app.get("/clip/{number}/{revision}")
    def clip(number: int, revision: str) -> Response:
        return _picture(state.clip(number, revision))

    @app.get("/truth/{number}")
    def truth(number: int) -> Response:
        return _picture(state.truth(number))

    @app.get("/twin/{number}")
    def twin(number: int) -> Response:
        return _picture(state.twin(number))

    traces = _Once(state, state.pack_traces, "application/json")
    carpet = _Once(state, state.draw_carpet, "image/png")
    slices = _Once(state, state.draw_slices, "image/png")

    @app.get("/traces")
    def packed() -> Response:
        return traces.answer()

    @app.get("/carpet/{number}")
    def volumes(number: int) -> Response:
        del number
        return carpet.answer()

    @app.get("/slices/{number}")
    def newest(number: int) -> Response:
        del number
        return slices.answer()


_FRESH = {"cache-control": "no-store"}


class _Once:
    """What is made once for all viewers, until the next view.

    Parameters
    ----------
    state : PageState
        Its view says when the answer is to be made again.
    make : callable
        Returns what is sent.
    media_type : str
        Content type of the answer.
    """

    def __init__(self, state: PageState, make: Callable[[], str | bytes], media_type: str) -> None:
        self._state = state
        self._make = make
        self._media_type = media_type
        # Several viewers may ask at the same time.
        self._lock = threading.Lock()
        self._tick = -1
        self._made: str | bytes = ""

    def answer(self) -> Response:
        with self._lock:
            tick = self._state.view.tick
            if tick != self._tick:
                self._made = self._make()
                self._tick = tick
            return Response(self._made, media_type=self._media_type, headers=_FRESH)


def _picture(data: bytes | None) -> Response:
    if data is None:
        return Response("There is no such clip.", status_code=404)
    return Response(data, media_type="image/jpeg", headers=_FRESH)
