"""What a live session decided for each window: ``decisions.jsonl`` in its recording.

The session's process appends a line as it decides, while the acquisition process writes the rest of the
recording. The first line says who decided. Each further one is a `Decision`, or a `Restart` of the
acquisition. `read` gives them to a replay. A last line that a crash tore is left out.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rtdecode.bundle import Bundle
from rtdecode.disk.hashed_folder import digest_of
from rtdecode.disk.lines import JsonLines
from rtdecode.errors import UsageError

NAME = "decisions.jsonl"
SCHEMA = 1
REVISIONS = ("preview", "final", "refined")
OUTCOMES = ("emitted", "skipped", "dropped")

# Run, number in the run, and revision of a window.
Key = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one revision of a window.

    Attributes
    ----------
    run, window : int
        Number of the run, and of the window in it.
    revision : str
        ``preview``, ``final`` or ``refined``.
    outcome : str
        ``emitted``; ``skipped``, a window without a clip; or ``dropped``, a preview that was not decoded.
    acquisition : int
        Number of the acquisition process that cut it, from 0; each restart begins another one.
    inputs : str or None
        Digest of its signals and masks.
    steps : int or None
        Denoising steps of the clip.
    carried_from : str or None
        Revision of the clip of the window before that the clip carries on from; None if it started afresh.
    latent : str or None
        Digest of the latent's bits.
    colours : str or None
        Mean colours of parts of the clip, two hexadecimal digits a value; see
        `streaming.session.decided.colours`.
    why : str or None
        Why it was skipped, in words that name nothing.
    detail : float or None
        Share of detail that the clip keeps; None where the bundle has no choice.

    Raises
    ------
    ValueError
        If a value is none of those that it may have.
    """

    run: int
    window: int
    revision: str
    outcome: str
    acquisition: int = 0
    inputs: str | None = None
    steps: int | None = None
    carried_from: str | None = None
    latent: str | None = None
    colours: str | None = None
    why: str | None = None
    detail: float | None = None

    def __post_init__(self) -> None:
        for name in ("run", "window", "acquisition"):
            _check(_is_count(getattr(self, name)), name, getattr(self, name))
        _check(self.revision in REVISIONS, "revision", self.revision)
        _check(self.outcome in OUTCOMES, "outcome", self.outcome)
        _check(self.steps is None or _is_count(self.steps), "steps", self.steps)
        _check(self.carried_from in (None, *REVISIONS), "carried_from", self.carried_from)
        _check(self.why is None or isinstance(self.why, str), "why", self.why)
        share = self.detail
        _check(share is None or (_is_time(share) and 0 <= share <= 1), "detail", share)
        if self.outcome == "emitted":
            _check(self.steps is not None, "steps", self.steps)
            _check(isinstance(self.latent, str), "latent", self.latent)
            _check(isinstance(self.colours, str), "colours", self.colours)
            bytes.fromhex(str(self.colours))

    @property
    def key(self) -> Key:
        """Which revision of which window it is on."""
        return self.run, self.window, self.revision


