"""Look for one LSL stream until it is there, in place of at all streams for a fixed time."""

import pylsl
import pytest

from tests.streaming.sessions import LIMIT


def look_only_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every look at the network end when it has found the stream of this name."""
    monkeypatch.setattr(
        pylsl, "resolve_streams", lambda wait_time: pylsl.resolve_byprop("name", name, timeout=LIMIT)
    )
