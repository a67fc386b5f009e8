"""Whether a decoder knows when there is no brain: any signal, at any level, and no false alarm.

    python -m benchmarks.presence [RUN] [--seeds 1200-1219] [--presets easy,default,hard] [--json] [--write]

In each session the participant watches a film for ten minutes. Windows of it are replaced by bad signals
(`benchmarks.bad_signals`), in one modality or in both, at several levels; others are of a participant at
rest, of another participant, or of another moment. For each kind and level stand, by route, the share of the
windows that are taken for a brain, the area under the curve against clean windows, and the confidence of
those that are taken for one beside the share of comparisons that their clips win. Where one modality is
replaced, stand the shares at which each modality is taken for one of a brain. Of clean sessions stand the
windows and means of five that are lost, and the false alarms. Intervals are over sessions.

Seeds from 3200 on are for stating bars, once. `--write` keeps the figures as results/presence.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import bad_signals
from benchmarks.compared import Decoder, opened
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
from train.data.phantom import ELECTRODE, Participant, session_arrays, spans
from train.judging.film_scores import Shown, describe, told_apart
from train.judging.identification import ROUTES, judging_seeds, only
from train.judging.presence import BRAIN, promises
from train.judging.references import watch
from train.reconstruct import conditions_alone
from train.reproduce import shipped
from train.work import Arrays, Work, tracked

_SECONDS = 600.0
# Of sessions that only lend their windows.
_LENT_S = 200.0
# Every so many windows of a session are replaced.
_EVERY = 15
# Sessions of which clips of replaced signals are drawn, to hold them against the confidence.
_DRAWN = 5
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
class _Told:
    """What a system says of windows, (window,) or (window, 2)."""

    brain: Matrix
    by: Matrix
    inconsistent: Matrix
    confidence: Matrix


def ask(decoder: Decoder, inputs: Arrays) -> _Told:
    """Ask a system of windows, each alone."""
    found = list(conditions_alone(decoder.system, inputs))
    brain = np.concatenate([np.asarray(one.brain, np.float64) for one in found])
    by = np.concatenate([np.asarray(one.brain_by, np.float64) for one in found])
    confidence = np.concatenate([np.asarray(one.confidence, np.float64) for one in found])[:, 0]
    return _Told(brain[:, BRAIN], by, brain[:, 1], confidence)


@dataclass(frozen=True)
class _Judge:
    """A decoder, and the sessions of its participant under one preset, which are kept in a folder."""

    decoder: Decoder
    who: Participant
    seeds: Sequence[int]
    work: Work

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

    def windows(self, kind: str, seed: int, *, few: bool = True) -> Arrays:
        """Read the windows of a session by port."""
        every = slice(None, None, _EVERY if kind == "clean" else 3) if few else slice(None)
        found = self.work.read(self._name(kind, seed))
        return {name: values[every].astype(np.float32) for name, values in found.items()}

    def bad(self) -> Iterator[tuple[str, float, str, list[Arrays]]]:
        """Yield bad signals: kind, level, what is replaced, and the windows of every session."""
        clean = [self.windows("clean", seed) for seed in self.seeds]
        kinds = {"eeg": bad_signals.EEG, "fmri": bad_signals.FMRI}
        for modality, of_modality in kinds.items():
            for name, make in of_modality.items():
                for level in _levels(name):
                    made = [
                        one | {modality: make(one[modality], _random(seed, name), level)}
                        for one, seed in zip(clean, self.seeds, strict=True)
                    ]
                    yield f"{modality}: {name}", level, modality, made
        # Each kind of EEG beside one of the volumes, in turns.
        of_fmri = list(bad_signals.FMRI.items())
        for number, (name, make) in enumerate(bad_signals.EEG.items()):
            other, make_other = of_fmri[number % len(of_fmri)]
            for level in _levels(name):
                if bad_signals.TRUE_AT_1 in (name, other) and level == 1:
                    continue
                made = [
                    one
                    | {"eeg": make(one["eeg"], _random(seed, name), level)}
                    | {"fmri": make_other(one["fmri"], _random(seed, other), level)}
                    for one, seed in zip(clean, self.seeds, strict=True)
                ]
                yield f"eeg: {name}, fmri: {other}", level, "both", made
        others = [self.windows("another participant", seed) for seed in self.seeds]
        yield "another participant", 1.0, "both", others

    def no_film(self) -> Iterator[tuple[str, list[Arrays]]]:
        """Yield whole sessions of signals of the participant that are of no film, or of another moment."""
        clean = [self.first(self.windows("clean", seed, few=False)) for seed in self.seeds]
        yield "rest", [self.windows("rest", seed, few=False) for seed in self.seeds]
        # A session of the other film lends its EEG.
        yield "EEG of another film", [one | _eeg(clean[n - 1]) for n, one in enumerate(clean)]
        earlier = [{name: np.roll(values, 1, axis=0) for name, values in _eeg(one).items()} for one in clean]
        yield "EEG of a window before", [one | eeg for one, eeg in zip(clean, earlier, strict=True)]
        made = [
            bad_signals.surrogates(one, _random(seed, "surrogates"))
            for one, seed in zip(clean, self.seeds, strict=True)
        ]
        yield "surrogates", made
        yield "one bad channel", [self.windows("one bad channel", seed, few=False) for seed in self.seeds]

    def first(self, windows: Arrays) -> Arrays:
        """Take the first windows, those of which clips are drawn."""
        count = int(_LENT_S / float(self.decoder.bundle.manifest.grid.window))
        return {name: values[:count] for name, values in windows.items()}

    def wins(self, inputs: Arrays, seed: int) -> Matrix:
        """Return the share of 2-way comparisons that the clip of each window wins, (window,)."""
        who, _ = self._kinds(seed)["clean"]
        where, film = _film(who.film, seed, self.decoder.bundle.manifest.grid)
        made = self.decoder.show(inputs, where)
        mean_clip = self.decoder.bundle.stats["mean_clip"][:-1]
        return told_apart(made.clips, film, mean_clip, _TEMPERATURE)["identification_2way_centred"][0]


@cache
def _film(name: str, seed: int, grid: TimingGrid) -> tuple[list[Span], Shown]:
    """Describe the first windows of what a session showed, which is the same at every preset."""
    film = watch(Participant(film=name), seed, _SECONDS).film
    where = spans(seed, int(_LENT_S / float(grid.window)), grid)
    return where, describe(film, where)


def _arrays(bundle: Bundle, who: Participant, seed: int, seconds: float) -> Arrays:
    found = session_arrays(bundle, watch(who, seed, seconds))
    # In half precision they take half of the disk, and are a thousandth off at most.
    return {name: values.astype(np.float16) for name, values in found.items()}


def _eeg(windows: Arrays) -> Arrays:
    return {name: windows[name] for name in ("eeg", "eeg_mask")}


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng((seed, *name.encode()))


def _levels(name: str) -> list[float]:
    if name in bad_signals.ONE_LEVEL:
        return [1.0]
    return [level for level in bad_signals.LEVELS if not (name == bad_signals.TRUE_AT_1 and level == 1)]


def _above(told: Matrix) -> float:
    return float((told >= LEAST).mean())


def bad_rows(judge: _Judge) -> list[Row]:
    """Judge bad signals: a row for each kind, level and route."""
    decoder = judge.decoder
    clean = [judge.windows("clean", seed) for seed in judge.seeds]
    true = {route: _asked(decoder, clean, kept) for route, kept in ROUTES.items()}
    rows = []
    for kind, level, replaced, made in judge.bad():
        # With both there, only where both are bad is the joint number held to anything.
        routes = [route for route in ROUTES if replaced == "both" or route in ("", f"_{replaced}")]
        for route in routes:
            told = _asked(decoder, made, ROUTES[route])
            row = {"kind": kind, "level": level, "replaced": replaced, "route": route[1:] or "both"}
            row |= _row(told, true[route])
            if not route:
                row["by"] = {name: _above(told.by[:, n]) for n, name in enumerate(MODALITIES)}
            rows.append(row)
    return rows


def _row(told: _Told, true: _Told) -> Row:
    row: Row = {"above": _above(told.brain), "auroc": float(duels(true.brain[:, None], told.brain).mean())}
    there = told.brain >= LEAST
    enough = int(there.sum()) >= _FEWEST
    sure = float(told.confidence[there].mean()) if enough else None
    return row | {"confidence": sure, "taken": int(there.sum()), "n": len(there)}


def film_rows(judge: _Judge) -> list[Row]:
    """Judge what is of the participant and of no film, by single windows and by means of five."""
    decoder = judge.decoder
    clean = [judge.windows("clean", seed) for seed in judge.seeds]
    true = {route: _asked(decoder, clean, kept) for route, kept in ROUTES.items()}
    rows = []
    for kind, made in judge.no_film():
        for route, kept in ROUTES.items():
            sessions = [ask(decoder, only(one, kept)) for one in made]
            told = _joined(sessions)
            row = {"kind": kind, "level": 1.0, "route": route[1:] or "both"} | _row(told, true[route])
            means = np.concatenate([five(one.brain) for one in sessions])
            row["means_above_0"] = float((means >= 0).mean())
            if row["confidence"] is not None and kind != "rest":
                some = list(zip(made, judge.seeds, strict=True))[:_DRAWN]
                wins = np.concatenate([judge.wins(only(one, kept), seed) for one, seed in some])
                drawn = _joined(sessions[:_DRAWN])
                known = (drawn.brain >= LEAST) & np.isfinite(wins)
                row |= {
                    "confidence": float(drawn.confidence[known].mean()),
                    "wins": float(wins[known].mean()),
                }
            rows.append(row)
    return rows


def clean_row(judge: _Judge) -> Row:
    """Judge whole sessions in which a film is watched."""
    told = []
    drawn = []
    wins = []
    alarms = 0
    hop_s = float(judge.decoder.bundle.manifest.grid.hop)
    for seed in tracked(judge.seeds, f"{judge.who.preset}, clean"):
        inputs = judge.windows("clean", seed, few=False)
        found = ask(judge.decoder, inputs)
        told.append(found)
        first = judge.first(inputs)
        wins.append(judge.wins(first, seed))
        drawn.append(ask(judge.decoder, first))
        alarms += _alarmed(found, judge.decoder.bundle, hop_s)
    joined = _joined(told)
    means = np.concatenate([five(one.brain) for one in told])
    won = np.concatenate(wins)
    shown = _joined(drawn)
    known = (shown.brain >= LEAST) & np.isfinite(won)
    session = np.repeat(np.arange(len(wins)), [len(one) for one in wins])
    return {
        "sessions": len(told),
        "windows": len(joined.brain),
        "windows_lost": float((joined.brain < LEAST).mean()),
        "means_below_0": float((means < 0).mean()),
        "false_alarms": alarms,
        "by": {name: _above(joined.by[:, n]) for n, name in enumerate(MODALITIES)},
        "confidence": float(shown.confidence[known].mean()),
        "wins": float(won[known].mean()),
        **promises("confidence", shown.confidence[known], won[known], session[known]),
    }


def _alarmed(told: _Told, bundle: Bundle, hop_s: float) -> bool:
    log = PresenceLog(bundle.manifest.brain)
    said = []
    for n, (brain, apart, by) in enumerate(zip(told.brain, told.inconsistent, told.by, strict=True)):
        final = Presence(float(brain), float(apart), float(1 - brain - apart))
        said += log.add(hop_s * n, final, dict(zip(MODALITIES, by.tolist(), strict=True)))
    return bool(said)


def five(brain: Matrix) -> Matrix:
    """Average the log odds of five windows in a row, (window - 4,)."""
    rows = np.lib.stride_tricks.sliding_window_view(brain, IN_A_ROW)
    return np.array([mean_odds(row.tolist()) for row in rows])


def _asked(decoder: Decoder, sessions: Sequence[Arrays], kept: Sequence[str]) -> _Told:
    return _joined([ask(decoder, only(one, kept)) for one in sessions])


def _joined(told: Sequence[_Told]) -> _Told:
    names = ("brain", "by", "inconsistent", "confidence")
    return _Told(*(np.concatenate([getattr(one, name) for one in told]) for name in names))


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
    judge = _Judge(decoder, replace(decoder.who, preset=preset), seeds, Work(None, 0, folder))
    judge.prepare()
    clean = clean_row(judge)
    no_film = film_rows(judge)
    bad = bad_rows(judge)
    return {"worst": worst(clean, no_film, bad), "clean": clean, "no_film": no_film, "bad": bad}


def worst(clean: Row, no_film: Sequence[Row], bad: Sequence[Row]) -> Row:
    """Pick what bars are held against: the worst kind, level and route of each sort."""
    whole = [row for row in bad if row["route"] != "both" or row["replaced"] == "both"]
    # Of these the joint number is printed, and each modality judged.
    of_one = [row for row in bad if row["route"] == "both" and row["replaced"] != "both"]
    other = {"eeg": "fmri", "fmri": "eeg"}
    both = {row["kind"]: row for row in no_film if row["route"] == "both"}
    promised = [row["confidence"] - row["wins"] for row in (clean, *no_film) if row.get("wins") is not None]
    return {
        "bad_above": max(row["above"] for row in whole),
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
    found = figures["worst"] | {
        name: clean[name] for name in ("windows_lost", "means_below_0", "false_alarms")
    }
    found["confidence_calibration_error"] = clean["confidence_calibration_error"]["value"]
    # Below 20 units an interval may be missing; none is above nothing.
    found["confidence_brier_skill_low"] = (clean["confidence_brier_skill"]["ci95"] or [-np.inf])[0]
    names = [name for name, most in AT_MOST.items() if found[name] > most]
    names += [name for name, least in AT_LEAST.items() if found[name] <= least]
    return [name for name in names if preset != _UNHELD or name in _OF_BAD]


def table(found: Mapping[str, Row]) -> Iterator[Table]:
    """Lay out what was found under every preset."""
    for preset, figures in found.items():
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
            shown = (*cells, by.get("fmri"), row.get("means_above_0"))
            texts = ("" if value is None else f"{value:.3f}" for value in shown)
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
    given = parser.parse_args()
    found: dict[str, Row] = {}
    try:
        run = given.run or shipped()["compact-distilled"]
        with TemporaryDirectory(prefix="presence-") as made:
            for preset in given.presets.split(","):
                folder = given.sessions or Path(made)
                found[preset] = measure(run, preset, judging_seeds(given.seeds), folder)
                if given.write:
                    write(_OUT, found)
    except RtDecodeError as error:
        return explain(error)
    if given.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for one in table(found):
            Console(width=None if Console().is_terminal else 140).print(one)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