@dataclass(frozen=True, slots=True)
class Restart:
    """The acquisition was started again, and what the next process was told of the one before it.

    Attributes
    ----------
    restarted_at : float
        Local time, s: what arrived later came to the new process.
    acquisition : int
        Number of the new process.
    items : int
        How many triggers and volumes it was told of, the first of the recording.
    first_sample_at, newest_sample_at, heard_since, triggers_expected, rests
        See `streaming.status.Status`.

    Raises
    ------
    ValueError
        If a value is none of those that it may have.
    """

    restarted_at: float
    acquisition: int
    items: int
    first_sample_at: float | None
    newest_sample_at: float | None
    heard_since: Sequence[float]
    triggers_expected: bool
    rests: bool

    def __post_init__(self) -> None:
        _check(_is_time(self.restarted_at), "restarted_at", self.restarted_at)
        for name in ("acquisition", "items"):
            _check(_is_count(getattr(self, name)), name, getattr(self, name))
        for name in ("first_sample_at", "newest_sample_at"):
            _check(getattr(self, name) is None or _is_time(getattr(self, name)), name, getattr(self, name))
        stamps = self.heard_since
        _check(isinstance(stamps, list) and all(map(_is_time, stamps)), "heard_since", stamps)
        for name in ("triggers_expected", "rests"):
            _check(isinstance(getattr(self, name), bool), name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of one session.

    Attributes
    ----------
    bundle : str
        Digest of the bundle that decoded.
    subject : str or None
        Digest of the name of the bundle's subject, if one was asked for.
    session : str
        Name of the session.
    by_key : dict
        The decision on each revision of a window, in the order in which they were taken.
    restarts : list of Restart
        One for each acquisition process that replaced another.
    """

    bundle: str
    subject: str | None
    session: str
    by_key: dict[Key, Decision] = field(default_factory=dict)
    restarts: list[Restart] = field(default_factory=list)

    def is_of(self, bundle: Bundle) -> bool:
        """Return whether the session decoded with this bundle, as the same subject."""
        return (self.bundle, self.subject) == (bundle.digest, _subject(bundle))


class DecisionWriter:
    """Append decisions to a recording that another process writes.

    Parameters
    ----------
    recording : Path
        Its folder.
    session : str
        Name of the session.
    bundle : Bundle
        The bundle that decodes.
    """

    def __init__(self, recording: Path, session: str, bundle: Bundle) -> None:
        self._path = recording / NAME
        self._head = {
            "schema": SCHEMA,
            "session": session,
            "bundle": bundle.digest,
            "subject": _subject(bundle),
        }
        self._lines: JsonLines | None = None

    def append(self, entry: Decision | Restart) -> None:
        """Write one line; it is in the file when this returns. Before the recording has begun, do nothing.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        if self._lines is None:
            # A recording begins in an empty folder.
            if not self._path.with_name("recording.json").is_file():
                return
            self._lines = JsonLines(self._path)
            self._lines.append(self._head)
        self._lines.append({name: value for name, value in asdict(entry).items() if value is not None})

    def close(self) -> None:
        """Close the file, if anything was written."""
        if self._lines is not None:
            self._lines.close()


def read(recording: Path) -> Decisions | None:
    """Read the decisions of a recording; None if it has none.

    Raises
    ------
    UsageError
        If the file cannot be read, is of another schema, or one of its lines is damaged.
    """
    path = recording / NAME
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            lines = file.readlines()
    except OSError as error:
        raise UsageError(
            "decisions-unreadable",
            "{path} cannot be read ({error}). `rtdecode replay --best` does not need it, and decodes every "
            "window at full steps.",
            path=path,
            error=error.strerror,
        ) from error
    # A last line without its end was torn by a crash.
    lines = [line for line in lines if line.endswith(b"\n")]
    if not lines:
        return None
    decisions = _parsed(path, 1, lines[0], _head)
    for number, line in enumerate(lines[1:], 2):
        entry = _parsed(path, number, line, _entry)
        if isinstance(entry, Restart):
            decisions.restarts.append(entry)
        else:
            decisions.by_key[entry.key] = entry
    return decisions


def _parsed(path: Path, number: int, line: bytes, build: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        tree = json.loads(line)
        _check(isinstance(tree, dict), "line", tree)
        return build(tree)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(
            "decisions-line-invalid",
            "line {line} of {path} is damaged ({error}), so that what was live cannot be repeated. `rtdecode "
            "replay --best` decodes every window at full steps, and does not need the file.",
            line=number,
            path=path,
            error=f"{type(error).__name__}: {error}",
        ) from error


def _head(tree: dict[str, Any]) -> Decisions:
    _check(tree["schema"] == SCHEMA, "schema", tree["schema"])
    for name in ("bundle", "session"):
        _check(isinstance(tree[name], str), name, tree[name])
    return Decisions(tree["bundle"], tree.get("subject"), tree["session"])


def _entry(tree: dict[str, Any]) -> Decision | Restart:
    if "restarted_at" in tree:
        # What is not known was left out.
        tree = dict.fromkeys(("first_sample_at", "newest_sample_at")) | tree
        return Restart(**_known(Restart, tree))
    return Decision(**_known(Decision, tree))


def _known(kind: Any, tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys of a later version."""
    names = {attribute.name for attribute in fields(kind)}
    return {name: value for name, value in tree.items() if name in names}


def _subject(bundle: Bundle) -> str | None:
    # As a digest: a bundle's subject may be called by a name.
    return None if bundle.subject is None else digest_of({"subject": bundle.subject})


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise ValueError(f"{name} is {str(value)[:40]}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
