"""Which window is decoded next, and with how many denoising steps.

A machine that does not keep up first takes fewer steps; only when that is not enough are windows dropped, the
oldest first and always whole. Clips with fewer steps and dropped windows are counted.
"""

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from rtdecode.types import Window

# Numbers of steps to fall back on, the most first.
_LADDER = (8, 4, 2, 1)
# Weight of the newest clip in the running mean of what clips cost.
_NEWEST = 0.3


@dataclass(frozen=True, slots=True)
class Job:
    """A window on its way to the decoder.

    Attributes
    ----------
    window : Window
        What is to be decoded.
    clip : int
        Number of its clip in the session.
    costs : dict
        What the newest volume and EEG chunk cost (``volume_to_vector``, ``eeg_push``), ms.
    backlog : bool
        Whether its volumes lay in the folder before the session. It is then decoded however late it is.
    acquisition : int
        Number of the acquisition process that cut it, from 0; each restart begins another one.
    """

    window: Window
    clip: int
    costs: dict[str, float | None] = field(default_factory=dict)
    backlog: bool = False
    acquisition: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing at all was received for the window."""
        return self.window.eeg is None and self.window.fmri is None


@dataclass(frozen=True, slots=True)
class Cost:
    """Time that a clip takes on this machine, s.

    Attributes
    ----------
    encode_s : float
        Time from a window to its condition.
    step_s : float
        Time of one denoising step.
    decode_s : float
        Time from the clean latent to a clip that is written and shown.
    """

    encode_s: float
    step_s: float
    decode_s: float

    def of(self, steps: int) -> float:
        """Return the time that a clip of so many steps takes, s."""
        return self.encode_s + steps * self.step_s + self.decode_s

    def followed_by(self, newest: "Cost", weight: float = _NEWEST) -> "Cost":
        """Return the running mean after another clip, which counts for a share of it."""
        pairs = (
            (self.encode_s, newest.encode_s),
            (self.step_s, newest.step_s),
            (self.decode_s, newest.decode_s),
        )
        return Cost(*(old + weight * (new - old) for old, new in pairs))


def time_left(job: Job, now_at: float, patience: float, waiting: int = 1) -> float:
    """Return the time that a window may take so that the next ones are not late, s.

    The next clip is due `patience` after this window was cut. All waiting windows must be decoded by then and
    share that time. A preview gets at most half of `patience`, as its final comes in the same hop. So does a
    refined window, which has no deadline of its own.

    Parameters
    ----------
    job : Job
        The window that is decoded next.
    now_at : float
        Local clock, s.
    patience : float
        One hop, s.
    waiting : int
        Windows that wait, including this one.

    Returns
    -------
    float
        Zero or less for a window that is late; infinite for a backlog, which has no deadline.
    """
    if job.backlog:
        return math.inf
    if job.window.revision == "refined":
        return patience / 2
    remaining_s = patience - (now_at - job.window.stamps["windowed"])
    share = remaining_s / max(1, waiting)
    return min(share, patience / 2) if job.window.revision == "preview" else share


def steps_within(left_s: float, cost: Cost, full_steps: int, among: Collection[int] | None = None) -> int:
    """Return how many denoising steps fit into the time that is left.

    Parameters
    ----------
    left_s : float
        See `time_left`.
    cost : Cost
        As measured on the clips so far.
    full_steps : int
        Steps to take when there is time; 0 if there is nothing to denoise.
    among : collection of int, optional
        The numbers of steps that the bundle can take; by default any.

    Returns
    -------
    int
        `full_steps` if that fits, else the largest of 8, 4, 2 and 1 that fits and can be taken. If none
        fits, the smallest that can be taken.
    """
    if full_steps < 1:
        return full_steps
    fewer = [steps for steps in _LADDER if steps < full_steps and (among is None or steps in among)]
    ladder = [full_steps, *fewer]
    return next((steps for steps in ladder if cost.of(steps) <= left_s), ladder[-1])


class StepChooser:
    """Choose how many denoising steps a clip gets, by what the clips so far have cost.

    Parameters
    ----------
    cost : Cost
        Of the first clip, as measured before the session.
    full_steps : int
        Steps to take when there is time; 0 if there is nothing to denoise.
    among : collection of int, optional
        The numbers of steps that the bundle can take; by default any.
    """

    def __init__(self, cost: Cost, full_steps: int, among: Collection[int] | None = None) -> None:
        self._cost = cost
        self._wanted = full_steps
        self._among = among

    def steps(self, left_s: float) -> int:
        """Return the steps of a clip that may take so long, s; see `steps_within`."""
        return steps_within(left_s, self._cost, self._wanted, self._among)

    def follow(self, newest: Cost) -> None:
        """Take what another clip has cost into the running mean."""
        self._cost = self._cost.followed_by(newest)


class Inbox:
    """Windows that wait for the decoder.

    A clip is worth showing until the next one is due: a window that has waited for more than `patience`
    seconds is dropped once a later one waits too. A preview whose final waits is dropped at once. Finals are
    decoded before previews. Refined windows come last, and are never dropped: they replace a clip that was
    shown long ago.

    Parameters
    ----------
    patience : float
        Time that a window may wait, s; one hop.

    Attributes
    ----------
    dropped_previews : int
        Previews that were dropped so far.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._finals: deque[Job] = deque()
        self._previews: deque[Job] = deque()
        self._refined: deque[Job] = deque()
        self.dropped_previews = 0
        self._dropped: list[Job] = []

    def __len__(self) -> int:
        return self.urgent + len(self._refined)

    @property
    def urgent(self) -> int:
        """Number of windows that have a deadline."""
        return len(self._finals) + len(self._previews)

    def put(self, job: Job) -> None:
        """Add a window."""
        queues = {"final": self._finals, "preview": self._previews, "refined": self._refined}
        queues[job.window.revision].append(job)

    def take(self, now_at: float) -> tuple[Job | None, list[Job]]:
        """Choose the next window to decode.

        Returns
        -------
        job : Job or None
        skipped : list of Job
            Finals that will never be decoded; the caller has to count them.
        """
        skipped: list[Job] = []
        # The newest final is never skipped, however late it is.
        while len(self._finals) > 1 and self._late(self._finals[0], now_at):
            skipped.append(self._finals.popleft())
        self._drop_previews(now_at)
        queue = self._finals or self._previews or self._refined
        return (queue.popleft() if queue else None), skipped

    def dropped(self) -> list[Job]:
        """Return the previews that were dropped since the last call."""
        dropped = self._dropped
        self._dropped = []
        return dropped

    def _late(self, job: Job, now_at: float) -> bool:
        return not job.backlog and now_at - job.window.stamps["windowed"] > self._patience

    def _drop_previews(self, now_at: float) -> None:
        done = {job.clip for job in self._finals}
        previews = self._previews
        self._previews = deque()
        for n, job in enumerate(previews, 1):
            # As among the finals, the newest one is kept however late it is.
            late = n < len(previews) and self._late(job, now_at)
            (self._dropped if job.clip in done or late else self._previews).append(job)
        self.dropped_previews += len(previews) - len(self._previews)
