"""What an events file says of windows, as text."""

from rtdecode.scores.events import Event, told_of


def test_words_of_events_are_collected_for_windows_whatever_they_mean() -> None:
    events = {
        3: [
            Event(0.0, 5.0, "shot", {"shape": "disc", "color": "deep red"}),
            Event(5.0, 4.0, "shot", {"shape": "disc", "mood": "xyzzy"}),
        ]
    }
    windows = [(3, 0.0, 4.0), (3, 4.0, 8.0), (3, 9.0, 13.0), (4, 0.0, 4.0)]
    assert told_of(windows, events) == ["disc deep red", "disc deep red xyzzy", "", ""]
