"""JSON without numbers that JSON does not have, everywhere."""

import json
import math
import re
from pathlib import Path

from rtdecode import strict_json

ROOT = Path(__file__).parents[2]
# The mailbox stays between two processes of one session: nothing of it is written. What is sealed is only
# read there, to refuse what is no JSON.
OTHER_WRITERS = {"rtdecode/disk/hashed_folder.py", "rtdecode/strict_json.py", "streaming/message.py"}


def test_numbers_that_are_none_become_null() -> None:
    tree = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, "x")], "c": {"d": True, "e": None, "f": 3}}
    parsed = json.loads(strict_json.dumps(tree))
    assert parsed == {"a": None, "b": [None, 1.5, [None, "x"]], "c": {"d": True, "e": None, "f": 3}}


def test_every_json_of_the_product_is_written_by_it() -> None:
    files = [
        file for name in ("rtdecode", "streaming", "export", "train") for file in (ROOT / name).rglob("*.py")
    ]
    writers = [str(f.relative_to(ROOT)) for f in files if re.search(r"(?<!strict_)json\.dump", f.read_text())]
    assert len(files) > 100
    assert set(writers) == OTHER_WRITERS
