"""A run appears whole or not at all, and finished stages are not done twice."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rtdecode import installing
from rtdecode.errors import UsageError
from tests.refusals import refused
from tests.train.stages import counted, waiting
from tests.train.tiny import tiny
from train.config.recipe import read
from train.config.run_context import RunContext
from train.config.run_files import arrays, read_run
from train.data import simulated
from train.evaluation import identification
from train.run_recipe import main, run, show

SMALL = [
    "scale=tiny",
    "data.sessions=0-1",
    "data.seconds=24",
    "system.codec.components=4",
    "system.encoder.eeg_components=4",
    "judge.seconds=12",
]


def test_an_interrupted_run_leaves_nothing_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    real = simulated.session_arrays
    calls = []

    def interrupted(*args: object) -> dict:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(simulated, "session_arrays", interrupted)
    assert main(["ridge", *SMALL, f"out={out}"]) == 130
    message = capsys.readouterr().err
    command = f"python -m train.run ridge {' '.join(SMALL)} resume={out}"
    assert message.endswith(f"{command}\n")
    assert not out.exists()
    with refused(UsageError, "run-stages-unfinished", work_folder=f"{out}.part", command=command) as caught:
        run("ridge", [*SMALL, f"out={out}"])
    assert command in str(caught.value)
    # What a session leaves behind that was killed before it wrote anything.
    out.mkdir()
    (out / ".rtdecode-lock").touch()
    assert main(["ridge", *SMALL, f"resume={out}"]) == 0
    assert len(calls) == 3, "the first session was kept, and the second was made again"
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(out)
    assert not out.with_name("mine.part").exists()
    assert read_run(out)["figures"]["identification_2way"]["n"] == 3


def test_a_run_is_written_before_it_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation that was stopped goes on without a second training, and finds what it would have."""
    out = tmp_path / "mine"
    arguments = ["ridge", *SMALL, f"out={out}"]

    def stopped(*_: object) -> dict:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(identification, "judge_phantom", stopped)
        assert main(arguments) == 130
    assert f"resume={out}\n" in capsys.readouterr().err
    assert read_run(out)["figures"] == {}
    weights = (out / "weights.npz").read_bytes()
    with refused(UsageError, "resume-arguments-mismatch", work_folder=out):
        run("ridge", [*SMALL, "seed=3", f"resume={out}"])
    run("ridge", [*SMALL, f"resume={out}"])
    assert (out / "weights.npz").read_bytes() == weights
    assert not out.with_name("mine.part").exists()
    with refused(UsageError, "resume-run-complete", run=out):
        run("ridge", [*SMALL, f"resume={out}"])
    assert read_run(out)["figures"]["identification_2way"]["n"] == 3
    assert read_run(out)["manifest"]["provenance"]["figures"]["identification_2way"]["n"] == 3


@pytest.mark.full
def test_a_run_that_nobody_judged_is_judged_later_and_finds_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("ridge", [*SMALL, f"out={tmp_path / 'mine'}"])
    later = tmp_path / "later"
    capsys.readouterr()
    assert main(["ridge", *SMALL, "judge=none", f"out={later}"]) == 0
    message = capsys.readouterr().err
    assert message.endswith(f"to judge it: python -m train.run ridge {' '.join(SMALL)} resume={later}\n")
    assert read_run(later)["figures"] == {}
    assert read_run(later)["digest"] == read_run(out)["digest"]
    run("ridge", [*SMALL, f"resume={later}"])
    assert read_run(later) == read_run(out)


def test_a_judge_of_data_sets_needs_one(tmp_path: Path) -> None:
    with refused(UsageError, "judge-needs-data-set"):
        run("ridge", [*SMALL[:-1], "judge={builder: held-out-runs}", f"out={tmp_path / 'mine'}"])


def test_the_default_folder_is_named_when_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulated, "session_arrays", stopped)
    monkeypatch.chdir(tmp_path)
    assert main(["ridge", *SMALL]) == 130
    (part,) = (tmp_path / "runs").iterdir()
    assert f"resume=runs/{part.stem}\n" in capsys.readouterr().err


def test_resuming_asks_for_the_same_arguments(tmp_path: Path) -> None:
    part = tmp_path / "mine.part"
    part.mkdir()
    (part / "request.json").write_text(json.dumps({"recipe": "ridge", "digest": "other"}))
    with refused(UsageError, "resume-version-mismatch", work_folder=part):
        run("ridge", [f"resume={tmp_path / 'mine'}"])
    started = {"recipe": "ridge", "values": read("ridge", ["system.codec.channels=8"]).values}
    (part / "request.json").write_text(json.dumps(started))
    with refused(
        UsageError, "resume-arguments-mismatch", changes="arguments.system.codec.channels was 8 and is 16"
    ):
        run("ridge", [f"resume={tmp_path / 'mine'}"])
    with refused(UsageError, "resume-missing-run", out=tmp_path / "yours"):
        run("ridge", [f"resume={tmp_path / 'yours'}"])


