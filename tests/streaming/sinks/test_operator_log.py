from pathlib import Path

import pytest

from streaming.sinks.operator_log import NAME, Moment, OperatorLog


def test_events_are_numbered_and_labels_kept(tmp_path: Path) -> None:
    log = OperatorLog(tmp_path)
    assert not (tmp_path / NAME).exists()
    assert log.mark(Moment(0, None, 0.0)) == "event 1"
    assert log.mark(Moment(0, 12.3456, 3600.0)) == "event 2"
    assert log.label(Moment(1, 4.0, 7200.0), "aborted") == "aborted"
    head, *lines = (tmp_path / NAME).read_text().splitlines()
    assert head.split("\t") == ["run", "run_s", "wall_time", "what"]
    assert [line.split("\t")[0:2] + line.split("\t")[3:] for line in lines] == [
        ["0", "n/a", "event 1"],
        ["0", "12.346", "event 2"],
        ["1", "4.000", "aborted"],
    ]


def test_a_word_that_is_no_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aborted"):
        OperatorLog(tmp_path).label(Moment(0, 1.0, 0.0), "Jane Doe")
    assert not (tmp_path / NAME).exists()
