"""Which window next. Policy: drop oldest, whole windows, every one counted."""

from collections import deque
from dataclasses import dataclass, field

from rtdecode.types import Window


@dataclass(frozen=True, slots=True)
class Work:
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
        self._finals: deque[Work] = deque()
        self._previews: deque[Work] = deque()
        self.dropped_previews = 0

    def __len__(self) -> int:
        return len(self._finals) + len(self._previews)

    def put(self, work: Work) -> None:
        """Add a window."""
        (self._finals if work.window.revision == "final" else self._previews).append(work)

    def take(self, now_at: float) -> tuple[Work | None, list[Work]]:
        """Choose the next window to decode.

        Returns
        -------
        work : Work or None
        skipped : list of Work
            Finals that will never be decoded: count them.
        """
        skipped: list[Work] = []
        while len(self._finals) > 1 and self._late(self._finals[0], now_at):
            skipped.append(self._finals.popleft())
        self._drop_previews(now_at)
        queue = self._finals or self._previews
        return (queue.popleft() if queue else None), skipped

    def _late(self, work: Work, now_at: float) -> bool:
        return not work.backlog and now_at - work.window.stamps["windowed"] > self._patience

    def _drop_previews(self, now_at: float) -> None:
        done = {work.clip for work in self._finals}
        keep = [
            work
            for n, work in enumerate(self._previews, 1)
            if work.clip not in done and not (n < len(self._previews) and self._late(work, now_at))
        ]
        self.dropped_previews += len(self._previews) - len(keep)
        self._previews = deque(keep)
