"""From a person to a live clip by a published system: all of it, by the commands that one types.

python -m benchmarks.road [--json] [--write]     # about 50 minutes on two cores
python -m benchmarks.road --curves               # and what 10 and 20 minutes of recording give
python -m benchmarks.road --minutes 2 --live-minutes 1 --steps 20      # the same in short, to try it

Simulated participant 3 (`easy`) is recorded three times, each time with another film of the drawn world. A
small CineSync is trained on these recordings and exported. On another day the head lies 4 mm and 3 degrees
elsewhere. A short scan without a film calibrates it. The beginning of a fourth session is streamed live, and
the whole of it is replayed: without a calibration, with it, and with one that was told where the head lies.
The clips are held against the film, beside a ridge that had the same windows. At last the bundle is fitted to
a newcomer, participant 4, by as long a recording.

What is in the folder of `--work` already is left alone, so that a road that was interrupted goes on.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result_files import RESULTS, write
from benchmarks.road_judged import JudgedSession, TrainedRun, judge, paired, true_placement
from benchmarks.running import network
from rtdecode import bundle as bundles

_OUT = RESULTS / "road.json"
_WORK = Path("runs/road")
_PRESET = ("--preset", "easy", "--sfreq", "250")
_FILM = ("--film", "natural", "--cuts", "free")
_PARTICIPANT = 3
_NEWCOMER = 4
# Sessions that teach, which is what recordings of a training may have, and one that does not.
_TAUGHT = (700, 701, 702)
_JUDGED = 1700
_LOCALISER = 1701
# What the newcomer watches to be fitted, and to be judged.
_FITTED = 703
_JUDGED_NEWCOMER = 1702
# Shifts of 4 mm in all, and a nod of 3 degrees.
_POSE = "0,2.4,3.2,3,0,0"
_LOCALISER_S = 40
# Steps of each phase, so that the training takes less than half an hour on two cores.
_STEPS = {"films": 300, "pretrain": 600, "align": 400, "diffuse": 200}
_NONE = "none"
_CALIBRATED = "calibrated"
_TRUE = "true_pose"
_PLACED = (_NONE, _CALIBRATED, _TRUE)
# What the calibrated head must keep of what the true pose gives above chance.
_LEAST_SHARE = 0.9
# Of a program that should have ended, s.
_PATIENCE_S = 120


@dataclass(frozen=True)
class Road:
    """One road, and the folder in which its stages lie.

    Attributes
    ----------
    work : Path
    seconds, live_s : float
        Length of each session, and of what is streamed live of the fourth, s.
    steps : dict
        Phase -> its steps.
    recordings : int
        How many teach.
    """

    work: Path
    seconds: float
    live_s: float
    steps: dict[str, int]
    recordings: int = len(_TAUGHT)

    @property
    def trained_folder(self) -> Path:
        """The folder of what depends on the number of recordings."""
        return self.work / f"of-{self.recordings}"

    @property
    def taught(self) -> list[Path]:
        """The recordings that teach; the last one of several is held for the run's own figures."""
        return [self.work / f"recording-{number}" for number in range(1, self.recordings + 1)]

    @property
    def films(self) -> list[Path]:
        """What was watched in them."""
        return [folder / "truth" / "film.mp4" for folder in self.taught]

    @property
    def fourth(self) -> Path:
        """The recording of the judged session."""
        return self.work / "fourth"

    @property
    def run(self) -> Path:
        """The trained run."""
        return self.trained_folder / "run"

    @property
    def bundle(self) -> Path:
        """What was exported of it."""
        return self.trained_folder / "bundle"

    @property
    def ridge_run(self) -> Path:
        """The run of the ridge that stands beside it."""
        return self.trained_folder / "ridge"

    @property
    def ridge_bundle(self) -> Path:
        """What was exported of the ridge, which reads voxels of its own."""
        return self.trained_folder / "ridge-bundle"

    @property
    def ridge_calibration(self) -> Path:
        """Where its voxels lie on the other day's head."""
        return self.trained_folder / "ridge-calibration"

    @property
    def ridge_replayed(self) -> Path:
        """What it shows of the fourth session."""
        return self.trained_folder / "ridge-replayed"

    def calibration(self, placed: str) -> Path | None:
        """Return the calibration of a way to place voxels."""
        return None if placed == _NONE else self.trained_folder / f"calibration-{placed}"

    def replayed(self, placed: str) -> Path:
        """Return the folder of a replay of the fourth session."""
        return self.trained_folder / f"replayed-{placed}"

    def record(self) -> None:
        """Record the sessions."""
        for folder, seed in zip(self.taught, _TAUGHT, strict=False):
            self._recorded(folder, seed)
        self._recorded(self.fourth, _JUDGED, "--pose", _POSE)
        # No film, so a scanner's folder alone: the localiser of the other day comes in real time.
        words = ["simulate", *_person(_PARTICIPANT), "--film", "none", "--seconds", _LOCALISER_S, "--wait", 0]
        place = self.work / "localiser"
        self._stage(
            place, lambda part: _rtdecode(*words, "--seed", _LOCALISER, "--pose", _POSE, "--fmri-dir", part)
        )

    def _recorded(self, folder: Path, seed: int, *options: str, person: int = _PARTICIPANT) -> None:
        words = ["simulate", *_person(person), *_FILM, "--seconds", self.seconds, "--seed", seed, *options]
        self._stage(folder, lambda part: _rtdecode(*words, "--record", part))

    def train(self) -> None:
        """Train, and export; and a ridge from the same recordings."""
        recordings = [f"data={_listed(self.taught)}", f"film={_listed(self.films)}", "judge=none"]
        words = ["cinesync", "scale=tiny", *recordings]
        for phase, steps in self.steps.items():
            warmup = max(1, steps // 20)
            values = {"steps": steps, "warmup": warmup, "show_every": steps}
            words += [f"phases.{phase}.{key}={value}" for key, value in values.items()]
        self._trained(self.run, words)
        self._trained(self.ridge_run, ["ridge", *recordings])
        for run, bundle in ((self.run, self.bundle), (self.ridge_run, self.ridge_bundle)):
            self._stage(bundle, lambda part, run=run: _rtdecode("export", run, "--out", part))

    def _trained(self, run: Path, words: Sequence[str]) -> None:
        # An interrupted training goes on from what it has kept.
        word = "resume" if run.with_name(f"{run.name}.part").is_dir() else "out"
        self._stage(run, lambda _: _program("train.run", *words, f"{word}={run}"), in_place=True)

    def calibrate(self) -> None:
        """Calibrate the other day's head, and write what would be if its place were known."""
        localiser = self.work / "localiser"
        calibration = self.calibration(_CALIBRATED)
        assert calibration is not None
        for bundle, folder in ((self.bundle, calibration), (self.ridge_bundle, self.ridge_calibration)):
            words = ["calibrate", "--fmri-dir", localiser, "--bundle", bundle]
            self._stage(folder, lambda part, words=words: _rtdecode(*words, "--out", part))
        placed = self.calibration(_TRUE)
        assert placed is not None
        trained = bundles.load(str(self.bundle))
        self._stage(placed, lambda part: true_placement(trained, calibration, localiser, _POSE, part))

    def stream(self) -> None:
        """Stream the beginning of the fourth session live, and replay it as it was."""
        self._stage(self.trained_folder / "live", self._live)
        words = [
            "replay",
            self.trained_folder / "live" / "recording",
            "--bundle",
            self.bundle,
            "--speed",
            "max",
        ]
        self._stage(self.trained_folder / "live-again", lambda part: _rtdecode(*words, "--out", part))

    def _live(self, part: Path) -> None:
        part.mkdir(parents=True)
        environment = network(part)
        name = "road-eeg"
        sources = ["--lsl", name, "--fmri-dir", part / "scans", "--truth", part / "truth"]
        words = ["simulate", *sources, *_person(_PARTICIPANT), *_FILM]
        words += ["--seconds", self.seconds, "--seed", _JUDGED, "--pose", _POSE]
        calibration = self.calibration(_CALIBRATED)
        session = ["stream", *sources, "--bundle", self.bundle, "--calibration", calibration]
        session += ["--seconds", self.live_s, "--out", part / "out", "--record", part / "recording"]
        log = (part / "simulate.log").open("wb")
        with (
            log,
            subprocess.Popen(
                _command("rtdecode.cli", *words), stdout=log, stderr=log, env=environment
            ) as simulator,
        ):
            try:
                _until(lambda: (part / "truth" / "events.tsv").is_file(), simulator, log.name)
                _rtdecode(*session, env=environment)
            finally:
                simulator.terminate()
                simulator.wait(_PATIENCE_S)

    def replay(self) -> None:
        """Replay the whole fourth session, with the voxels placed in each way, and by the ridge."""
        for placed in _PLACED:
            self._replayed(self.replayed(placed), self.fourth, self.bundle, self.calibration(placed))
        self._replayed(self.ridge_replayed, self.fourth, self.ridge_bundle, self.ridge_calibration)

    def _replayed(self, out: Path, recording: Path, bundle: Path, calibration: Path | None) -> None:
        words = ["replay", recording, "--bundle", bundle, "--speed", "max"]
        words += [] if calibration is None else ["--calibration", calibration]
        self._stage(out, lambda part: _rtdecode(*words, "--out", part))

    def newcomer(self) -> dict[str, Any]:
        """Fit the bundle to another participant, and judge a further session of theirs.

        Returns
        -------
        dict
            What `rtdecode replay` reports of its 2-way identification; or `value` None and the `reason`,
            where the fit is refused.
        """
        taught = self.work / "newcomer"
        judged = self.work / "newcomer-judged"
        self._recorded(taught, _FITTED, person=_NEWCOMER)
        self._recorded(judged, _JUDGED_NEWCOMER, person=_NEWCOMER)
        bundle = self.trained_folder / "newcomer-bundle"
        refusal = bundle / "refusal.txt"
        self._stage(bundle, lambda part: self._fitted(taught, part))
        if refusal.is_file():
            return {"value": None, "reason": refusal.read_text()}
        replayed = self.trained_folder / "newcomer-replayed"
        self._replayed(replayed, judged, bundle, None)
        return _report(replayed)["accuracy"]["identification_2way"] or {"value": None}

    def _fitted(self, recording: Path, part: Path) -> None:
        command = _command("rtdecode.cli", "fit", recording, "--bundle", self.bundle, "--out", part)
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode:
            # A fit that proves nothing is refused, which is what came of it.
            part.mkdir(exist_ok=True)
            (part / "refusal.txt").write_text(ended.stderr.strip())

    def judged(self) -> dict[str, Any]:
        """Hold the replays against the film."""
        file = self.trained_folder / "judged" / "figures.json"
        self._stage(file.parent, self._judge)
        figures: dict[str, Any] = json.loads(file.read_text())
        return figures

    def _judge(self, part: Path) -> None:
        part.mkdir(parents=True)
        trained = TrainedRun.of(self.run, self.taught, self.films)
        replays = {placed: (self.replayed(placed), self.calibration(placed)) for placed in _PLACED}
        session = JudgedSession.of(self.fourth, trained)
        figures = judge(trained, session, replays, _CALIBRATED, self.ridge_replayed)
        (part / "figures.json").write_text(json.dumps(figures))

    def _stage(self, out: Path, make: Callable[[Path], None], *, in_place: bool = False) -> None:
        """Make a stage unless it is there, say how long it took, and keep that."""
        if out.is_dir():
            return
        title = str(out.relative_to(self.work))
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f"{out.name}.part")
        if not in_place:
            shutil.rmtree(part, ignore_errors=True)
        began = time.monotonic()
        make(part)
        if not in_place:
            part.rename(out)
        took = time.monotonic() - began
        seconds = self.seconds_of_stages() | {title: round(took, 1)}
        (self.work / "seconds.json").write_text(json.dumps(seconds, indent=1))
        print(f"{title}: {took:.0f} s, {sum(seconds.values()):.0f} s so far", file=sys.stderr)  # noqa: T201

    def seconds_of_stages(self) -> dict[str, float]:
        """Return how long each stage took, s."""
        file = self.work / "seconds.json"
        return json.loads(file.read_text()) if file.is_file() else {}


