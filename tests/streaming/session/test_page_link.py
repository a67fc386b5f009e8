"""The session's side of a page whose process dies, or stands still, at some moment."""

import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rtdecode.bundle import Bundle
from streaming.address import parse
from streaming.message import Message
from streaming.session import entrance
from streaming.session.operator import Operator
from streaming.session.options import StreamOptions
from streaming.session.page_link import PageLink, Request
from streaming.session.progress import Progress
from streaming.session.replay_page import ReplayPage
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.status import Status
from tests.streaming.bundles import make_bundle
from tests.streaming.page import stand_ins
from tests.streaming.sessions import LIMIT, until

HELLO = Message({"kind": "said", "text": "hello", "wall_s": 0.0}, {})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle")


class Opened:
    """A page whose process runs something else, and what the session was told of it."""

    def __init__(self, body: Callable[..., None], bundle: Bundle, folder: Path) -> None:
        self.link = PageLink(parse("127.0.0.1:0"), folder, StreamOptions(), bundle, body)
        self.requests: list[str] = []
        self.deaths: list[str] = []

    def follow(self) -> None:
        """Do what a session does twenty times a second."""
        self.link.tell(HELLO)
        self.requests.extend(request.what for request in self.link.requests())
        death = self.link.death()
        self.deaths.extend([death] if death else [])


def test_a_page_that_dies_is_told_of_once_and_one_that_stands_still_holds_nothing_up(
    bundle: Bundle, tmp_path: Path
) -> None:
    earlier = multiprocessing.active_children()
    # All at once, as each takes a while to start.
    pages = [Opened(body, bundle, tmp_path) for body in stand_ins.BODIES]
    *dead, still, alive = pages

    def followed() -> bool:
        for page in pages:
            page.follow()
        return all(page.deaths for page in dead) and bool(still.requests and alive.requests)

    try:
        until(followed)
        # More than there is room for.
        for _ in range(100):
            followed()
        causes = [
            death.removeprefix("The page ended unexpectedly (") for page in dead for death in page.deaths
        ]
        assert [cause.partition(" Everything else goes on")[0] for cause in causes] == [
            "exit code 3). What it printed above says why.",
            "killed by SIGKILL).",
            f"killed by signal {signal.SIGRTMIN + 1}).",
        ]
        assert not still.deaths + alive.deaths
        assert [page.requests for page in pages] == [[], ["mark"], [], ["mark"], ["mark"]]
        running = [process for process in multiprocessing.active_children() if process not in earlier]
        assert len(running) == 2
        alive.link.write_entrance()
        assert alive.link.url in (tmp_path / entrance.NAME).read_text()
        alive.link.close(LIMIT)
    finally:
        for page in pages:
            page.link.close(0.1)
    assert not (tmp_path / entrance.NAME).exists()
    # The one that was told to ended by itself, the other had to be killed.
    assert sorted(process.exitcode for process in running) == [-signal.SIGKILL, 0]
    assert {*multiprocessing.active_children()} <= {*earlier}


def test_what_the_page_says_goes_to_the_terminal_and_its_death_is_noted(tmp_path: Path) -> None:
    requests = [Request("say", "The page refused a request.")]
    opened = SimpleNamespace(
        requests=lambda: [requests.pop()] if requests else [],
        show_twin=id,
        show_decoder=id,
        death=lambda: "It died.",
    )
    lines = list[tuple[str, str]]()
    output = cast("ClipEmitter", SimpleNamespace(newest_twin=None, confirmed_source=0, away_since=None))
    progress = SimpleNamespace(
        say=lambda text: lines.append(("say", text)), tell=lambda text: lines.append(("tell", text))
    )
    operator = Operator(cast("Any", opened), tmp_path, cast("Progress", progress), output)
    operator.follow(Status())
    assert lines == [("say", "The page refused a request."), ("tell", "It died.")]
    assert not operator.ended
    requests.append(Request("say", "Another."))
    lines.clear()
    replay = ReplayPage.__new__(ReplayPage)
    replay._page = cast("Any", opened)
    replay._output = output
    replay._say = lambda text: lines.append(("say", text))
    assert not replay.stopped()
    assert lines == [("say", "Another."), ("say", "It died.")]
