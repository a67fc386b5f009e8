"""Four simulated participants in one `ridge`: read by their own maps, by maps of nothing, and by another's.

python -m benchmarks.experiments.participants [--json] [--write] [--run RUN]

One ridge learns from the volumes of four participants of preset `easy` who watch the same ten minutes of
film, once with a mixed cortex and once with a shared one (`rtdecode.phantom.body.cortex`). Each is judged on
fresh sessions of its own, single trials: the latents of a window are told apart from those of others in its
session. Two controls stand beside that. `permuted` maps were fitted to windows whose volumes had changed
places, by eight orders from fixed seeds, whose scores are averaged; `exchanged` ones are those of each of the
other three, averaged too. By equivalence, a figure is at chance where its 90 % interval over films lies
within 0.45 and 0.55 (two one-sided tests at 5 %, Schuirmann 1987, Journal of Pharmacokinetics and
Biopharmaceutics 15:657). In a mixed cortex both controls are expected there. In a shared one maps pass from
one to another, as vertex n is the same place in everybody. Intervals tell of other films, and neither of
other orders nor of other brains. ``--write`` keeps the figures in results/participants.json.

``--run RUN`` judges a finished run of several simulated participants instead, of any system, by its clips:
everybody by the own parts of the run, and by those of the others.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, write
from rtdecode.bundle import Bundle
from rtdecode.phantom.body.cortex import CORTICES
from rtdecode.phantom.film.watched import NATURAL
from rtdecode.scores import intervals
from rtdecode.scores.accuracy import entry, identification_nway
from rtdecode.scores.events import distractors
from train.artifacts.run_folder import trained_of
from train.artifacts.slots import parts_of
from train.closed_form import patch_codec
from train.config.recipe import build, read
from train.config.run_context import RunContext, progress
from train.config.run_files import read_run
from train.data.clip_grid import shown_frames
from train.data.phantom import Participant, events, session_arrays, session_clips, session_spans
from train.data.simulated import SimulatedSessions
from train.data.taught import Taught
from train.evaluation import film_scores
from train.evaluation import sessions as film_sessions
from train.evaluation.identification import judging_seeds
from train.evaluation.result import make_decode
from train.interface.system import Plan, System, Trained
from train.models.ridge.plan import PatchRidgePlan, fit_latents, fit_maps
from train.models.ridge.system import PatchRidge

_OUT = RESULTS / "participants.json"
RECIPE = ("data.subject=1-4", "data.sessions=0-1", "data.seconds=300", "data.modalities=[fmri]")
# Seeds of the fresh sessions, and how long each is, s.
JUDGED = "1000-1011"
JUDGED_S = 152.0
# Permuted maps are fitted for so many orders of the windows. Those of one order read something or other,
# which may happen to be a little like what was shown, or unlike it.
PERMUTATIONS = 8
# So far from chance a figure counts as at chance.
MARGIN = 0.05
_TAIL = 0.05

OWN_MAPS = "own"
PERMUTED = "permuted"
EXCHANGED = "exchanged"
KINDS = (OWN_MAPS, PERMUTED, EXCHANGED)
EVERYBODY = "everybody"

Scores = NDArray[np.float64]
Figure = dict[str, Any]


def permuted_ridges(everybody: Mapping[str, Taught], plan: PatchRidgePlan) -> dict[str, list[PatchRidge]]:
    """Fit the maps of each participant to windows whose signals have changed places, once for each order.

    Nothing can be learned of what was shown. Codec and components are those of the ridge that learns.
    """
    weights, targets = fit_latents([taught.clips_in_memory() for taught in everybody.values()], plan)
    ridges: dict[str, list[PatchRidge]] = {}
    for number, (name, taught) in enumerate(everybody.items()):
        ridges[name] = []
        for seed in range(PERMUTATIONS):
            order = np.random.default_rng((seed, number)).permutation(len(taught.clips))
            signals = {port: values[order] for port, values in taught.signals.items()}
            maps, _ = fit_maps(signals, targets[number], plan, taught.folds)
            ridges[name].append(PatchRidge(weights | maps))
    return ridges


def by_participant(trained: Trained, names: Sequence[str]) -> dict[str, Trained]:
    """Return what was trained for each participant, of whom the first one is the default."""
    first, *other_names = names
    return {first: trained} | {name: trained.of_subject(name) for name in other_names}


def told_apart(
    systems: Mapping[str, System], bundle: Bundle, who: Participant, seeds: Sequence[int], seconds: float
) -> dict[str, list[Scores]]:
    """Tell each window of fresh sessions apart from the others of its session, by several systems.

    The latents that a system reads are correlated with those of the film. All systems have one codec.

    Returns
    -------
    dict
        Name of the system -> 2-way scores, (window,) for each session.
    """
    scores: dict[str, list[Scores]] = {name: [] for name in systems}
    weights = next(iter(systems.values())).weights()
    codec = patch_codec.Codec(weights["codec_mean"], weights["codec_basis"])
    mean = weights["latent_mean"].astype(np.float64)
    for seed in progress(seeds, f"{who.name}, {who.cortex}"):
        session = who.session(seed, seconds)
        inputs = session_arrays(bundle, session)
        film = _unit(patch_codec.encode(codec, session_clips(bundle.manifest, session)), mean)
        allowed = distractors(session_spans(bundle.manifest, session), events({session.seed: session.film}))
        for name, system in systems.items():
            decoded = _unit(system.condition(inputs).start, mean)
            scores[name].append(identification_nway(decoded @ film.T, allowed, 2))
    return scores


def _unit(latents: NDArray[np.floating], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the mean of training off latents, and give each window's the length 1, (window, value)."""
    rows = latents.reshape(len(latents), -1) - mean
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def figure(scores: Sequence[Scores]) -> Figure:
    """Make a figure of sessions, each of which is a unit.

    Returns
    -------
    dict
        As `rtdecode.scores.accuracy.entry` makes it, with ``ci90``, and whether it is ``at_chance``.
    """
    together = np.concatenate(scores)
    films = np.repeat(np.arange(len(scores)), [len(part) for part in scores])
    accuracy = entry(together, 0.5, groups=films)
    ends = intervals.of_mean(together, films, tail=_TAIL).ci95
    assert accuracy is not None
    assert ends is not None
    low, high = ends
    return accuracy | {"ci90": ends, "at_chance": abs(low - 0.5) < MARGIN and abs(high - 0.5) < MARGIN}


