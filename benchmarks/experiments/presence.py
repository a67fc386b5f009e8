"""Whether a decoder knows when there is no brain: any signal, at any level, and no false alarm.

    python -m benchmarks.experiments.presence [RUN] [--seeds 1200-1219] [--presets easy,default,hard]
                                                    [--json] [--write]

In each session the participant watches a film for ten minutes. Windows of it are replaced by bad signals
(`benchmarks.experiments.bad_signals`), in one modality or in both, at several levels; others are of a
participant at rest, of another participant, or of another moment. For each kind and level stand, by route,
the share of the windows that are taken for a brain, the area under the curve against clean windows, and the
confidence of those that are taken for one beside the share of comparisons that their clips win. Where one
modality is replaced, stand the shares at which each modality is taken for one of a brain. Of clean sessions
stand the windows and means of five that are lost, and the false alarms. Intervals are over sessions.

Seeds from 3200 on are for stating bars, once. `--write` keeps the figures as results/presence.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.experiments import bad_signals
from benchmarks.result_files import RESULTS, write
from rtdecode.bundle import Bundle
from rtdecode.bundle.brain import LEAST, MODALITIES
from rtdecode.errors import RtDecodeError, explain
from rtdecode.phantom.film.watched import NATURAL, NONE, SHAPES
from rtdecode.scores.events import Span
from rtdecode.scores.ties import duels
from rtdecode.timing import TimingGrid
from rtdecode.types import Presence
from streaming.sinks.presence import IN_A_ROW, PresenceLog, mean_odds
from train.compare import Decoder, opened
from train.config.run_context import Arrays, RunContext, progress
from train.data.phantom import ELECTRODE, Participant, session_arrays, spans
from train.evaluation.beside import ROUTES, only
from train.evaluation.film_scores import FilmWindows, describe, told_apart
from train.evaluation.identification import judging_seeds
from train.evaluation.reconstruct import conditions_alone
from train.evaluation.references import watch
from train.evaluation.sections.presence import BRAIN, promises
from train.reproduce import shipped

_SECONDS = 600.0
# Of sessions that only lend their windows.
_LENT_S = 200.0
# Every so many windows of a session are replaced.
_STRIDE = 15
# Sessions of which clips of replaced signals are drawn, to hold them against the confidence.
_DECODED_SESSIONS = 5
# Fewer windows that are taken for a brain say nothing of their confidence.
_FEWEST = 20
_TEMPERATURE = 1.0
# What `worst` and `clean_row` name may reach so much at most, and has to exceed so much.
AT_MOST = {
    "bad_above": 0.05,
    "bad_modality_above": 0.05,
    "rest_means_above_0": 0.1,
    "other_film_means_above_0": 0.1,
    "bad_channel_loses": 0.05,
    "confidence_above_wins": 0.05,
    "windows_lost": 0.15,
    "means_below_0": 0.05,
    "false_alarms": 1,
    "confidence_calibration_error": 0.04,
}
AT_LEAST = {"true_modality_above": 0.9, "confidence_brier_skill_low": 0.0}
# Those that hold at every preset, and the preset at which no other does.
_OF_BAD = ("bad_above", "bad_modality_above", "true_modality_above")
_UNHELD = "hard"
_OUT = RESULTS / "presence.json"

Matrix = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What a system says of windows.

    Attributes
    ----------
    brain : (window,) float64
        Probability that a window holds a brain that it can read.
    by : (window, 2) float64
        The same of EEG and of fMRI alone.
    inconsistent : (window,) float64
        Probability that its modalities do not belong to one window.
    confidence : (window,) float64
        Probability that the clip wins its 2-way identification.
    """

    brain: Matrix
    by: Matrix
    inconsistent: Matrix
    confidence: Matrix

    def first(self, count: int) -> "Answers":
        """Return what it says of the first windows."""
        return Answers(*(values[:count] for values in vars(self).values()))

    def row_against(self, true: "Answers") -> Row:
        """Count what of the windows is taken for a brain.

        Parameters
        ----------
        true : Answers
            What the system says of clean windows.

        Returns
        -------
        dict
            ``above``: share that is taken for a brain. ``auroc``: area under the curve against clean windows.
            ``confidence``: mean of what is taken for one, None where that is too little. ``taken`` and ``n``:
            windows that are taken for one, and all of them.
        """
        auroc = float(duels(true.brain[:, None], self.brain).mean())
        row: Row = {"above": _above(self.brain), "auroc": auroc}
        above = self.brain >= LEAST
        enough = int(above.sum()) >= _FEWEST
        sure = float(self.confidence[above].mean()) if enough else None
        return row | {"confidence": sure, "taken": int(above.sum()), "n": len(above)}


