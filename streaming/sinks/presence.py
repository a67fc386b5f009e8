"""Whether a session's finals hold a brain that the bundle can read, and since when they do not."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from rtdecode.bundle import Brain
from rtdecode.types import Presence

# A final at or above this probability holds a readable brain.
LEAST = 0.5
# So many finals in a row say that it is gone, or back. A single window is wrong too often to be believed.
IN_A_ROW = 5

_GONE = {
    "neither": (
        "No readable brain has been seen since {since:.1f} s of the session. Do not believe the clips from "
        "there on. Check the cap, the participant's place in the scanner, and that --bundle (and --subject) "
        "is this participant's."
    ),
    "inconsistent": (
        "EEG and fMRI have not belonged together since {since:.1f} s of the session. Do not believe the "
        "clips from there on. Check that both come from this participant and this run, and that the volume "
        "triggers reach the EEG."
    ),
}
_BACK = "A readable brain has been seen again since {since:.1f} s of the session."


@dataclass(slots=True)
class _Spell:
    """A time without a readable brain, on the session's time line; `to_s` is None while it lasts."""

    from_s: float
    finals: list[Presence]
    to_s: float | None = None


class PresenceLog:
    """Follow the finals of a session in order.

    A readable brain is gone once five finals in a row have a probability of it below 0.5, and back once five
    in a row have one of at least 0.5. The session begins as if one were there.

    Parameters
    ----------
    brain : Brain or None
        What the bundle says of its output ``brain``; None if it has none.
    """

    def __init__(self, brain: Brain | None) -> None:
        self._brain = brain
        self._finals = 0
        self._with_brain = 0
        self._spells: list[_Spell] = []
        # The last finals in a row that agree: when their windows began, s, and what they said.
        self._row: deque[tuple[float, Presence]] = deque(maxlen=IN_A_ROW)

    def add(self, start_s: float, presence: Presence) -> str | None:
        """Take the next final; return a sentence if it shows that the brain is gone or back.

        Parameters
        ----------
        start_s : float
            When its window began, s on the session's time line.
        presence : Presence
        """
        there = _is_brain(presence)
        self._finals += 1
        self._with_brain += there
        spell = self._spells[-1] if self._spells and self._spells[-1].to_s is None else None
        if spell is not None and not there:
            spell.finals.append(presence)
        if self._row and _is_brain(self._row[-1][1]) != there:
            self._row.clear()
        self._row.append((start_s, presence))
        if len(self._row) < IN_A_ROW:
            return None
        since_s, _ = self._row[0]
        if spell is None and not there:
            finals = [one for _, one in self._row]
            self._spells.append(_Spell(since_s, finals))
            return _GONE[_kind(finals)].format(since=since_s)
        if spell is not None and there:
            spell.to_s = since_s
            return _BACK.format(since=since_s)
        return None

    def section(self) -> dict[str, Any] | None:
        """Return the section ``brain`` of the report; None if the bundle does not tell.

        Returns
        -------
        dict or None
            `share`: share of the `finals` that hold a readable brain, None without any. `gone`: for each time
            without one its `from_s`, `to_s` (None if it lasted to the end) and `kind`, ``inconsistent`` if
            that is the largest mean probability of its finals, else ``neither``. `prior`: as the bundle
            states it.
        """
        if self._brain is None:
            return None
        gone = [
            {"from_s": spell.from_s, "to_s": spell.to_s, "kind": _kind(spell.finals)}
            for spell in self._spells
        ]
        return {
            "share": self._with_brain / self._finals if self._finals else None,
            "finals": self._finals,
            "gone": gone,
            "prior": asdict(self._brain.prior),
        }


def _is_brain(presence: Presence) -> bool:
    return presence.brain >= LEAST


def _kind(finals: list[Presence]) -> str:
    """Return what finals without a readable brain say on the whole."""
    inconsistent = sum(one.inconsistent for one in finals)
    others = max(sum(one.brain for one in finals), sum(one.neither for one in finals))
    return "inconsistent" if inconsistent > others else "neither"