def test_a_resumed_run_has_one_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with refused(UsageError, "resume-out-conflict", resume=mine, out=tmp_path / "yours"):
        run("ridge", [f"resume={mine}", f"out={tmp_path / 'yours'}"])
    with refused(UsageError, "resume-missing-run"):
        run("ridge", [f"resume={mine}", f"out={tmp_path / 'x' / '..' / 'mine'}"])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    with refused(UsageError, "output-folder-not-empty", folder=tmp_path):
        run("haxby", [f"out={tmp_path}"])
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_faults_end_in_a_sentence_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["haxby", "widht=1"]) == 2
    assert "widht" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize("count", [3, 20])
def test_stages_that_do_not_need_each_other_are_made_once_each(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many are made by a process for each core, which has one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    work = RunContext(None, 0, tmp_path / "stages")
    jobs = {f"s{n}": partial(counted, f"s{n}", tmp_path) for n in range(count)}
    work.stage("s1", jobs["s1"])
    for _ in range(2):
        work.make_all(jobs, "counting")
    stage_pids = [(tmp_path / name).read_text().split() for name in jobs]
    assert [len(pids) for pids in stage_pids] == [1] * count
    assert all(np.array_equal(work.read(name)["x"], np.arange(3)) for name in jobs)
    many = count > 10 and (os.cpu_count() or 1) > 1
    assert ({pid for (pid,) in stage_pids[2:]} == {str(os.getpid())}) != many
    if many:
        # Stage 1 was made before, by this process.
        threads = [work.read(f"s{n}")["threads"] for n in range(2, count)]
        assert {*np.concatenate(threads)} == {1}


class _Pool(ProcessPoolExecutor):
    """Lets go the jobs that wait for it, once it has been told to end."""

    go: Path

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.go.touch()
        super().shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: no other processes")
def test_a_stage_that_fails_in_another_process_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Pool, "go", tmp_path / "go", raising=False)
    monkeypatch.setattr("train.config.run_context.ProcessPoolExecutor", _Pool)
    work = RunContext(None, 0, tmp_path / "stages")
    count = 20 * (os.cpu_count() or 1)
    jobs = {"s0": partial(counted, "s0", tmp_path / "nowhere")}
    jobs |= {f"s{n}": partial(waiting, f"s{n}", tmp_path) for n in range(1, count)}
    with pytest.raises(FileNotFoundError):
        work.make_all(jobs, "counting")
    stage_files = list(tmp_path.glob("s*[0-9]"))
    assert len(stage_files) < count / 2, "what had not begun is not made"


def test_a_stage_that_must_be_there_is_not_made_empty(tmp_path: Path) -> None:
    work = RunContext(None, 0, tmp_path / "stages")
    with pytest.raises(FileNotFoundError, match="film-3"):
        work.read("film-3")
    assert not (tmp_path / "stages").exists()


def test_a_stage_is_made_once(tmp_path: Path) -> None:
    work = RunContext(None, 0, tmp_path / "stages")
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):
        assert np.array_equal(work.stage("numbers", make)["x"], np.arange(3))
    assert calls == [1]


def test_judging_seeds_are_not_trained_on(tmp_path: Path) -> None:
    with refused(UsageError, "training-seeds-invalid", seeds=re.compile("999, 1000")):
        run("ridge", [*SMALL, "seed=999", f"out={tmp_path / 'x'}"])


@pytest.mark.parametrize(("recipe", "key"), [("ridge", "judge.seeds"), ("compact", "judge.seeds")])
def test_training_seeds_do_not_judge_and_are_refused_before_anything_is_made(
    recipe: str, key: str, tmp_path: Path
) -> None:
    with refused(UsageError, "judging-seeds-reserved", seeds=[998, 999, 1000]):
        run(recipe, ["scale=tiny", f"{key}=998-1000", f"out={tmp_path / 'x'}"])
    assert not (tmp_path / "x.part" / "stages").exists()


def test_a_figure_without_an_interval_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show({"seam_ratio": {"value": 1.5, "ci95": None, "n": 7}}, "run.json")
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "seam_ratio" in line]
    assert row.replace("│", " ").split() == ["seam_ratio", "1.500", "-", "7"]


def test_a_folder_of_data_is_refused_by_a_recipe_that_simulates(
    tmp_path: Path,
) -> None:
    # What lets a recipe learn from a data set is not inherited; recordings want their film.
    recipe = tmp_path / "own.yaml"
    recipe.write_text("base: ridge\n")
    with refused(UsageError, "recipe-recordings-without-film", data=str(tmp_path)):
        run(str(recipe), [f"data={tmp_path}", f"out={tmp_path / 'x'}"])
    assert not (tmp_path / "x").exists()


def test_without_the_train_extra_the_program_says_what_to_install() -> None:
    hide = (
        "import sys; sys.modules['yaml'] = None; from train.run_recipe import main; sys.exit(main(['ridge']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 1
    assert installing.command("train") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_holds_what_export_needs() -> None:
    folder = tiny("ridge")
    tree = read_run(folder)
    assert tree["recipe"] == "ridge"
    assert tree["manifest"]["simulated"] is True
    assert {"figures", "arguments", "digest", "seed", "versions"} <= set(tree)
    for name in ("weights", "stats", "projection", "golden"):
        assert arrays(folder, name)
    assert arrays(folder, "stats")["mean_clip"].shape == (33, 64, 96, 3)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with refused(UsageError, "run-unreadable"):
        read_run(tmp_path)
