"""Whether a session's finals hold a brain that the bundle can read, and since when they do not.

A single window cannot tell rest from a film, nor EEG of another moment from its own. The mean of the log odds
of five finals in a row can, and what a session says of a brain rests on it. What one modality says of itself
is sharper: its signals are like those of a brain, or are not.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rtdecode.bundle import Brain
from rtdecode.bundle.brain import LEAST
from rtdecode.types import Presence
from streaming.checks.table import CHECK_BRAIN

# The log odds of so many finals in a row are averaged, and so many averages in a row say that the brain is
# gone, or back. A single one is wrong too often to be believed.
IN_A_ROW = 5
# Log odds are no further from 0 than this, so that one window does not outweigh the other four.
_MOST_ODDS = 4.0

# Where the two modalities are both there, and where one is.
_BRAIN = "readable brain has"
_SIGNALS = "signals of this participant have"
_GONE = {
    "neither": (
        "No {what} been seen since {since:.1f} s of the session. Do not believe the clips from "
        f"there on. {CHECK_BRAIN}."
    ),
    "inconsistent": (
        "EEG and fMRI have not belonged together since {since:.1f} s of the session. Do not believe the "
        "clips from there on. Check that both come from this participant and this run, and that the volume "
        "triggers reach the EEG."
    ),
}
_BACK = {
    _BRAIN: "A readable brain has been seen again since {since:.1f} s of the session.",
    _SIGNALS: "Signals of this participant have been seen again since {since:.1f} s of the session.",
}
NAMES = {"eeg": "EEG", "fmri": "fMRI"}
READ = {"eeg": "the EEG is read", "fmri": "the volumes are read"}
_LOOK = {
    "eeg": "Check the cap and its cable: the stream comes, and is not this participant's EEG.",
    "fmri": "Check the participant's place in the scanner, and that the volumes are this participant's.",
}
_UNTOLD = (
    "This bundle was exported before EEG and fMRI were told apart: brain_by is null, and noise that is "
    "louder than a brain may be taken for one. Export it again."
)


@dataclass(slots=True)
class _Spell:
    """A time without something, on the session's time line; `to_s` is None while it lasts."""

    from_s: float
    to_s: float | None = None


class _Followed:
    """Follow a yes or no from final to final: it changes once five in a row say the other."""

    def __init__(self) -> None:
        self.spells: list[_Spell] = []
        # When the windows of the last finals in a row that agree began, s, and what they say.
        self._since: deque[float] = deque(maxlen=IN_A_ROW)
        self._said = True

    @property
    def is_readable(self) -> bool:
        """Whether it is there; a session begins as if it were."""
        return not self.spells or self.spells[-1].to_s is not None

    def add(self, start_s: float, *, is_readable: bool) -> float | None:
        """Take the next final; return since when it has changed, s, if it does now."""
        if is_readable != self._said:
            self._since.clear()
        self._said = is_readable
        self._since.append(start_s)
        if is_readable == self.is_readable or len(self._since) < IN_A_ROW:
            return None
        if is_readable:
            self.spells[-1].to_s = self._since[0]
        else:
            self.spells.append(_Spell(self._since[0]))
        return self._since[0]


