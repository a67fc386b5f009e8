"""The errors that a caller can tell apart, and the exit code of each.

::

    CodedError                        a fault with a code, a sentence and named values
    ├── RtDecodeError        exit 1   any fault with an explanation for the operator
    │   ├── OutputError      exit 1   the session's folder can no longer be written
    │   ├── RecordingError   exit 1   a recording is damaged or not whole
    │   ├── UsageError       exit 2   the command line asks for something impossible
    │   ├── SourceLostError  exit 3   every source fell silent during a session
    │   ├── BundleError      exit 4   a bundle cannot be read or does not fit
    │   └── GeometryError    exit 4   volumes or channels differ from those the bundle was trained on
    └── ManifestError                 a value of a manifest that no bundle can have

Programs and tests read `code` and `values`; people read the sentence, which says what was asked, what was
found and what to do. Sentences and values are for the terminal and may name files, folders, hosts and
streams. Reports on disk hold the error's `reason` instead, which names none of these, so that a report does
not reveal who was scanned or where.
"""

import string
import sys
from collections.abc import Mapping
from typing import Any, LiteralString, Self

from rtdecode import reasons, strict_json


class CodedError(Exception):
    """A fault with a code, a sentence and named values.

    Parameters
    ----------
    code : str
        Which fault it is: a slug that never changes, such as `steps-unsupported`.
    sentence : str
        For the terminal, in the notation of `str.format`: `{name}` stands for the value of that name. A list
        of texts is written with commas between them, and as `none` if it is empty.
    **values : object
        What the sentence names.
    """

    def __init__(self, code: LiteralString, sentence: LiteralString, /, **values: object) -> None:
        # What `copy` and `pickle` make an error from again; they restore the values by themselves.
        super().__init__(code, sentence)
        self.code: str = code
        self.values = values
        self._sentence: str = sentence

    def __str__(self) -> str:
        values = {name: _in_words(value, self.values) for name, value in self.values.items()}
        return _SENTENCES.vformat(self._sentence, (), values)

    @classmethod
    def wrap(
        cls, cause: Exception, code: LiteralString, sentence: LiteralString, /, **values: object
    ) -> Self:
        """Make an error of this class of another error, to add for example the file that it lies in.

        Parameters
        ----------
        cause : Exception
            If it has a code, the new error has this code and its values too.
        code : str
            The code if the cause has none.
        sentence : str
            Its `{error}` is the sentence of the cause.
        **values : object
            What the sentence names, by its placeholders.
        """
        if not isinstance(cause, CodedError):
            return cls(code, sentence, error=cause, **values)
        error = cls(code, sentence, **(cause.values | values | {"error": str(cause)}))
        error.code = cause.code
        return error


class RtDecodeError(CodedError):
    """A fault with an explanation for the operator.

    Parameters
    ----------
    code, sentence : str
        Stable name of the fault, and what is said of it with the values in place.
    reason : str, optional
        For a report on disk, without any names; by default that of the error's class.
    **values : object
        What the sentence names, by its placeholders.
    """

    exit_code = 1
    reason = "a fault that was explained on the terminal"

    def __init__(
        self, code: LiteralString, sentence: LiteralString, /, *, reason: str | None = None, **values: object
    ) -> None:
        super().__init__(code, sentence, **values)
        if reason is not None:
            self.reason = reason

    def to_json(self) -> dict[str, Any]:
        """Return the error as the commands print it with `--json`: code, sentence, exit code and values."""
        values = {name: _plain(value) for name, value in self.values.items()}
        return {"code": self.code, "message": str(self), "exit_code": self.exit_code, "values": values}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], reason: str) -> Self:
        """Make the error again that another process gave as `to_json`."""
        error = cls("", "{message}", reason=reason, message=tree["message"])
        error.code = tree["code"]
        error.values |= tree["values"]
        error.exit_code = tree["exit_code"]
        return error


class OutputError(RtDecodeError):
    """The session's folder can no longer be written."""

    reason = "the session's folder could not be written any more"


class RecordingError(RtDecodeError):
    """A recording that is damaged or not whole."""

    reason = "the recording is damaged or not whole"


class UsageError(RtDecodeError):
    """A value or flag that the command cannot accept."""

    exit_code = 2
    reason = "the command line asked for something impossible"


class SourceLostError(RtDecodeError):
    """Every source has been silent for longer than allowed."""

    exit_code = 3
    reason = "every source fell silent"


class BundleError(RtDecodeError):
    """A bundle that is damaged, unknown or of a different schema."""

    exit_code = 4
    reason = "the bundle or the calibration could not be read"


class GeometryError(RtDecodeError):
    """Volumes or channels that differ from those the bundle was trained on."""

    exit_code = 4
    reason = "volumes or channels arrived that the bundle cannot read"


class ManifestError(CodedError, ValueError):
    """A value of a manifest that no bundle can have."""


def explain(error: RtDecodeError, *, program: str = "", as_json: bool = False) -> int:
    """Print the error that ends a command, and return the command's exit code.

    Parameters
    ----------
    error : RtDecodeError
        The error to put into words.
    program : str
        What the sentence on stderr begins with.
    as_json : bool
        Also print `{"error": {...}}` with code and values on stdout.
    """
    # Imported here: most processes make errors, and few print them.
    from rtdecode import terminal

    terminal.say(f"{program}: {error}" if program else error)
    if as_json:
        terminal.line(strict_json.dumps({"error": error.to_json()}))
    return error.exit_code


class _Sentences(string.Formatter):
    """Sentences with the values of an error."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return ", ".join(value) or "none"
        return super().format_field(value, format_spec)


_SENTENCES = _Sentences()


def _in_words(value: Any, values: Mapping[str, Any]) -> Any:
    """Put an error of the system into words; its file is named unless the other values name it."""
    if not reasons.knows(value):
        return value
    file = getattr(value, "filename", None)
    is_named = any(str(file) in str(other) for other in values.values() if other is not value)
    return reasons.words(value) if file is None or is_named else f"{reasons.words(value)}: {file}"


def _plain(value: Any) -> Any:
    # Numbers of numpy give their Python number; what JSON does not know is written as in the sentence.
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    # `rtdecode --help` is printed without importing numpy.
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return _plain(value.item())
    return str(_in_words(value, {}))
