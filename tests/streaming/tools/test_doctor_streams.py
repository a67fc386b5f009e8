"""The doctor says which stream a session would open, or why it would open none."""

import pylsl
import pytest

from streaming.tools import doctor


def stream(name: str, source_id: str, host: str = "lab") -> pylsl.StreamInfo:
    """A stream as discovery tells of it."""
    info = pylsl.StreamInfo(name, "EEG", 4, 500.0, pylsl.cf_float32, source_id)
    info.hostname = lambda: host  # type: ignore[method-assign]
    return info


@pytest.mark.parametrize(
    ("streams", "query", "state", "words"),
    [
        ([stream("amp", "a")], "amp", "ok", ["amp (EEG, 4 ch)"]),
        ([stream("amp", "a")], "EEG", "ok", ["'EEG' is no stream's name but a type", "'amp' of lab"]),
        ([stream("amp", "a"), stream("b", "b")], "b", "ok", ["b (EEG"]),
        ([stream("amp", "a"), stream("b", "b")], "a", "ok", ["'a' is no stream's name but a source id"]),
        # Two types, two computers, and two amplifiers of one name.
        ([stream("amp", "a"), stream("b", "b")], "EEG", "bad", ["'amp' of lab", "'b' of lab"]),
        ([stream("amp", "a"), stream("amp", "a", "far")], "amp", "bad", ["of lab", "of far"]),
        ([stream("amp", "a"), stream("amp", "b")], "amp", "bad", ["source id 'a'", "source id 'b'"]),
        # Discovery still lists a stream that was started anew.
        ([stream("amp", "a"), stream("amp", "a")], "amp", "ok", ["amp"]),
        ([], "amp", "bad", ["no stream 'amp'"]),
    ],
)
def test_streams_that_fit(
    streams: list[pylsl.StreamInfo], query: str, state: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pylsl, "resolve_streams", lambda **_: streams)
    # Without a bundle to judge a stream against, nobody listens to one.
    checked = doctor.check(doctor.CheckOptions(query, None, "no-such-bundle"))
    (finding,) = [finding for finding in checked.findings if finding.subject == "LSL"]
    assert finding.state == state, finding
    assert all(word in finding.found for word in words), finding
    assert bool(finding.advice) is (state == "bad")
