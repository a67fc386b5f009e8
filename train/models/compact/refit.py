"""Fit anew what a finished run of `compact` or `compact-distilled` says of a brain, and nothing else.

    python -m train.models.compact.refit RUN [--presence 64-66] [--controls 62-63,68-69] [--stages DIR]

The sessions of `held`, `presence` and `controls` are simulated as the run's recipe has them, and shown to its
encoder (`train.models.compact.presence`). Clips stay the same to the bit. How the numbers are standardised
stays as well, and with it the confidence, which is computed from them. The run is judged again and written in
place; export it after this.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rtdecode import strict_json, terminal
from rtdecode.bundle import Bundle
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.artifacts.run_folder import draft_of, trained_of
from train.config import bundled_weights
from train.config.recipe import build
from train.config.run_context import Arrays, RunContext, write_arrays
from train.config.run_files import read_run, weights
from train.config.training_films import training_films
from train.data.simulated import FilmSessions
from train.evaluation.result import Evaluation, make_decode
from train.models.compact import evidence, presence
from train.models.compact.system import unpack

_ENCODER = "encoder."


def refit(run: Path, seeds: dict[str, str], stages: Path) -> None:
    """Fit the probabilities of a brain anew, judge the run, and write it in place.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    seeds : dict
        ``presence`` and ``controls`` as `FilmSessions` has them, where the run has others.
    stages : Path
        Folder of simulated sessions, which are not simulated again.

    Raises
    ------
    UsageError
        If the run is of another system, or was not trained on the simulated participant.
    """
    tree = read_run(run)
    arguments = tree["arguments"]
    if not of_films(arguments):
        raise UsageError(
            "refit-run-unsupported",
            "{run} is of the system '{system}' with the data '{data}'; what can be fitted anew is "
            "'compact' with 'film-sessions'.",
            run=run,
            system=arguments["system"]["builder"],
            data=arguments["data"]["builder"],
        )
    arguments["data"] |= seeds
    parts, data, work = reopened(tree, stages)
    draft = draft_of(run)
    arrays_of_run = weights(run)
    arrays_of_run |= _fitted(arrays_of_run, work, draft, data)
    judged = judged_anew(run, tree, parts, data, work, arrays_of_run)
    provenance = draft.manifest.provenance | {kind: data.seeds(work)[kind] for kind in seeds}
    tree["manifest"]["provenance"] = provenance
    tree |= {"figures": judged.figures, "tables": tree["tables"] | judged.tables}
    write_arrays(run / "weights.npz", arrays_of_run, compressed=True)
    (run / bundled_weights.FILE).unlink(missing_ok=True)
    private.write_whole(run / "run.json", strict_json.dumps(tree, indent=1) + "\n")


def of_films(arguments: dict[str, Any]) -> bool:
    """Tell whether the arguments of a run are those of `compact` on the simulated participant's films."""
    return arguments["system"]["builder"] == "compact" and arguments["data"]["builder"] == "film-sessions"


def reopened(tree: dict[str, Any], stages: Path) -> tuple[dict[str, Any], FilmSessions, RunContext]:
    """Build again what a finished run was trained by.

    Parameters
    ----------
    tree : dict
        Its ``run.json``.
    stages : Path
        Folder for what is computed on the way.

    Returns
    -------
    parts : dict
        What `train.config.recipe.build` makes of its arguments.
    data : FilmSessions
        With the films that were watched.
    work : RunContext

    Raises
    ------
    UsageError
        If the run has several participants.
    """
    parts = build(tree["arguments"])
    if tree.get("subjects"):
        raise UsageError(
            "refit-several-participants",
            "a run of one participant can be fitted and judged anew, and this one has {participants} too. "
            "Train it again.",
            participants=list(tree["subjects"]),
        )
    data: FilmSessions = parts["data"].with_films(training_films(parts["data"].shows))
    return parts, data, RunContext(None, tree["seed"], stages, noise_key=tree["noise_key"])


def judged_anew(
    run: Path,
    tree: dict[str, Any],
    parts: dict[str, Any],
    data: FilmSessions,
    work: RunContext,
    arrays_of_run: Arrays,
) -> Evaluation:
    """Judge a finished run with other weights, as it was judged when it was trained.

    Parameters
    ----------
    run : Path
        Folder of the finished run.
    tree : dict
        Its ``run.json``.
    parts : dict
        What `train.config.recipe.build` makes of its arguments.
    data : FilmSessions
        Sessions of the run, as `reopened` returns them.
    work : RunContext
        As `reopened` returns it, with the run's noise key.
    arrays_of_run : dict
        The weights that are judged.
    """
    system = parts["system"].restore(arrays_of_run)
    trained = replace(trained_of(run, parts["system"]), system=system)
    show = make_decode(system, trained.manifest, work.noise_key)
    return parts["judge"].judge(work, parts["system"], data, trained, show)


def _fitted(arrays_of_run: Arrays, work: RunContext, draft: Bundle, data: FilmSessions) -> Arrays:
    """Return the weights that say whether there is a brain, fitted anew, by their names in a run."""
    kinds = {kind: data.showings(work, kind) for kind in ("held", "presence", "controls")}
    jobs = {
        showing.name: partial(showing.arrays, draft) for showings in kinds.values() for showing in showings
    }
    work.make_all(jobs, "watching films")

    def windows(kind: str) -> Iterator[tuple[str, Arrays]]:
        for showing in kinds[kind]:
            read = work.read(showing.name)
            yield showing.setting, {name: values.astype(np.float32) for name, values in read.items()}

    # A run of before 0.2 has nothing to compare modalities with.
    blank = {f"{_ENCODER}{evidence.PREFIX}{name}": value for name, value in evidence.anything(1).items()}
    encoder = unpack(blank | arrays_of_run).encoder
    middle = encoder.evidence.middle.numpy().astype(np.float64)
    scale = encoder.evidence.scale.numpy().astype(np.float64)
    evidence_shown = presence.show(encoder, *(windows(kind) for kind in kinds), seed=work.seed)
    presence.fit(encoder, evidence_shown, (middle, scale))
    state = encoder.state_dict()
    names = [name for name in state if name.startswith(("neither_", "inconsistent"))]
    names += [name.removeprefix(_ENCODER) for name in blank]
    return {f"{_ENCODER}{name}": state[name].numpy() for name in names}


def main() -> int:
    """Read the arguments, and fit anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument(
        "--presence", default="64-66", help="seeds of sessions that tell what a brain looks like"
    )
    parser.add_argument("--controls", default="62-63,68-69", help="seeds of sessions at rest")
    parser.add_argument("--stages", type=Path, help="a folder for the simulated sessions, to be kept")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            seeds = {"presence": options.presence, "controls": options.controls}
            refit(options.run, seeds, options.stages or Path(folder))
    except RtDecodeError as error:
        return explain(error)
    terminal.line(options.run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
