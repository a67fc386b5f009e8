"""A distilled run against its teacher: what its few steps lost of fifty guided ones, and what they gained.

    python -m benchmarks.experiments.distill RUN [--film natural] [--preset easy] [--seeds 1000-1003]
                                                 [--seconds 400] [--json] [--out FILE]

Fresh sessions of the simulated participant go through the run and through the teacher that it was distilled
from, window by window from the same noise, each window without the clip before. For 1, 2 and 4 steps it
prints what `train.distillation.gates` measures, for the student and beside it for the teacher in as few
steps, and how long a clip takes. Both draw all detail, whatever share of it the run keeps.
Intervals are over sessions if there are four, and else over blocks of film.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import write
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.scores import intervals
from train.artifacts.run_folder import draft_of, restored
from train.config.recipe import build
from train.config.run_context import Arrays
from train.config.run_files import read_run
from train.data.clip_grid import shown_frames
from train.data.film_windows import film_clips
from train.data.phantom import session_arrays
from train.distillation import gates
from train.distillation.gates import Latents, Windows
from train.evaluation import sessions
from train.evaluation.film_figures import groups
from train.evaluation.reconstruct import clips_of, conditions_alone
from train.evaluation.sessions import Sessions
from train.interface.system import System
from train.models.compact.redetail import with_share
from train.models.compact.system import Compact

# Windows that are drawn from other brains and from another noise.
REFERENCE_WINDOWS = 48
SEEDS = 1
# A student takes at least so much less time than its teacher, and comes at least so much nearer to it than
# the teacher does in as few steps.
LEAST_FASTER = 10.0
LEAST_NEARER = 0.3
# Windows whose clips are timed, one by one.
_TIMED = 5
_JUDGED_STEPS = 4


@dataclass(frozen=True)
class Decoding:
    """A system and the windows that it draws.

    Attributes
    ----------
    system : System
    inputs : dict
        Signals by port, with a row for each window.
    """

    system: System
    inputs: Arrays

    def __call__(self, brain: str, rows: NDArray[np.int64], noise: Latents, steps: int) -> Latents:
        """Draw windows; see `train.distillation.gates.Sampler`."""
        source_rows = gates.signal_rows(brain, rows, len(next(iter(self.inputs.values()))))
        inputs = {name: values[source_rows] for name, values in self.inputs.items()}
        if brain == gates.NONE:
            inputs = {name: np.zeros_like(values) for name, values in inputs.items()}
        latents: list[Latents] = []
        start = 0
        for condition in conditions_alone(self.system, inputs):
            count = len(condition.pooled if condition.pooled is not None else condition.tokens)
            latents.append(self.system.sample(condition, noise[start : start + count], steps))
            start += count
        return np.concatenate(latents)


def in_full(system: System) -> System:
    """Return a system that draws all detail, of which a share would hide what a student learned."""
    if system.detail in (None, 1.0):
        return system
    return Compact(with_share(system.weights(), 1.0))


def measure(run: Path, test_sessions: Sessions) -> dict[str, Any]:
    """Hold a run against its teacher, on sessions.

    Returns
    -------
    dict
        ``steps`` and ``undistilled`` (number of steps -> figures of `train.distillation.gates.measure`),
        ``failed`` (number of steps -> gates that are not passed), ``nearer`` (how much nearer than the
        undistilled teacher in 4 steps, 0 to 1), ``clip_s`` and ``faster``, ``n`` and ``intervals``.

    Raises
    ------
    UsageError
        If the run was not distilled, or not trained on the simulated participant.
    """
    tree = read_run(run)
    parts = build(tree["arguments"])
    data = sessions.simulated(run, parts["data"])
    system = in_full(restored(run, parts["system"]))
    teacher = system.teacher()
    if teacher is None:
        raise UsageError(
            "benchmark-run-not-distilled",
            "{run} was not distilled: it has no student beside its teacher. Train a recipe with a "
            "phase whose loss is flow_map.",
            run=run,
        )
    bundle = draft_of(run)
    arrays: list[Arrays] = []
    films = []
    truths: list[NDArray[np.uint8]] = []
    for session, film in test_sessions.watched(data.who, bundle.manifest):
        arrays.append(session_arrays(bundle, session))
        films.append(film)
        truths.append(film_clips(session.film, bundle.manifest))
    inputs = {name: np.concatenate([session_inputs[name] for session_inputs in arrays]) for name in arrays[0]}
    window_groups, words = groups(films, by_session=True)
    windows = Windows(
        truths=list(np.concatenate(truths)),
        sessions=np.repeat(np.arange(len(truths)), [len(clips) for clips in truths]),
        groups=window_groups,
        mean_clip=bundle.stats["mean_clip"][: shown_frames(bundle.manifest)],
        frames=lambda latents: np.stack(clips_of(system, latents)),
        latent=system.latent_shape,
    )
    teacher_decoding = Decoding(teacher, inputs)
    student_decoding = Decoding(system, inputs)
    reference = gates.reference(teacher_decoding, windows, REFERENCE_WINDOWS, SEEDS)
    by_steps = {str(n): gates.measure(student_decoding, windows, reference, n) for n in gates.STEPS}
    before = {str(n): gates.measure(teacher_decoding, windows, reference, n) for n in gates.STEPS}
    clip_s = _times(student_decoding, teacher_decoding, windows)
    four = str(_JUDGED_STEPS)
    return {
        "run": run.name,
        "film": test_sessions.film,
        "preset": test_sessions.preset,
        "n": len(windows.truths),
        "intervals": words,
        "teacher": {"steps": gates.TEACHER_STEPS, "identification": float(reference.wins.mean())},
        "steps": by_steps,
        "undistilled": before,
        "failed": {n: gates.failed(figures) for n, figures in by_steps.items()},
        "nearer": 1 - by_steps[four]["error"] / before[four]["error"],
        "clip_s": clip_s,
        "faster": clip_s["teacher"] / clip_s[four],
    }


def _times(student: Decoding, teacher: Decoding, windows: Windows) -> dict[str, float]:
    """Time single clips in turn, median seconds: of the student by number of steps, and of the teacher."""
    ways = {str(n): (student, n) for n in gates.STEPS} | {"teacher": (teacher, gates.TEACHER_STEPS)}
    noise = windows.noise(0)
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    for row in range(min(_TIMED, len(noise))):
        for name, (decoding, steps) in ways.items():
            began = time.perf_counter()
            decoding(gates.MATCHING_BRAIN, np.array([row]), noise[row : row + 1], steps)
            times_s[name].append(time.perf_counter() - began)
    return {name: round(float(np.median(values)), 4) for name, values in times_s.items()}


def table(figures: dict[str, Any]) -> Table:
    """Lay out the figures as they are printed."""
    first = f"{figures['run']}, {figures['film']}, preset {figures['preset']}, {figures['n']} windows"
    laid = Table(first, *[f"{n} step{'s' if n > 1 else ''}" for n in gates.STEPS], title_justify="left")
    for name in ("error", "motion", "saturation", "diversity", "brain_sensitivity"):
        for words, rows in (("", figures["steps"]), (", undistilled", figures["undistilled"])):
            laid.add_row(name + words, *[f"{rows[str(n)][name]:.3f}" for n in gates.STEPS])
    for words, rows in (("", figures["steps"]), (", undistilled", figures["undistilled"])):
        lost = [rows[str(n)]["identification"] for n in gates.STEPS]
        cells = [f"{entry['value']:.3f} ({intervals.words(entry)})" for entry in lost]
        laid.add_row(f"identification lost{words}", *cells)
    laid.add_row("gates not passed", *[", ".join(figures["failed"][str(n)]) or "-" for n in gates.STEPS])
    laid.add_row(
        "s a clip (teacher's in 50 steps: {:.3f})".format(figures["clip_s"]["teacher"]),
        *[f"{figures['clip_s'][str(n)]:.3f}" for n in gates.STEPS],
    )
    return laid


def verdicts(figures: dict[str, Any]) -> list[str]:
    """Say of each bar whether it is met."""
    four = figures["steps"][str(_JUDGED_STEPS)]
    errors = [figures["steps"][str(n)]["error"] for n in gates.STEPS]
    # Without an interval it is not known how much is lost, and the bar is not met.
    _, upper = four["identification"]["ci95"] or (None, float("inf"))
    bars = {
        f"nearer to the teacher by {figures['nearer']:.0%} (at least {LEAST_NEARER:.0%})": figures["nearer"]
        >= LEAST_NEARER,
        f"identification lost at most {upper:.3f} at its upper limit ({gates.MOST_LOST})": upper
        <= gates.MOST_LOST,
        f"{figures['faster']:.1f} times faster (at least {LEAST_FASTER:g})": figures["faster"]
        >= LEAST_FASTER,
        "more steps come nearer": errors == sorted(errors, reverse=True),
        f"every gate at {_JUDGED_STEPS} steps": not figures["failed"][str(_JUDGED_STEPS)],
    }
    return [f"{'pass' if met else 'FAIL'}: {words}" for words, met in bars.items()]


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    sessions.add_options(parser, "natural", "1000-1003", 400.0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(words)
    try:
        figures = measure(args.run, sessions.of(args))
    except RtDecodeError as error:
        return explain(error, as_json=args.json)
    if args.json:
        print(json.dumps(figures))  # noqa: T201
    else:
        console = Console(width=None if Console().is_terminal else 140)
        console.print(table(figures))
        for line in verdicts(figures):
            console.print(line, markup=False)
    if args.out is not None:
        write(args.out, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
