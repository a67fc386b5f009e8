"""What a check says, and how it comes to say it."""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from string import Formatter
from typing import Any

OK = "ok"
NOTE = "note"
BAD = "bad"
# Not asked for, or not known.
OFF = "off"
# From the best to the worst, with their colours on a terminal.
COLOURS = {OFF: "dim", OK: "green", NOTE: "yellow", BAD: "red"}
STATES = (*COLOURS,)
# Names that a sentence lists before it says how many more there are.
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    subject : str
        What was looked at.
    state : str
        ``ok``, ``note`` (a session can do without), ``bad`` (a session would be refused or degraded), or
        ``off`` (not asked for, or not known).
    found : str
        What was seen.
    advice : str
        What to do; empty if there is nothing to do.
    """

    subject: str
    state: str
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is judged: a row of `streaming.checks.table`.

    Attributes
    ----------
    subject, sentence, advice : str
        Subject of its findings, what is seen, and what to do, with the values that they need in braces:
        ``{gaps:# gap}`` is a number with its noun, ``{channels:names}`` the first few names.
    state : str
        State of its findings, if it has no limits.
    note, bad : float or None
        Beyond these limits a finding is a ``note``, or ``bad``; otherwise it is ok and has no advice.
    figure : str
        Value that the limits are for; the first one of the sentence, if none is named.
    at_least : bool
        Whether the figure must not lie below the limits; otherwise it must not lie above them.
    limit : str
        How a limit is written, behind the sentence of a finding that is beyond it.
    ok : str
        The sentence of a finding that is ok, if it is another one.
    """

    subject: str
    sentence: str
    advice: str = ""
    state: str = OK
    note: float | None = None
    bad: float | None = None
    figure: str = ""
    at_least: bool = False
    limit: str = ""
    ok: str = ""

    @property
    def needs(self) -> list[str]:
        """Names of the values that a finding needs, the figure first."""
        texts = (self.sentence, self.advice, self.ok, self.subject)
        names = [name for text in texts for _, name, _, _ in Formatter().parse(text) if name]
        return [*dict.fromkeys([self.figure, *names] if self.figure else names)]

    def find(self, **values: Any) -> Finding:
        """Judge, and say so, by the values that the check needs."""
        subject = self.subject.format(**values)
        limits = {BAD: self.bad, NOTE: self.note}
        if limits == {BAD: None, NOTE: None}:
            return Finding(subject, self.state, *_written(values, self.sentence, self.advice))
        figure = values[self.needs[0]]
        for state, bound in limits.items():
            if bound is not None and (figure < bound if self.at_least else figure > bound):
                side = "at least" if self.at_least else "at most"
                limit = f" ({side} {self.limit.format(bound)})" if self.limit else ""
                sentence, advice = _written(values, self.sentence, self.advice)
                return Finding(subject, state, f"{sentence}{limit}", advice)
        return Finding(subject, OK, *_written(values, self.ok or self.sentence))

    def of(self, values: Mapping[str, Any]) -> Finding | None:
        """Judge by the values that the check needs; None if one of them is not known."""
        needed = {name: values.get(name) for name in self.needs}
        return None if None in needed.values() else self.find(**needed)


class _Words(Formatter):
    """Write numbers with their nouns, and lists of names."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("# "):
            return counted(len(value) if isinstance(value, Sized) else value, format_spec[2:])
        return listed(value) if format_spec == "names" else super().format_field(value, format_spec)


def _written(values: Mapping[str, Any], *texts: str) -> list[str]:
    return [_Words().vformat(text, (), values) for text in texts]


def judged(checks: Iterable[Check], values: Mapping[str, Any]) -> list[Finding]:
    """Judge by those checks of which all values are known."""
    findings = (check.of(values) for check in checks)
    return [finding for finding in findings if finding is not None]


def implausible(subject: str, sentence: str) -> Finding:
    """Return a finding of a sentence of `rtdecode.signal.plausible`, which ends with what to do."""
    fault, _, advice = sentence.rpartition(": ")
    return Finding(subject, BAD, fault, advice)


def joined(subject: str, findings: Sequence[Finding], between: str = ", ") -> Finding:
    """Return several findings as one: all their sentences, and state and advice of the worst."""
    worst = max(findings, key=lambda finding: STATES.index(finding.state))
    sentences = between.join(finding.found for finding in findings)
    return Finding(subject, worst.state, sentences, worst.advice)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: ``1 gap``, ``2 gaps``."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def listed(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    names = list(names)
    remainder = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + remainder
