"""Which window of many sessions is decoded next, with how many steps, and which sessions are let in.

The earliest deadline goes first. Finals go before previews, and windows without a deadline come last: those
of a backlog, refined ones, and twins. Under pressure windows get fewer steps, then previews are dropped, then
finals for which the fewest steps do not fit any more are skipped at once. All of that is counted for each
session.

Nothing here knows of a network, a thread or a clock: every call is told the time.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from rtdecode.errors import RtDecodeError
from streaming.decode.deadline import Cost, steps_within

KINDS = ("final", "preview", "refined", "twin")
# What goes first, and whether it has a deadline.
_CLASSES = (
    ("final", True),
    ("preview", True),
    ("final", False),
    ("preview", False),
    ("refined", False),
    ("twin", False),
)
# So many windows of a session may be under way at once. As many of a kind may come at once after a silence,
# since a session that was cut off sends again what was under way.
MOST_UNDER_WAY = 4
# A session that has sent nothing for so many hops is forgotten.
SILENT_HOPS = 10
# Sessions are let in as long as all of them, in the fewest steps, take at most this share of the time.
_LARGEST_LOAD = 0.85
# What a clip costs varies. With this margin few are late that were thought to fit.
_MARGIN = 1.2
# Weight of the newest clip in the running mean of what clips cost: what the jitter of single clips adds to it
# has to stay below the margin. Where the cost matters, fifty clips of all sessions take seconds.
_NEWEST = 0.02
# Deadlines that come over a network are never equal. Those in the same twentieth of a second count as equal,
# so that sessions whose scans began together take turns.
_SAME_S = 0.05


class RefusedError(RtDecodeError):
    """A session, or a window of one, that this decoder does not take."""

    reason = "the decoder refused the session or a window of it"


@dataclass(frozen=True, slots=True)
class Request:
    """A window of a session that waits for the decoder.

    Attributes
    ----------
    session : str
        Name of the session.
    number : int
        Its number in the session, by which finals and refined windows keep their order.
    run, index : int
        Of the window.
    revision : str
        ``preview``, ``final`` or ``refined``.
    deadline : float
        When its clip is due, s; infinite without a deadline.
    steps : int
        Denoising steps to take when there is time; 0 in closed form.
    null : bool
        Whether its null-brain twin is asked for, which takes exactly `steps`.
    """

    session: str
    number: int
    run: int
    index: int
    revision: str
    deadline: float
    steps: int
    null: bool = False

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return "twin" if self.null else self.revision

    @property
    def has_deadline(self) -> bool:
        """Whether its clip is due at some time; it is never dropped otherwise."""
        return self.kind in ("final", "preview") and math.isfinite(self.deadline)


@dataclass(frozen=True, slots=True)
class Turn:
    """A window that is decoded now, and the number of its denoising steps."""

    request: Request
    steps: int


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A window that will not be decoded, and why, in words."""

    request: Request
    why: str


@dataclass(slots=True)
class Counts:
    """What became of the windows of a session, by their kind.

    Attributes
    ----------
    sent : Counter
        Windows that were taken in.
    decoded : Counter
        Windows that have a clip.
    skipped : Counter
        Windows that were given up, or gave no clip.
    refused : Counter
        Windows that were not taken in.
    late : int
        Clips that came after their deadline.
    steps : Counter
        Clips by their number of denoising steps.
    """

    sent: Counter[str] = field(default_factory=Counter)
    decoded: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    late: int = 0
    steps: Counter[int] = field(default_factory=Counter)


class _Session:
    """The windows of one session that wait, and what is known of it."""

    def __init__(self, now_at: float) -> None:
        self.waiting: list[Request] = []
        self.under_way: Request | None = None
        self.counts = Counts()
        self.heard_at = now_at
        self.served_at = -math.inf
        # Numbers of windows of each kind that may come at once, and when that was so.
        self.allowed: dict[str, float] = dict.fromkeys(KINDS, float(MOST_UNDER_WAY))
        self.allowed_at = now_at

    def next(self, kind: str) -> Request | None:
        """Return this session's next window of a kind; all but previews keep their order."""
        windows = [request for request in self.waiting if request.kind == kind]
        if not windows:
            return None
        if kind == "preview":
            return min(windows, key=lambda request: (request.deadline, request.number))
        return min(windows, key=lambda request: request.number)

    def due_at(self, kind: str) -> float:
        """Return the earliest deadline of a kind; what has to be decoded before it is as urgent."""
        return min(request.deadline for request in self.waiting if request.kind == kind)