def steps_of(text: str) -> dict[str, int]:
    """Read the steps of the phases: the same number for all, or one for each, in their order."""
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) == 1:
        return dict.fromkeys(_STEPS, numbers[0])
    return dict(zip(_STEPS, numbers, strict=True))


def walk(road: Road) -> dict[str, Any]:
    """Go all the way, and return the figures."""
    road.record()
    road.train()
    road.calibrate()
    road.stream()
    road.replay()
    judged = road.judged()
    newcomer = road.newcomer()
    live = _report(road.trained_folder / "live" / "out")
    again = _report(road.trained_folder / "live-again")["as_live"]
    replayed = _report(road.replayed(_CALIBRATED))
    finals = {"live": live["windows"]["final"], "replayed": replayed["windows"]["final"]}
    skipped = {"live": live["windows"]["skipped"], "replayed": replayed["windows"]["skipped"]}
    expected = {"live": live["windows"]["expected"], "replayed": replayed["windows"]["expected"]}
    figures = {
        "finals": finals,
        "skipped": skipped,
        "expected": expected,
        **judged,
        "live_equals_batch": again,
        "newcomer_fit": newcomer,
        "steps": road.steps,
        "seconds": road.seconds_of_stages(),
    }
    return figures | {"bars": bars(figures)}