def judged(
    data: SimulatedSessions,
    trained: Trained,
    permuted: Mapping[str, Sequence[PatchRidge]],
    seeds: Sequence[int],
    seconds: float,
) -> dict[str, dict[str, Figure]]:
    """Judge every participant by its own maps, by permuted ones, and by those of each other.

    Returns
    -------
    dict
        Participant, and ``everybody`` -> ``own``, ``permuted`` and ``exchanged``. Of everybody, a unit is a
        film, which all watch.
    """
    participants = data.participants()
    ridges = by_participant(trained, [*participants])
    maps: dict[str, System] = {name: ridge.system for name, ridge in ridges.items()}
    by_name: dict[str, dict[str, list[Scores]]] = {}
    for name, sessions in participants.items():
        of_nothing = {f"{PERMUTED} {number}": ridge for number, ridge in enumerate(permuted[name])}
        scores = told_apart({**maps, **of_nothing}, ridges[name].bundle, sessions.who, seeds, seconds)
        by_name[name] = {
            OWN_MAPS: scores[name],
            PERMUTED: _mean([scores[number] for number in of_nothing]),
            EXCHANGED: _mean([scores[another] for another in maps if another != name]),
        }
    together = {kind: _by_film([kinds[kind] for kinds in by_name.values()]) for kind in KINDS}
    by_name[EVERYBODY] = together
    return {name: {kind: figure(kinds[kind]) for kind in KINDS} for name, kinds in by_name.items()}


