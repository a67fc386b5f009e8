"""The operator's page during a replay: it is told at every window what a session tells twice a second."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from rtdecode.types import EegChunk, Trigger, Volume
from rtdecode.windows.assembler import Assembler
from streaming.decode.deadline import Job
from streaming.session.mailbox import pack, pack_status
from streaming.session.page_link import PageLink
from streaming.session.snapshot import SignalSnapshot
from streaming.sinks.clip_emitter import ClipEmitter
from streaming.status import Status

Item = EegChunk | Trigger | Volume


class ReplayPage:
    """Tell a page what a replay takes and decodes, and do what is asked for on it.

    Parameters
    ----------
    page : PageLink
        The page that is told.
    assembler : Assembler
        What has cut the windows so far.
    output : ClipEmitter
        Is told whether twins are wanted.
    say : callable
        Prints a sentence on the terminal.
    """

    def __init__(
        self, page: PageLink, assembler: Assembler, output: ClipEmitter, say: Callable[[str], None]
    ) -> None:
        self._page = page
        self._say = say
        self._assembler = assembler
        self._output = output
        self._shown = SignalSnapshot(assembler)
        # Arrivals since the page was told last, and times of the newest, on the recording's clock, s.
        self._items: list[dict[str, Any]] = []
        self._now_at = 0.0
        self._sample_at: float | None = None

    def watch_items(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on as they are taken."""
        for item in items:
            self._now_at = item.arrived_at
            if isinstance(item, EegChunk):
                # The stamps of samples that the recording has lost are not known.
                dated = item.stamps[np.isfinite(item.stamps)]
                self._sample_at = float(dated[-1]) if len(dated) else self._sample_at
            else:
                uid = {"uid": item.uid} if isinstance(item, Volume) else {}
                self._items.append({"arrived_at": item.arrived_at} | uid)
            yield item

    def follow(self, assembler: Assembler) -> None:
        """Show what this assembler has from here on."""
        self._assembler = assembler
        self._shown = SignalSnapshot(assembler)

    def tell(self, job: Job) -> None:
        """Tell of a window that is about to be decoded, and of all that came before it."""
        received_at = self._assembler.eeg_received
        status = Status(
            elapsed=self._assembler.elapsed(self._now_at),
            waiting=[],
            simulated=self._output.simulated,
            counters=self._assembler.counters(),
            items=self._items,
            # A stamp may have jumped.
            newest_sample_at=received_at if math.isfinite(received_at) else self._sample_at,
            sent_at=self._now_at,
            wall_s=time.time(),
        )
        self._items = []
        self._page.tell(pack_status(status, self._shown.arrays()))
        self._page.tell(pack(job.window, clip=job.clip, costs={}, backlog=False))

    def say(self, sentences: Iterable[str]) -> None:
        """Hand sentences on."""
        for sentence in sentences:
            self._page.say(sentence)

    def stopped(self) -> bool:
        """Do what has been asked for; return whether the replay is to stop."""
        self._page.show_twin(self._output.newest_twin)
        stopped = False
        for request in self._page.requests():
            if request.what == "stop":
                stopped = True
            elif request.what == "twin":
                self._output.want_twins(enabled=request.word == "on")
            elif request.what == "say":
                self._say(request.word)
            else:
                self._page.say("A replay notes nothing and deletes nothing: its recording stays as it is.")
        death = self._page.death()
        if death:
            self._say(death)
        return stopped

    def over(self, ended: str) -> None:
        """Say why the replay ended."""
        self._page.over(ended)