class Scheduler:
    """Choose among the windows of all sessions of one decoder.

    Parameters
    ----------
    hop_s : float
        Time from one window of a session to the next, s.
    cost : Cost
        What a clip costs, as measured; it follows the clips.
    numbers_of_steps : set of int or None
        The numbers of steps that the bundle can take; None for any.
    steps : int
        The bundle's own number of steps; 0 in closed form.
    slowest_s : float
        What a clip of the fewest steps takes at p95, s; by which sessions are let in.
    most_sessions : int, optional
        As many sessions are let in at most; by default as many as fit.
    """

    def __init__(
        self,
        hop_s: float,
        cost: Cost,
        numbers_of_steps: set[int] | None,
        steps: int,
        slowest_s: float,
        most_sessions: int | None = None,
    ) -> None:
        self._hop_s = hop_s
        self._cost = cost
        self._numbers = numbers_of_steps
        self._fewest = steps_within(-math.inf, cost, steps, numbers_of_steps)
        fitting = math.floor(_LARGEST_LOAD * hop_s / slowest_s)
        self.capacity = fitting if most_sessions is None else min(fitting, most_sessions)
        self._sessions: dict[str, _Session] = {}

    def __len__(self) -> int:
        """Count the windows that wait."""
        return sum(len(session.waiting) for session in self._sessions.values())

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions that were let in."""
        return list(self._sessions)

    @property
    def urgent(self) -> int:
        """Number of windows that wait and have a deadline."""
        return sum(request.has_deadline for request in self._waiting())

    def open(self, session: str, now_at: float) -> None:
        """Let a session in; one that is in already stays as it is.

        Raises
        ------
        RefusedError
            If it does not fit beside those that are in.
        """
        if session in self._sessions:
            self._sessions[session].heard_at = now_at
            return
        if len(self._sessions) >= self.capacity:
            raise RefusedError(
                "serve-session-not-admitted",
                "this decoder has {n_sessions} sessions, and {capacity} fit: each needs a clip every "
                "{hop_s:g} s. Use another decoder, or wait until a session has ended.",
                n_sessions=len(self._sessions),
                capacity=self.capacity,
                hop_s=self._hop_s,
            )
        self._sessions[session] = _Session(now_at)

    def close(self, session: str) -> None:
        """Forget a session and its windows; one that is not known is no error."""
        self._sessions.pop(session, None)

    def silent(self, now_at: float) -> list[str]:
        """Name the sessions that have sent nothing for 10 hops, and wait for nothing."""
        oldest = now_at - SILENT_HOPS * self._hop_s
        return [
            name
            for name, session in self._sessions.items()
            if session.heard_at < oldest and not self.under_way(name)
        ]

    def counts(self, session: str) -> Counts:
        """Return what became of the windows of a session."""
        return self._sessions[session].counts

    def under_way(self, session: str) -> int:
        """Return how many windows of a session wait or are decoded."""
        remote = self._sessions[session]
        return len(remote.waiting) + (remote.under_way is not None)

    def put(self, request: Request, now_at: float) -> bool:
        """Take a window in.

        Returns
        -------
        bool
            False if a window of this number is under way already; it is not taken twice.

        Raises
        ------
        RefusedError
            If its session sends more windows of the kind than one a hop.
        """
        session = self._sessions[request.session]
        session.heard_at = now_at
        numbers = [waiting.number for waiting in session.waiting]
        if session.under_way is not None:
            numbers.append(session.under_way.number)
        if request.number in numbers:
            return False
        self._allow(session, now_at)
        kind = request.kind
        if session.allowed[kind] < 1:
            session.counts.refused[kind] += 1
            raise RefusedError(
                "serve-window-beyond-hop",
                "window {number} is refused: one {kind} window every {hop_s:g} s is decoded for a session. "
                "Send fewer.",
                number=request.number,
                kind=kind,
                hop_s=self._hop_s,
            )
        session.allowed[kind] -= 1
        session.counts.sent[kind] += 1
        session.waiting.append(request)
        return True

    def drop(self, session: str, number: int) -> bool:
        """Give up a window that its session does not want any more; return whether it waited."""
        remote = self._sessions[session]
        dropped = next((request for request in remote.waiting if request.number == number), None)
        if dropped is None:
            return False
        remote.waiting.remove(dropped)
        remote.counts.skipped[dropped.kind] += 1
        return True

    def take(self, now_at: float) -> tuple[Turn | None, list[GivenUp]]:
        """Choose the window that is decoded next.

        Returns
        -------
        turn : Turn or None
            None if no window waits. `done` has to be called when it is decoded.
        given_up : list of GivenUp
            Windows that will never be decoded.
        """
        given_up = self._give_up(now_at)
        for kind, is_urgent in _CLASSES:
            names = [name for name in self._sessions if self._waits(name, kind, is_urgent=is_urgent)]
            if names:
                name = min(names, key=partial(self._order, kind))
                return self._begin(name, kind, now_at), given_up
        return None, given_up

    def done(self, request: Request, now_at: float, cost: Cost | None, steps: int = 0) -> None:
        """Count a window that was decoded.

        Parameters
        ----------
        request : Request
            As `take` gave it.
        now_at : float
            Local clock, s.
        cost : Cost or None
            What it cost; None if it gave no clip.
        steps : int
            Denoising steps of the clip.
        """
        if cost is not None:
            self._cost = self._cost.followed_by(cost, _NEWEST)
        session = self._sessions.get(request.session)
        # The session may have ended, and begun again, while its window was decoded.
        if session is None or session.under_way is not request:
            return
        session.under_way = None
        # It has waited until now.
        session.heard_at = max(session.heard_at, now_at)
        if cost is None:
            session.counts.skipped[request.kind] += 1
            return
        session.counts.decoded[request.kind] += 1
        session.counts.steps[steps] += 1
        session.counts.late += now_at > request.deadline

    def _waiting(self) -> list[Request]:
        return [request for session in self._sessions.values() for request in session.waiting]

    def _waits(self, name: str, kind: str, *, is_urgent: bool) -> bool:
        """Whether windows of a kind wait in a session, at least one with a deadline if `is_urgent`."""
        windows = [request for request in self._sessions[name].waiting if request.kind == kind]
        return any(request.has_deadline for request in windows) if is_urgent else bool(windows)

    def _order(self, kind: str, name: str) -> tuple[float, float, int]:
        """Return what sessions are compared by: deadline, when they were served last, number of window."""
        session = self._sessions[name]
        request = session.next(kind)
        assert request is not None
        due_at = session.due_at(kind)
        step = round(due_at / _SAME_S) if math.isfinite(due_at) else math.inf
        return step, session.served_at, request.number

    def _begin(self, name: str, kind: str, now_at: float) -> Turn:
        session = self._sessions[name]
        request = session.next(kind)
        assert request is not None
        steps = self._steps(request, now_at)
        session.waiting.remove(request)
        session.under_way = request
        session.served_at = now_at
        return Turn(request, steps)

    def _steps(self, request: Request, now_at: float) -> int:
        """Return how many denoising steps a window gets."""
        if request.null:
            return request.steps
        share = math.inf
        if request.has_deadline:
            share = (request.deadline - now_at) / self.urgent
        # The final of a preview comes in the same hop. A refined window has no deadline of its own.
        if request.kind == "refined" or (request.kind == "preview" and request.has_deadline):
            share = min(share, self._hop_s / 2)
        return steps_within(share, self._with_margin(), request.steps, self._numbers)

    def _with_margin(self) -> Cost:
        cost = self._cost
        return Cost(_MARGIN * cost.encode_s, _MARGIN * cost.step_s, _MARGIN * cost.decode_s)

    def _give_up(self, now_at: float) -> list[GivenUp]:
        """Drop previews whose final waits, and windows for which the fewest steps do not fit any more."""
        given_up: list[GivenUp] = []
        latest = now_at + self._cost.of(self._fewest)
        for session in self._sessions.values():
            finals = {(request.run, request.index) for request in session.waiting if request.kind == "final"}
            remaining: list[Request] = []
            for request in session.waiting:
                if request.kind == "preview" and (request.run, request.index) in finals:
                    given_up.append(GivenUp(request, "its final is there"))
                elif request.has_deadline and request.deadline < latest:
                    given_up.append(GivenUp(request, "the decoder cannot keep up"))
                else:
                    remaining.append(request)
            session.waiting = remaining
        for lost in given_up:
            self._sessions[lost.request.session].counts.skipped[lost.request.kind] += 1
        return given_up

    def _allow(self, session: _Session, now_at: float) -> None:
        """Let a session send one more window of each kind for every hop that has passed."""
        hops = (now_at - session.allowed_at) / self._hop_s
        session.allowed_at = now_at
        for kind, allowed in session.allowed.items():
            session.allowed[kind] = min(float(MOST_UNDER_WAY), allowed + hops)
