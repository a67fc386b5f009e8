"""A button that does nothing before it is pressed a second time."""

import time

# The second press counts for so long after the first, s.
WITHIN_S = 10.0
# A double click is one press.
_CLICK_S = 0.5


class Twice:
    """Tell a second press from a first one.

    It is judged in the page's process, which no browser and no other client can change.
    """

    def __init__(self) -> None:
        self._pressed_at = -WITHIN_S

    def press(self, now_at: float | None = None) -> bool:
        """Note a press; return whether it is the second one, and in time.

        Parameters
        ----------
        now_at : float, optional
            When, by the local clock, s; by default now.
        """
        now_at = time.monotonic() if now_at is None else now_at
        since_s = now_at - self._pressed_at
        if since_s < _CLICK_S:
            return False
        self._pressed_at = now_at
        return since_s < WITHIN_S
