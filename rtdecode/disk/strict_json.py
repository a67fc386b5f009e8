"""JSON that every reader can read: no number that JSON does not have."""

import json
import math
from typing import Any


def dumps(tree: Any, **options: Any) -> str:
    """As `json.dumps`, with null for numbers that are not finite: a value that is not known is null."""
    return json.dumps(finite(tree), allow_nan=False, **options)


def finite(tree: Any) -> Any:
    """The same tree of plain values with None for numbers that are not finite."""
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return tree