def ask(decoder: Decoder, inputs: Arrays) -> Answers:
    """Ask a system of windows, each alone."""
    conditions = list(conditions_alone(decoder.system, inputs))

    def joined(output: str) -> Matrix:
        return np.concatenate(
            [np.asarray(getattr(condition, output), np.float64) for condition in conditions]
        )

    brain = joined("brain")
    return Answers(brain[:, BRAIN], joined("brain_by"), brain[:, 1], joined("confidence")[:, 0])


@dataclass(frozen=True)
class _Judge:
    """A decoder, and the sessions of its participant under one preset, which are kept in a folder."""

    decoder: Decoder
    who: Participant
    seeds: Sequence[int]
    work: RunContext

    def prepare(self) -> None:
        """Simulate all sessions, side by side."""
        jobs = {}
        for seed in self.seeds:
            for kind, (who, seconds) in self._kinds(seed).items():
                name = self._name(kind, seed)
                jobs[name] = partial(_arrays, self.decoder.bundle, who, seed, seconds)
        self.work.make_all(jobs, f"{self.who.preset} sessions")

    def _kinds(self, seed: int) -> Mapping[str, tuple[Participant, float]]:
        watching = replace(self.who, film=SHAPES if seed % 2 else NATURAL)
        return {
            "clean": (watching, _SECONDS),
            "one bad channel": (replace(watching, disturbance=ELECTRODE), _LENT_S),
            "rest": (replace(self.who, film=NONE), _LENT_S),
            "another participant": (replace(watching, subject=self.who.subject + 1), _LENT_S),
        }

    def _name(self, kind: str, seed: int) -> str:
        return f"{kind.replace(' ', '-')}-{self.who.preset}-{seed}"

    def windows(self, kind: str, seed: int, *, sampled: bool = True) -> Arrays:
        """Read the windows of a session by port."""
        rows = slice(None, None, _STRIDE if kind == "clean" else 3) if sampled else slice(None)
        arrays = self.work.read(self._name(kind, seed))
        return {name: values[rows].astype(np.float32) for name, values in arrays.items()}

    @cached_property
    def clean(self) -> list[Arrays]:
        """The windows that are replaced, of every session."""
        return [self.windows("clean", seed) for seed in self.seeds]

    @cached_property
    def true(self) -> dict[str, Answers]:
        """What the system says of them as they are, by route."""
        return {route: _asked(self.decoder, self.clean, modalities) for route, modalities in ROUTES.items()}

    def bad(self) -> Iterator[tuple[str, float, str, list[Arrays]]]:
        """Yield bad signals: kind, level, what is replaced, and the windows of every session."""
        clean = self.clean
        kinds = {"eeg": bad_signals.EEG, "fmri": bad_signals.FMRI}
        for modality, of_modality in kinds.items():
            for name, make in of_modality.items():
                for level in bad_signals.levels_of(name):
                    sessions = [
                        windows | {modality: make(windows[modality], _random(seed, name), level)}
                        for windows, seed in zip(clean, self.seeds, strict=True)
                    ]
                    yield f"{modality}: {name}", level, modality, sessions
        # Each kind of EEG beside one of the volumes, in turns.
        of_fmri = list(bad_signals.FMRI.items())
        for number, (name, make) in enumerate(bad_signals.EEG.items()):
            other, make_other = of_fmri[number % len(of_fmri)]
            for level in bad_signals.levels_of(name):
                if bad_signals.TRUE_AT_1 in (name, other) and level == 1:
                    continue
                sessions = [
                    windows
                    | {"eeg": make(windows["eeg"], _random(seed, name), level)}
                    | {"fmri": make_other(windows["fmri"], _random(seed, other), level)}
                    for windows, seed in zip(clean, self.seeds, strict=True)
                ]
                yield f"eeg: {name}, fmri: {other}", level, "both", sessions
        sessions = [self.windows("another participant", seed) for seed in self.seeds]
        yield "another participant", 1.0, "both", sessions

    def no_film(self) -> Iterator[tuple[str, list[Arrays]]]:
        """Yield whole sessions of signals of the participant that are of no film, or of another moment."""
        clean = [self.first(self.windows("clean", seed, sampled=False)) for seed in self.seeds]
        yield "rest", [self.windows("rest", seed, sampled=False) for seed in self.seeds]
        # A session of the other film lends its EEG.
        yield "EEG of another film", [windows | _eeg(clean[n - 1]) for n, windows in enumerate(clean)]
        yield "EEG of a window before", [windows | _eeg(windows, later=1) for windows in clean]
        sessions = [
            bad_signals.surrogates(windows, _random(seed, "surrogates"))
            for windows, seed in zip(clean, self.seeds, strict=True)
        ]
        yield "surrogates", sessions
        yield "one bad channel", [self.windows("one bad channel", seed, sampled=False) for seed in self.seeds]

    def first(self, windows: Arrays) -> Arrays:
        """Take the first windows, those of which clips are drawn."""
        count = int(_LENT_S / float(self.decoder.bundle.manifest.grid.window))
        return {name: values[:count] for name, values in windows.items()}

    def wins(self, inputs: Arrays, seed: int) -> Matrix:
        """Return the share of 2-way comparisons that the clip of each window wins, (window,)."""
        who, _ = self._kinds(seed)["clean"]
        where, film = _film(who.film, seed, self.decoder.bundle.manifest.grid)
        decoded = self.decoder.show(inputs, where)
        mean_clip = self.decoder.bundle.stats["mean_clip"][:-1]
        return told_apart(decoded.clips, film, mean_clip, _TEMPERATURE)["identification_2way_centred"][0]