class PresenceLog:
    """Follow the finals of a session in order.

    A readable brain is gone once the mean log odds of five finals in a row were below 0 five times in a row,
    and back once they were not five times in a row. A modality is gone, or back, once five finals in a row
    say so. The session begins as if all were there.

    Parameters
    ----------
    brain : Brain or None
        What the bundle says of its output ``brain``; None if it has none.
    """

    def __init__(self, brain: Brain | None) -> None:
        self._brain = brain
        self._finals = 0
        self._with_brain = 0
        self._joint = _Followed()
        self._modalities = {name: _Followed() for name in NAMES}
        # Finals without a brain, of each of its spells.
        self._without: list[list[Presence]] = []
        # The last finals: when their windows began, s, and what they said.
        self._last: deque[tuple[float, Presence]] = deque(maxlen=2 * IN_A_ROW - 1)

    def add(
        self, start_s: float, presence: Presence, by: Mapping[str, float | None] | None = None
    ) -> list[str]:
        """Take the next final; return sentences if it shows that something is gone or back.

        Parameters
        ----------
        start_s : float
            When its window began, s on the session's time line.
        presence : Presence
            What the bundle said of the window.
        by : mapping, optional
            Modality -> how probable it is that this one is read; None for one that the window lacks.
        """
        self._finals += 1
        self._with_brain += presence.brain >= LEAST
        self._last.append((start_s, presence))
        sentences = [_UNTOLD] if by is None and self._finals == 1 else []
        read = {name: value >= LEAST for name, value in (by or {}).items() if value is not None}
        for name, is_readable in read.items():
            since_s = self._modalities[name].add(start_s, is_readable=is_readable)
            if since_s is not None:
                sentences.append(self._changed(name, since_s, read))
        alone = by is not None and None in by.values()
        return sentences + self._both(_SIGNALS if alone else _BRAIN)

    def _changed(self, name: str, since_s: float, read: Mapping[str, bool]) -> str:
        """Say that a modality is gone or back, and of the other one if it is there and read."""
        if self._modalities[name].is_readable:
            return f"{NAMES[name]}: readable again since {since_s:.1f} s of the session."
        gone = f"{NAMES[name]}: nothing readable since {since_s:.1f} s of the session"
        other_sentences = [READ[other] for other, is_read in read.items() if is_read and other != name]
        return f"{'; '.join([gone, *other_sentences])}. {_LOOK[name]}"

    def _both(self, what: str) -> list[str]:
        newest = list(self._last)[-IN_A_ROW:]
        if len(newest) < IN_A_ROW:
            return []
        is_read = mean_odds([presence.brain for _, presence in newest]) >= 0
        # The first of the five that says so itself.
        since_s = next(start_s for start_s, presence in newest if (presence.brain >= LEAST) == is_read)
        since = self._joint.add(since_s, is_readable=is_read)
        if not self._joint.is_readable:
            if since is not None:
                self._without.append([presence for _, presence in self._last])
            else:
                self._without[-1].append(newest[-1][1])
        if since is None:
            return []
        if is_read:
            return [_BACK[what].format(since=since)]
        return [_GONE[_kind(self._without[-1])].format(what=what, since=since)]

    def section(self) -> dict[str, Any] | None:
        """Return the section ``brain`` of the report; None if the bundle does not tell.

        Returns
        -------
        dict or None
            `share`: share of the `finals` that hold a readable brain, None without any. `gone`: for each time
            without one its `from_s`, `to_s` (None if it lasted to the end) and `kind`, ``inconsistent`` if
            that is the largest mean probability of its finals, else ``neither``. `gone_by`: the same times of
            each modality. `prior`: as the bundle states it.
        """
        if self._brain is None:
            return None
        gone = [
            asdict(spell) | {"kind": _kind(finals)}
            for spell, finals in zip(self._joint.spells, self._without, strict=True)
        ]
        by = {
            name: [asdict(spell) for spell in followed.spells] for name, followed in self._modalities.items()
        }
        return {
            "share": self._with_brain / self._finals if self._finals else None,
            "finals": self._finals,
            "gone": gone,
            "gone_by": by,
            "prior": asdict(self._brain.prior),
        }


def mean_odds(probabilities: Sequence[float]) -> float:
    """Return the mean log odds of probabilities, none further from 0 than 4."""
    return sum(_odds(probability) for probability in probabilities) / len(probabilities)


def _odds(probability: float) -> float:
    if not 0 < probability < 1:
        return math.copysign(_MOST_ODDS, probability - LEAST)
    odds = math.log(probability / (1 - probability))
    return min(max(odds, -_MOST_ODDS), _MOST_ODDS)


def _kind(finals: Sequence[Presence]) -> str:
    """Return what finals without a readable brain say on the whole."""
    inconsistent = sum(presence.inconsistent for presence in finals)
    alternative = max(
        sum(presence.brain for presence in finals), sum(presence.neither for presence in finals)
    )
    return "inconsistent" if inconsistent > alternative else "neither"
