"""Simulated sessions played through the runtime for a benchmark, with a tiny decoder."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments import headline, minutes
from benchmarks.played import Played, opened, played, record, revisions, ridge_wins
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.phantom.body.in_scanner_eeg import SFREQ
from rtdecode.phantom.session import STEADY, PhantomSession
from tests.refusals import check_error
from tests.train.tiny import tiny, tiny_bundle
from train import compare
from train.evaluation.references import own_sessions, ridge_of

SECONDS = 24


def play(folder: Path, spec: str = "") -> Played:
    session = PhantomSession("easy", 1, 1000, SECONDS, sfreq=250, spec=spec)
    recording = record(session, folder / "recording")
    return played(recording, tiny_bundle("ridge"), folder / "out")


@pytest.mark.full
def test_finals_and_last_revisions_are_judged_off_the_files_of_a_session(tmp_path: Path) -> None:
    (tmp_path / "steady").mkdir()
    (tmp_path / "late").mkdir()
    steady = play(tmp_path / "steady")
    assert steady.finals is not None
    assert steady.finals["n"] == SECONDS // 4
    assert steady.finals == steady.last
    assert steady.windows["refined"] == 0
    # A decoder in closed form shows the same clip wherever there is no signal.
    assert steady.null is not None
    assert steady.null["value"] == pytest.approx(0.5)
    assert steady.wins["null"].keys() == steady.wins["finals"].keys()
    assert sum(steady.wins["finals"].values()) / 6 == pytest.approx(steady.finals["value"])
    assert sum(steady.wins["null"].values()) / 6 == pytest.approx(steady.null["value"])
    late = play(tmp_path / "late", ",".join(f"volume-late@{second}:6" for second in range(6, 22)))
    assert late.windows["refined"] > 3
    assert late.finals is not None
    assert late.last is not None
    # With the volumes that came later, the clips are those of a session in which they came in time.
    assert late.last["value"] == pytest.approx(steady.finals["value"])
    finals, last = revisions(tmp_path / "late" / "out")
    assert finals.keys() == last.keys()
    refined = [file for file in last.values() if file not in finals.values()]
    assert len(refined) > 3
    assert all("refined" in file for file in refined)
    assert late.last["n"] == late.finals["n"] == steady.finals["n"]


def session_of(finals: list[float], null: list[float]) -> Played:
    spans = [(0, 4.0 * k, 4.0 * k + 4) for k in range(len(finals))]
    wins = {"finals": finals, "last": finals, "null": null}
    return Played(
        finals=None,
        last=None,
        null=None,
        windows={"final": len(finals), "refined": 0, "skipped": 1},
        wins={name: dict(zip(spans, won, strict=True)) for name, won in wins.items()},
    )


def test_sessions_of_one_film_are_one_score_a_window_and_the_null_brain_is_paired() -> None:
    sessions = [session_of([1.0, 0.8], [0.5, 0.0]), session_of([0.6, 0.8], [0.5, 0.0])]
    same = headline.summarise(sessions, fixed=True)
    assert same.finals is not None
    assert same.finals["n"] == 2
    assert same.finals["value"] == pytest.approx(0.8)
    assert same.null is not None
    assert same.null["value"] == pytest.approx(0.25)
    assert same.gained is not None
    assert same.gained["value"] == pytest.approx(0.55)
    assert same.gained["chance"] == 0
    # Two windows are too few for an interval.
    assert same.gained["ci95"] is None
    assert same.windows == {"final": 4, "refined": 0, "skipped": 2}
    other = headline.summarise(sessions, fixed=False)
    assert other.finals is not None
    assert other.finals["n"] == 4
    assert headline.table({"ideal": same}).row_count == 1


def test_a_ridge_is_compared_on_the_same_windows() -> None:
    """The ridge misses a window that the finals have: it is left out of the difference alone."""
    session = session_of([1.0, 0.8, 0.6], [0.5, 0.5, 0.5])
    spans = list(session.wins["finals"])
    wins = {"ridge": dict(zip(spans[:2], (0.9, 0.9), strict=True)), "colour": dict.fromkeys(spans, 0.6)}
    compared = headline.summarise([replace(session, wins=session.wins | wins)], fixed=True)
    values = {name: round(figure["value"], 9) for name, figure in compared.comparisons.items() if figure}
    assert values == {"ridge": 0.9, "above ridge": 0.0, "colour": 0.6, "above colour": 0.2}
    assert headline.rounded_figures(compared)["ridge"]["n"] == 2
    assert headline.summarise([session], fixed=True).comparisons == {}


@pytest.mark.full
def test_a_ridge_reads_what_a_session_decodes(tmp_path: Path) -> None:
    run = tiny("ridge")
    bundle = opened(str(run), tmp_path / "bundle")
    decoder = compare.opened(run)
    ridge = ridge_of(bundle, decoder.system, own_sessions(bundle, decoder.who))
    recording = record(PhantomSession("easy", 1, 1000, 40, "grid"), tmp_path / "recording")
    wins = ridge_wins(recording, bundle, ridge)
    finals = played(recording, bundle, tmp_path / "out").wins["finals"]
    assert wins["ridge"].keys() == wins["colour"].keys() == finals.keys()
    assert np.mean(list(wins["ridge"].values())) > 0.6


def test_a_run_is_exported_and_a_bundle_is_loaded(tmp_path: Path) -> None:
    bundle = tiny_bundle("ridge")
    assert opened(str(bundle.path), tmp_path / "unused").digest == bundle.digest
    assert not (tmp_path / "unused").exists()
    assert opened(str(tiny("ridge")), tmp_path / "made").path == tmp_path / "made"


def test_everything_at_once_is_what_it_says(tmp_path: Path) -> None:
    cases = headline.CASES
    real = cases["everything at once"].session(1, 1000, 60, "shapes", STEADY)
    ideal = cases["ideal"].session(1, 1000, 60, "shapes", STEADY)
    assert real.preset.name == "default"
    assert real.sfreq == SFREQ
    assert real.artifacts is not None
    assert real.path is not None
    assert real.gaze is not None
    assert {fault.kind for fault in real.faults} == {"volume-late"}
    assert ideal.preset.name == "easy"
    assert ideal.artifacts is ideal.path is ideal.gaze is None
    assert ideal.faults == ()
    table = tmp_path / "delays.tsv"
    table.write_text("acquired_s\timage_created_s\n" + "".join(f"{2 * n}\t{2 * n + 9}\n" for n in range(9)))
    played_back = cases["everything at once"].session(1, 1000, 60, "shapes", str(table))
    assert played_back.faults == ()
    assert max(played_back.delays) > max(ideal.delays)


@pytest.mark.parametrize(
    ("module", "arguments", "exit_code", "code", "values"),
    [
        (
            headline,
            ["phantom", "--seeds", "999"],
            UsageError.exit_code,
            "judging-seeds-reserved",
            {"seeds": [999]},
        ),
        (minutes, ["no-such-bundle"], BundleError.exit_code, "bundle-missing", {"path": "no-such-bundle"}),
    ],
)
def test_what_is_asked_wrongly_is_explained(
    module: ModuleType,
    arguments: list[str],
    exit_code: int,
    code: str,
    values: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[RtDecodeError] = []

    def explain(error: RtDecodeError) -> int:
        errors.append(error)
        return error.exit_code

    monkeypatch.setattr(module, "explain", explain)
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    assert module.main() == exit_code
    check_error(errors[0], code, **values)


@pytest.mark.full
def test_too_few_minutes_are_told_and_the_bundle_as_it_is_stands_below() -> None:
    # The shipped bundle, as a fit needs one that names a fitter.
    by_minutes = minutes.measure("phantom", [0.5], 1, "shapes", seconds=SECONDS)
    refusal, summary = by_minutes.values()
    assert isinstance(refusal, str)
    assert "a fit needs 60 windows" in refusal
    assert isinstance(summary, headline.CaseSummary)
    assert summary.finals is not None
    assert summary.finals["n"] == SECONDS // 4
    assert minutes.table(by_minutes, 1).row_count == 2
