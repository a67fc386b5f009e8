"""Read JSON values into dataclasses, strictly by the dataclasses' annotations.

Only fractions are converted, from text, and nothing is ignored: a value of the wrong type, an unknown key and
a missing key are all errors.
"""

import math
import re
import reprlib
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from rtdecode.errors import BundleError

# Beyond this a float cannot tell neighbouring whole numbers apart, and no real size
# or count is as large.
_LARGEST = 2**53
# `Fraction` itself would also read "1e999999999", which takes for ever.
_FRACTION = re.compile(r"-?\d{1,9}(/\d{1,9})?", re.ASCII)


def read(kind: Any, value: Any, where: str) -> Any:
    """Read a JSON value as the type that an annotation states.

    Parameters
    ----------
    kind : type
        A dataclass, ``list``, ``dict`` with text as keys, ``X | None``, `Fraction` (as text), a plain type,
        or ``Any``, which accepts everything.
    value
        The value as a JSON parser returned it.
    where : str
        File and key; begins the message of an error.

    Raises
    ------
    BundleError
        If keys are unknown or missing, a value has the wrong type, or a dataclass refuses it.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, where)
    if get_origin(kind) is UnionType:
        (inner,) = (part for part in get_args(kind) if part is not NoneType)
        return None if value is None else read(inner, value, where)
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        entries = _expected(list, "a list", value, where)
        return [read(item, entry, f"{where}[{n}]") for n, entry in enumerate(entries)]
    if get_origin(kind) is dict:
        item = get_args(kind)[1]
        entries = _expected(dict, "an object", value, where)
        return {name: read(item, entry, f"{where}.{name}") for name, entry in entries.items()}
    if kind is Fraction:
        return _fraction(value, where)
    if kind in (int, float):
        return _number(kind, value, where)
    return _expected(kind, {bool: "true or false", str: "text"}[kind], value, where)


def _object(kind: Any, tree: Any, where: str) -> Any:
    """Build a dataclass from a JSON object with its keys; keys with a default may be absent."""
    entries = _expected(dict, "an object", tree, where)
    names = {f.name for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    unknown = sorted(set(entries) - names)
    missing = sorted(needed - set(entries))
    if unknown or missing:
        raise BundleError(
            "json-keys-mismatch",
            "{location}: unknown keys {unknown_keys}, missing keys {missing_keys}.",
            location=where,
            unknown_keys=unknown,
            missing_keys=missing,
        )
    hints = get_type_hints(kind)
    values = {name: read(hints[name], value, f"{where}: {name}") for name, value in entries.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise BundleError.wrap(error, "json-object-invalid", "{location}: {error}", location=where) from error


def _expected(kind: Any, type_name: str, value: Any, where: str) -> Any:
    if not isinstance(value, kind):
        raise BundleError(
            "json-wrong-type",
            "{location} must be {expected_type}, found {value}.",
            location=where,
            expected_type=type_name,
            value=reprlib.repr(value),
        )
    return value


def _number(kind: type, value: Any, where: str) -> Any:
    kinds = (int,) if kind is int else (int, float)
    # In Python, true and false are integers too.
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or not abs(value) <= _LARGEST or not math.isfinite(value):
        type_name = "a whole number" if kind is int else "a number"
        raise BundleError(
            "json-number-invalid",
            "{location} must be {expected_type} of at most 2^53, found {value}.",
            location=where,
            expected_type=type_name,
            value=reprlib.repr(value),
        )
    return value


def _fraction(value: Any, where: str) -> Fraction:
    try:
        if isinstance(value, str) and _FRACTION.fullmatch(value):
            return Fraction(value)
    except ZeroDivisionError as error:
        raise BundleError(
            "json-fraction-zero-denominator",
            "{location}: '{value}' divides by zero.",
            location=where,
            value=value,
        ) from error
    raise BundleError(
        "json-fraction-malformed",
        "{location}: {value} is no fraction of seconds; text like '4/5' was expected.",
        location=where,
        value=reprlib.repr(value),
    )