def bars(figures: dict[str, Any]) -> dict[str, bool]:
    """Say which bars are met."""
    again = figures["live_equals_batch"]
    identified = figures["identification_2way"]
    placed = figures["calibration"]
    above_colour = paired(identified["above_decoded_colour"])
    above_none = paired(placed["above_none"])
    share = placed["share_of_true_pose"]
    return {
        "every window a final": figures["finals"] == figures["expected"],
        "live equal to batch to the bit": again["bit_for_bit"] == again["windows"] > 0,
        "above the decoded mean colour": above_colour is not None and above_colour > 0,
        "the calibrated head keeps 0.9 of the true pose": share is not None and share >= _LEAST_SHARE,
        "the calibrated head is above the uncalibrated": above_none is not None and above_none > 0,
    }


def curves(road: Road) -> dict[str, Any]:
    """Tell what fewer recordings give."""
    by_length = {}
    for count in range(1, road.recordings):
        fewer = Road(road.work, road.seconds, road.live_s, road.steps, count)
        fewer.record()
        fewer.train()
        fewer.calibrate()
        fewer.replay()
        judged = fewer.judged()
        by_length[f"{count * road.seconds / 60:g} minutes"] = {
            name: judged[name] for name in ("identification_2way", "condition_2way", "pairs")
        }
    return by_length


