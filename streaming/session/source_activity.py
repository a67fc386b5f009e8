"""Since when each source of a session has been silent, and how often it came back."""

import math

from streaming.checks.signals import silence_limits


class SourceActivity:
    """Follow when each source last gave something.

    Parameters
    ----------
    tr_s : float
        TR of the volumes, s: a long one makes their silence longer.

    Attributes
    ----------
    returns : dict
        Source -> how often it came back after silence.
    """

    def __init__(self, tr_s: float = 0.0) -> None:
        self._limits_s = silence_limits(tr_s)
        self._newest_at: dict[str, float] = {}
        self.returns = dict.fromkeys(self._limits_s, 0)

    def came(self, name: str, arrived_at: float) -> None:
        """Note when a source gave something, and count its return if it had been silent."""
        newest_at = self._newest_at.get(name, arrived_at)
        self.returns[name] += arrived_at - newest_at > self._limits_s[name]
        self._newest_at[name] = arrived_at

    def count_from(self, names: list[str], now_at: float) -> None:
        """Count the silence of these sources from now on."""
        self._newest_at = dict.fromkeys(names, now_at)

    def silent_s(self, now_at: float) -> float | None:
        """Return the time since anything came, s; None before that."""
        return now_at - max(self._newest_at.values()) if self._newest_at else None

    def is_silent(self, name: str, now_at: float) -> bool:
        """Whether a source has been silent for so long that it is named."""
        return now_at - self._newest_at.get(name, -math.inf) > self._limits_s[name]

    def since(self, name: str, now_at: float) -> str:
        """Say for how long a source has been silent; nothing before it gave something."""
        if name not in self._newest_at:
            return ""
        return f"silent for {now_at - self._newest_at[name]:.0f} s, "
