"""Require an error by its code, and by the values that matter."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from rtdecode.errors import CodedError

Kind = TypeVar("Kind", bound=CodedError)


@contextmanager
def refused(kind: type[Kind], code: str, /, **values: Any) -> Iterator[pytest.ExceptionInfo[Kind]]:
    """Require an error of this class and code, with these values; see `check_error`."""
    with pytest.raises(kind) as caught:
        yield caught
    check_error(caught.value, code, **values)


def check_error(error: BaseException, code: str, /, **values: Any) -> None:
    """Require a code and values of an error.

    A value is the expected one if both are equal or are written alike, as a path and its text are. A compiled
    pattern has to match somewhere in what is written of the value.
    """
    assert isinstance(error, CodedError), repr(error)
    assert error.code == code, f"{error.code}: {error}"
    for name, expected in values.items():
        assert name in error.values, f"{name} is none of the values {sorted(error.values)} of {error.code}"
        value = error.values[name]
        if isinstance(expected, re.Pattern):
            assert expected.search(str(value)), f"{name}: {value} does not match {expected.pattern}"
        else:
            assert value == expected or str(value) == str(expected), f"{name}: {value!r}, not {expected!r}"