def _mean(scores: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Average the scores of several systems, session by session."""
    return [np.mean(parts, axis=0) for parts in zip(*scores, strict=True)]


def _by_film(everybody: Sequence[Sequence[Scores]]) -> list[Scores]:
    """Put the windows of all participants together, film by film."""
    return [np.concatenate(parts) for parts in zip(*everybody, strict=True)]


def measure(cortex: str, seeds: Sequence[int]) -> dict[str, dict[str, Figure]]:
    """Train the ridge of four participants, fit permuted maps beside it, and judge both."""
    recipe = read("ridge", [*RECIPE, f"data.who.cortex={cortex}"])
    parts = build(recipe.tree)
    data: SimulatedSessions = parts["data"]
    plan: PatchRidgePlan = parts["system"]
    with tempfile.TemporaryDirectory() as folder:
        work = RunContext(None, recipe.common.seed, Path(folder))
        trained = plan.train(work, data, {})
        # The sessions lie on disk by now.
        permuted = permuted_ridges(data.everybody_taught(work), plan)
    return judged(data, trained, permuted, seeds, JUDGED_S)


def measure_run(run: Path, seeds: Sequence[int]) -> dict[str, dict[str, Figure]]:
    """Judge a finished run by the clips that each participant's parts, and those of the others, draw of it.

    Returns
    -------
    dict
        Participant, and ``everybody`` -> ``own`` and ``exchanged``.
    """
    tree = read_run(run)
    parts = parts_of(tree["arguments"])
    assert isinstance(parts.system, Plan)
    data = film_sessions.simulated(run, parts.data)
    trained = by_participant(trained_of(run, parts.system), [*data.participants()])
    shows = {
        name: make_decode(model.system, model.manifest, tree["noise_key"]) for name, model in trained.items()
    }
    by_name: dict[str, dict[str, list[Scores]]] = {}
    for name, watching in data.participants().items():
        bundle = trained[name].bundle
        mean_clip = bundle.stats["mean_clip"][: shown_frames(bundle.manifest)]
        test_sessions = film_sessions.Sessions(
            NATURAL, watching.who.preset, ",".join(map(str, seeds)), JUDGED_S
        )
        scores: dict[str, list[Scores]] = {another: [] for another in shows}
        for session, film in test_sessions.watched(watching.who, bundle.manifest):
            inputs = session_arrays(bundle, session)
            for another, show in shows.items():
                by_metric = film_scores.told_apart(show(inputs, film.where).clips, film, mean_clip, 1.0)
                scores[another].append(by_metric["identification_2way_centred"][0])
        exchanged = [scores[another] for another in shows if another != name]
        by_name[name] = {OWN_MAPS: scores[name], EXCHANGED: _mean(exchanged)}
    kinds = (OWN_MAPS, EXCHANGED)
    by_name[EVERYBODY] = {kind: _by_film([by_kind[kind] for by_kind in by_name.values()]) for kind in kinds}
    return {name: {kind: figure(by_kind[kind]) for kind in kinds} for name, by_kind in by_name.items()}


def laid_out(title: str, figures: Mapping[str, Mapping[str, Figure]]) -> Table:
    """Lay out the figures of a cortex, or of a run."""
    controls = [kind for kind in KINDS[1:] if kind in figures[EVERYBODY]]
    table = Table(title, "own maps (95 %)")
    for kind in controls:
        table.add_column(f"{kind} (90 %)")
        table.add_column("at chance")
    for name, kinds in figures.items():
        own_figure = kinds[OWN_MAPS]
        row = [name, f"{own_figure['value']:.3f} ({intervals.words(own_figure)})"]
        for kind in controls:
            low, high = kinds[kind]["ci90"]
            row.append(f"{kinds[kind]['value']:.3f} ({low:.3f} to {high:.3f})")
            row.append("yes" if kinds[kind]["at_chance"] else "no")
        table.add_row(*row)
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--write", action="store_true", help="keep the figures in results/participants.json")
    parser.add_argument("--run", type=Path, help="a finished run of several participants, judged by clips")
    options = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 140)
    if options.run is not None:
        of_run = measure_run(options.run, judging_seeds(JUDGED))
        if options.json:
            print(json.dumps(of_run))  # noqa: T201
        else:
            console.print(laid_out(options.run.name, of_run))
        return
    cortices = {cortex: measure(cortex, judging_seeds(JUDGED)) for cortex in CORTICES}
    if options.json:
        print(json.dumps(cortices))  # noqa: T201
    else:
        for cortex, figures in cortices.items():
            console.print(laid_out(f"{cortex} cortex", figures))
    if options.write:
        settings = {"recipe": " ".join(RECIPE), "seeds": JUDGED, "seconds": JUDGED_S, "margin": MARGIN}
        write(_OUT, settings | {"cortices": cortices})


if __name__ == "__main__":
    main()
