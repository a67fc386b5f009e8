"""Which window next, and with how many steps. Policy: fewer steps, then drop oldest, whole windows.

Every window that got fewer steps and every one that was dropped is counted.
"""

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from rtdecode.types import Window

_LADDER = (8, 4, 2, 1)
# Weight of the newest clip in the running mean of what clips cost.
_NEWEST = 0.3


@dataclass(frozen=True, slots=True)
class Job:
    """A window on its way to the decoder.

    Attributes
    ----------
    window : Window
    clip : int
        Number of its clip in the session.
    costs : dict
        What its newest volume and EEG chunk cost (``volume_to_vector``, ``eeg_push``), ms.
    backlog : bool
        Of volumes that lay there before the session: decoded however late it is.
    """

    window: Window
    clip: int
    costs: dict[str, float | None] = field(default_factory=dict)
    backlog: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing at all was received for the window."""
        return self.window.eeg is None and self.window.fmri is None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a clip costs on this machine, s.

    Attributes
    ----------
    encode_s : float
        From a window to its condition.
    step_s : float
        One denoising step.
    decode_s : float
        From the clean latent to a clip that is written and shown.
    """

    encode_s: float
    step_s: float
    decode_s: float

    def of(self, steps: int) -> float:
        """Seconds that a clip of so many steps takes."""
        return self.encode_s + steps * self.step_s + self.decode_s

    def followed_by(self, newest: "Cost") -> "Cost":
        """The running mean after another clip."""
        pairs = (
            (self.encode_s, newest.encode_s),
            (self.step_s, newest.step_s),
            (self.decode_s, newest.decode_s),
        )
        return Cost(*(old + _NEWEST * (new - old) for old, new in pairs))


def time_left(job: Job, now_at: float, patience: float, waiting: int = 1) -> float:
    """Time that a window may take so that the next ones are not late, s.

    Until the next clip is due, that is `patience` after the window was cut, all windows that wait must
    be decoded. A preview takes half of the time at the most: its final comes in the same hop.

    Parameters
    ----------
    job : Job
    now_at : float
        The local clock.
    patience : float
        One hop, s.
    waiting : int
        Windows that wait, this one among them.

    Returns
    -------
    float
        Zero or less for a window that is late; infinite for a backlog, which nothing presses.
    """
    if job.backlog:
        return math.inf
    left = patience - (now_at - job.window.stamps["windowed"])
    share = left / max(1, waiting)
    return min(share, patience / 2) if job.window.revision == "preview" else share


def steps_within(left_s: float, cost: Cost, wanted: int, among: Collection[int] | None = None) -> int:
    """How many denoising steps fit into the time that is left.

    Parameters
    ----------
    left_s : float
        See `time_left`.
    cost : Cost
        As measured on the clips before.
    wanted : int
        Steps without pressure; 0 where there is nothing to denoise.
    among : collection of int, optional
        The numbers of steps that the bundle can take; by default any.

    Returns
    -------
    int
        `wanted`, else the most of 8, 4, 2 and 1 that fit and can be taken; where none fits, the fewest.
    """
    if wanted < 1:
        return wanted
    fewer = [steps for steps in _LADDER if steps < wanted and (among is None or steps in among)]
    ladder = [wanted, *fewer]
    return next((steps for steps in ladder if cost.of(steps) <= left_s), ladder[-1])


class Inbox:
    """Windows that wait for the decoder.

    A clip is worth showing until the next one is due: once a window has waited for more than
    `patience` seconds and a later one is there, it is dropped. A preview whose final waits too is
    dropped at once. Finals go before previews.

    Parameters
    ----------
    patience : float
        Seconds a window may wait; one hop.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._finals: deque[Job] = deque()
        self._previews: deque[Job] = deque()
        self.dropped_previews = 0

    def __len__(self) -> int:
        return len(self._finals) + len(self._previews)

    def put(self, job: Job) -> None:
        """Add a window."""
        (self._finals if job.window.revision == "final" else self._previews).append(job)

    def take(self, now_at: float) -> tuple[Job | None, list[Job]]:
        """Choose the next window to decode.

        Returns
        -------
        job : Job or None
        skipped : list of Job
            Finals that will never be decoded: count them.
        """
        skipped: list[Job] = []
        while len(self._finals) > 1 and self._late(self._finals[0], now_at):
            skipped.append(self._finals.popleft())
        self._drop_previews(now_at)
        queue = self._finals or self._previews
        return (queue.popleft() if queue else None), skipped

    def _late(self, job: Job, now_at: float) -> bool:
        return not job.backlog and now_at - job.window.stamps["windowed"] > self._patience

    def _drop_previews(self, now_at: float) -> None:
        done = {job.clip for job in self._finals}
        keep = [
            job
            for n, job in enumerate(self._previews, 1)
            if job.clip not in done and not (n < len(self._previews) and self._late(job, now_at))
        ]
        self.dropped_previews += len(self._previews) - len(keep)
        self._previews = deque(keep)