def _report(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def _until(condition: Callable[[], bool], program: subprocess.Popen[bytes], log: str) -> None:
    began = time.monotonic()
    while not condition():
        if program.poll() is not None or time.monotonic() - began > _PATIENCE_S:
            raise SystemExit(f"the simulated participant did not begin; see {log}.")
        time.sleep(0.2)


def _person(number: int) -> list[object]:
    return [*_PRESET, "--subject", number]


def _listed(paths: Sequence[Path]) -> str:
    return ",".join(map(str, paths))


def _command(module: str, *words: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, words)]


def _rtdecode(*words: object, env: dict[str, str] | None = None) -> None:
    _program("rtdecode.cli", *words, env=env)


def _program(module: str, *words: object, env: dict[str, str] | None = None) -> None:
    command = _command(module, *words)
    # What it says stands beside the lines of this program.
    ended = subprocess.run(command, stdout=sys.stderr, check=False, env=env)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command[1:])} ended with {ended.returncode}; see above.")


def main() -> int:
    """Read the arguments, walk, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON on one line")
    parser.add_argument("--write", action="store_true", help="keep the figures in results/road.json")
    parser.add_argument("--curves", action="store_true", help="and fewer recordings, beyond the 50 minutes")
    parser.add_argument("--work", type=Path, default=_WORK, help="folder of the stages; default: runs/road")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of each session")
    parser.add_argument("--live-minutes", type=float, default=4.0, help="of the fourth, streamed live")
    parser.add_argument("--steps", help="of each phase, for a trial: one number, or four with commas between")
    options = parser.parse_args()
    steps = _STEPS if options.steps is None else steps_of(options.steps)
    road = Road(options.work, 60 * options.minutes, 60 * options.live_minutes, steps)
    figures = walk(road)
    if options.curves:
        figures["curves"] = curves(road)
    print(json.dumps(figures, indent=None if options.json else 1))  # noqa: T201
    if options.write:
        write(_OUT, figures)
    return 0 if all(figures["bars"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
