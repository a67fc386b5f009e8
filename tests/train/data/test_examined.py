"""What was looked for is said beside what was found, by the command and by a training."""

import json
from pathlib import Path

import numpy as np
import pytest

from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.data import cinebrain_folder as release
from tests.train.data.test_set_windows import opened, random_data_set
from train.data import leaks
from train.data.__main__ import main
from train.data.examined import examined
from train.data.sets.opening import opened as opened_folder
from train.data.shifts import Shift


def described(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release.write(tmp_path, ["sub-0001"], unpacked=True)
    return tmp_path


def test_what_was_looked_for_is_said_beside_what_was_not(folder: Path, capsys) -> None:
    findings = described(capsys, folder)
    unread = "signals that were scaled by themselves, stand still or were cut off (signals=yes)"
    assert "captions that are empty, or shared by clips" in findings["looked_for"]
    assert "runs of the test that are copies of training" in findings["looked_for"]
    assert "EEG that stands still" not in findings["looked_for"]
    assert unread in findings["not_looked_for"]
    assert "signals that were shifted against their clips (shift=yes)" in findings["not_looked_for"]
    findings = described(capsys, folder, "signals=yes")
    assert {"EEG that stands still", "values that were cut off"} <= {*findings["looked_for"]}
    assert unread not in findings["not_looked_for"]
    assert (findings["leaks"], findings["faults"]) == ([], [])
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.index("leaks: none found")
        < printed.index("faults: none found")
        < printed.index("looked for: ")
    )


def test_a_shift_is_looked_for_where_that_is_asked_for(folder: Path, capsys) -> None:
    findings = described(capsys, folder, "shift=yes")
    assert "signals that were shifted against their clips" in findings["looked_for"]
    # The folder has a few windows alone.
    assert [sentence.startswith("Whether sub-0001's ") for sentence in findings["shifts"]] == [True, True]
    assert findings["faults"] == []


def test_a_shift_that_is_told_is_a_fault() -> None:
    data = random_data_set(*[("A", f"run-{run}", f"{run}{n}", False) for run in range(3) for n in range(4)])
    split = opened(data, ["run-2"]).split
    described = Shift("A", "fmri", 200, 3, 2.4, 0.3, 0.2, 0.4, 0.1)
    untold = Shift("A", "eeg", 200, 1, 0.8, 0.1, -0.1, 0.2, 0.1)
    findings = examined(data, split, {}, None, signals=False, shifts=[described, untold])
    assert [fault.says for fault in findings.faults] == [described.says]
    assert findings.shifts == [described.says, untold.says]


def test_eeg_of_zeros_is_a_fault_of_the_folder(folder: Path, capsys) -> None:
    some = sorted((folder / "sub-0001" / "eeg_02").glob("*.npy"), key=lambda path: int(path.stem))[:5]
    for path in some:
        np.save(path, np.zeros_like(np.load(path)))
    [fault] = described(capsys, folder, "signals=yes")["faults"]
    assert fault["kind"] == "EEG stands still"
    assert fault["names"] == ["sub-0001"]
    assert "in 1 of " in fault["says"]


def test_a_number_without_a_place_in_single_precision_is_refused(folder: Path) -> None:
    volumes = [path for path in (folder / "sub-0001").rglob("*.npy") if "eeg" not in path.parent.name]
    path = min(volumes, key=lambda path: int(path.stem))
    values = np.load(path).astype(np.float64)
    values[2] = 1e39
    np.save(path, values)
    with refused(UsageError, "cinebrain-nonfinite-values", nonfinite_values=1):
        opened_folder(folder).read("fmri", [0])


def test_a_training_says_what_was_found_and_looked_for() -> None:
    rows = [("A", f"run-{run}", f"{run}{n}", False) for run in range(3) for n in range(4)]
    data = random_data_set(*rows)
    plain = opened(data, ["run-2"]).taught().manifest.provenance["told"]
    assert plain[-2].startswith("Nothing was found. Looked for: ")
    assert plain[-1].startswith("Not looked for: near-duplicate clips")
    data.values["eeg"][1][:] = 0
    data.values["fmri"][8:] = data.values["fmri"][:4]
    sentences = opened(data, ["run-2"]).taught().manifest.provenance["told"]
    assert sentences[-4].startswith(
        "run copied: 1 runs that are tested on are copies of runs that are trained on"
    )
    assert sentences[-3].startswith("EEG stands still: The eeg of A stands still in 1 of 12 windows")
    assert sentences[-2].startswith("Looked for: ")


def test_what_is_said_of_one_subject_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of the training runs and the signals of all runs may say the same."""
    data = random_data_set(*[("A", f"run-{run}", f"{run}{n}", False) for run in range(3) for n in range(4)])
    leak = leaks.Leak("scaled run by run", ("A",), "so")
    monkeypatch.setattr(leaks, "find_leaks", lambda *_: [leak])
    monkeypatch.setattr("train.data.signal_checks.centred_by_runs", lambda *_: [leak])
    split = opened(data, ["run-2"]).split
    assert examined(data, split, {}, None, signals=True).leaks == [leak]