@cache
def _film(name: str, seed: int, grid: TimingGrid) -> tuple[list[Span], FilmWindows]:
    """Describe the first windows of what a session showed, which is the same at every preset."""
    film = watch(Participant(film=name), seed, _SECONDS).film
    where = spans(seed, int(_LENT_S / float(grid.window)), grid)
    return where, describe(film, where)


def _arrays(bundle: Bundle, who: Participant, seed: int, seconds: float) -> Arrays:
    arrays = session_arrays(bundle, watch(who, seed, seconds))
    # In half precision they take half of the disk, and are a thousandth off at most.
    return {name: values.astype(np.float16) for name, values in arrays.items()}


def _eeg(windows: Arrays, later: int = 0) -> Arrays:
    """Take the EEG, so many windows later than it was."""
    return {name: np.roll(windows[name], later, axis=0) for name in ("eeg", "eeg_mask")}


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, *name.encode()))


def _above(probabilities: Matrix) -> float:
    return float((probabilities >= LEAST).mean())


def bad_rows(judge: _Judge) -> list[Row]:
    """Judge bad signals: a row for each kind, level and route."""
    rows = []
    for kind, level, replaced, sessions in judge.bad():
        # With both there, only where both are bad is the joint number held to anything.
        routes = [route for route in ROUTES if replaced == "both" or route in ("", f"_{replaced}")]
        for route in routes:
            answer = _asked(judge.decoder, sessions, ROUTES[route])
            row = {"kind": kind, "level": level, "replaced": replaced, "route": route[1:] or "both"}
            row |= answer.row_against(judge.true[route])
            if not route:
                row["by"] = {name: _above(answer.by[:, n]) for n, name in enumerate(MODALITIES)}
            rows.append(row)
    return rows


def film_rows(judge: _Judge) -> list[Row]:
    """Judge what is of the participant and of no film, by single windows and by means of five."""
    rows = []
    for kind, by_session in judge.no_film():
        for route, modalities in ROUTES.items():
            answers = [ask(judge.decoder, only(windows, modalities)) for windows in by_session]
            answer = _joined(answers)
            row = {"kind": kind, "level": 1.0, "route": route[1:] or "both"} | answer.row_against(
                judge.true[route]
            )
            means = np.concatenate([five(per_session.brain) for per_session in answers])
            row["means_above_0"] = float((means >= 0).mean())
            if row["confidence"] is not None and kind != "rest":
                some = list(zip(by_session, judge.seeds, strict=True))[:_DECODED_SESSIONS]
                wins = np.concatenate([judge.wins(only(windows, modalities), seed) for windows, seed in some])
                decoded = _joined(answers[:_DECODED_SESSIONS])
                comparable = (decoded.brain >= LEAST) & np.isfinite(wins)
                row |= {
                    "confidence": float(decoded.confidence[comparable].mean()),
                    "wins": float(wins[comparable].mean()),
                }
            rows.append(row)
    return rows


