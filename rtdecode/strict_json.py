"""Write JSON that every reader can read, without NaN and infinities, which JSON does not have."""

import json
import math
from typing import Any


def dumps(tree: Any, **options: Any) -> str:
    """Serialise as `json.dumps` does, with null (an unknown value) for numbers that are not finite."""
    return json.dumps(finite(tree), allow_nan=False, **options)


def finite(tree: Any) -> Any:
    """Return the same tree of plain values with None in place of numbers that are not finite."""
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return tree