def clean_row(judge: _Judge) -> Row:
    """Judge whole sessions in which a film is watched."""
    answers = []
    decoded = []
    wins = []
    alarms = 0
    hop_s = float(judge.decoder.bundle.manifest.grid.hop)
    for seed in progress(judge.seeds, f"{judge.who.preset}, clean"):
        inputs = judge.windows("clean", seed, sampled=False)
        answer = ask(judge.decoder, inputs)
        answers.append(answer)
        first = judge.first(inputs)
        wins.append(judge.wins(first, seed))
        decoded.append(answer.first(len(first["eeg"])))
        alarms += _alarmed(answer, judge.decoder.bundle, hop_s)
    joined = _joined(answers)
    means = np.concatenate([five(each_answer.brain) for each_answer in answers])
    won = np.concatenate(wins)
    decoded_answer = _joined(decoded)
    comparable = (decoded_answer.brain >= LEAST) & np.isfinite(won)
    session = np.repeat(np.arange(len(wins)), [len(each_answer) for each_answer in wins])
    return {
        "sessions": len(answers),
        "windows": len(joined.brain),
        "windows_lost": float((joined.brain < LEAST).mean()),
        "means_below_0": float((means < 0).mean()),
        "false_alarms": alarms,
        "by": {name: _above(joined.by[:, n]) for n, name in enumerate(MODALITIES)},
        "confidence": float(decoded_answer.confidence[comparable].mean()),
        "wins": float(won[comparable].mean()),
        **promises("confidence", decoded_answer.confidence[comparable], won[comparable], session[comparable]),
    }


def _alarmed(answer: Answers, bundle: Bundle, hop_s: float) -> bool:
    log = PresenceLog(bundle.manifest.brain)
    sentences = []
    finals = zip(answer.brain, answer.inconsistent, answer.by, strict=True)
    for n, (brain, inconsistent, by) in enumerate(finals):
        final = Presence(float(brain), float(inconsistent), float(1 - brain - inconsistent))
        sentences += log.add(hop_s * n, final, dict(zip(MODALITIES, by.tolist(), strict=True)))
    return bool(sentences)


def five(brain: Matrix) -> Matrix:
    """Average the log odds of five windows in a row, (window - 4,)."""
    rows = np.lib.stride_tricks.sliding_window_view(brain, IN_A_ROW)
    return np.array([mean_odds(row.tolist()) for row in rows])


def _asked(decoder: Decoder, sessions: Sequence[Arrays], modalities: Sequence[str]) -> Answers:
    return _joined([ask(decoder, only(windows, modalities)) for windows in sessions])


def _joined(answers: Sequence[Answers]) -> Answers:
    names = ("brain", "by", "inconsistent", "confidence")
    return Answers(*(np.concatenate([getattr(answer, name) for answer in answers]) for name in names))


def measure(run: Path, preset: str, seeds: Sequence[int], folder: Path) -> Row:
    """Judge a run under one preset.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    preset : str
    seeds : sequence of int
    folder : Path
        Simulated sessions are kept here.

    Returns
    -------
    dict
        ``worst``: what bars are held against; ``clean``; ``no_film`` and ``bad``: rows of kinds.
    """
    decoder = opened(run)
    judge = _Judge(decoder, replace(decoder.who, preset=preset), seeds, RunContext(None, 0, folder))
    judge.prepare()
    clean = clean_row(judge)
    no_film = film_rows(judge)
    bad = bad_rows(judge)
    return {"worst": worst(clean, no_film, bad), "clean": clean, "no_film": no_film, "bad": bad}


def worst(clean: Row, no_film: Sequence[Row], bad: Sequence[Row]) -> Row:
    """Pick what bars are held against: the worst kind, level and route of each sort."""
    replaced_whole = [row for row in bad if row["route"] != "both" or row["replaced"] == "both"]
    # Of these the joint number is printed, and each modality judged.
    of_one = [row for row in bad if row["route"] == "both" and row["replaced"] != "both"]
    other = {"eeg": "fmri", "fmri": "eeg"}
    both = {row["kind"]: row for row in no_film if row["route"] == "both"}
    promised = [row["confidence"] - row["wins"] for row in (clean, *no_film) if row.get("wins") is not None]
    return {
        "bad_above": max(row["above"] for row in replaced_whole),
        "bad_modality_above": max(row["by"][row["replaced"]] for row in of_one),
        "true_modality_above": min(row["by"][other[row["replaced"]]] for row in of_one),
        "rest_means_above_0": both["rest"]["means_above_0"],
        "other_film_means_above_0": both["EEG of another film"]["means_above_0"],
        "window_before_means_above_0": both["EEG of a window before"]["means_above_0"],
        "surrogates_means_above_0": both["surrogates"]["means_above_0"],
        "bad_channel_loses": (1 - clean["windows_lost"]) - both["one bad channel"]["above"],
        "confidence_above_wins": max(promised),
    }


def missed(figures: Row, preset: str) -> list[str]:
    """Name the bars that the figures of a preset miss. Most are not held at `hard`, where little is read."""
    clean = figures["clean"]
    values = figures["worst"] | {
        name: clean[name] for name in ("windows_lost", "means_below_0", "false_alarms")
    }
    values["confidence_calibration_error"] = clean["confidence_calibration_error"]["value"]
    # Below 20 units an interval may be missing; none is above nothing.
    values["confidence_brier_skill_low"] = (clean["confidence_brier_skill"]["ci95"] or [-np.inf])[0]
    names = [name for name, limit in AT_MOST.items() if values[name] > limit]
    names += [name for name, least in AT_LEAST.items() if values[name] <= least]
    return [name for name in names if preset != _UNHELD or name in _OF_BAD]


def table(by_preset: Mapping[str, Row]) -> Iterator[Table]:
    """Lay out the figures of every preset."""
    for preset, figures in by_preset.items():
        clean = figures["clean"]
        lost = Table("clean sessions", preset, title_justify="left")
        for name in ("sessions", "windows_lost", "means_below_0", "false_alarms", "confidence", "wins"):
            lost.add_row(name, f"{clean[name]:.3f}")
        for name, value in figures["worst"].items():
            lost.add_row(name, f"{value:.3f}")
        lost.add_row("bars missed", "\n".join(missed(figures, preset)) or "none")
        yield lost
        rows = Table("kind", "level", "route", "above", "AUROC", "confidence", "wins", "EEG", "fMRI", "means")
        for row in (*figures["no_film"], *figures["bad"]):
            by = row.get("by", {})
            cells = (row["above"], row["auroc"], row["confidence"], row.get("wins"), by.get("eeg"))
            columns = (*cells, by.get("fmri"), row.get("means_above_0"))
            texts = ("" if value is None else f"{value:.3f}" for value in columns)
            rows.add_row(row["kind"], f"{row['level']:g}", row["route"], *texts)
        yield rows


def main() -> int:
    """Read the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "run", type=Path, nargs="?", help="a folder that `train.run` wrote (default: the shipped)"
    )
    parser.add_argument("--seeds", default="1200-1219")
    parser.add_argument("--presets", default="easy,default,hard")
    parser.add_argument("--sessions", type=Path, help="a folder for the simulated sessions, to be kept")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--write", action="store_true", help=f"write results/{_OUT.name}")
    options = parser.parse_args()
    by_preset: dict[str, Row] = {}
    try:
        run = options.run or shipped()["compact-distilled"]
        with TemporaryDirectory(prefix="presence-") as temporary:
            for preset in options.presets.split(","):
                folder = options.sessions or Path(temporary)
                by_preset[preset] = measure(run, preset, judging_seeds(options.seeds), folder)
                if options.write:
                    write(_OUT, by_preset)
    except RtDecodeError as error:
        return explain(error)
    if options.json:
        sys.stdout.write(json.dumps(by_preset) + "\n")
    else:
        for laid_out in table(by_preset):
            Console(width=None if Console().is_terminal else 140).print(laid_out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
