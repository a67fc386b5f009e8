"""A newcomer to a Brain Netflix: how their windows are told apart after some minutes, and after none.

python -m benchmarks.shared_layers RUN [--subjects 5,6] [--minutes 2.5,5,10,40] [--json] [--write]
python -m benchmarks.shared_layers RUN --minutes 0     # of system.encoder.stem=vertex: nothing is fitted
python -m benchmarks.shared_layers RUN --preset default --write shared_layers_default

RUN is a run of `brainnetflix` on simulated participants, and newcomers are others of the same cortex.
`rtdecode fit` finds the layer of each from recordings of so many minutes (`train.fitting.shared_space`).
Fresh sessions, which nobody has learned from, are then read in three ways, and windows told apart by the
vector of each (`condition_2way`, single trials):

- `fitted`: the newcomer's layer before the perceptron that others taught,
- `without the trunk`: the same with the perceptron's residual left out,
- `own ridge`: a ridge of the same minutes and voxels to the vectors themselves.

With 0 minutes the layer that everybody shares reads the newcomer's vertices (`zero-shot`). Of the newcomer
nothing is known but the resting level, from a minute without a film, as `rtdecode calibrate` measures it.
Differences to the own ridge are paired, window by window; the units of an interval are the films, which all
newcomers watch.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.played import opened, record
from benchmarks.result_files import RESULTS, write
from benchmarks.variant_outcomes import written
from export import fit
from rtdecode import bundle as bundles
from rtdecode import terminal
from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, UsageError, explain
from rtdecode.phantom.film.watched import NONE, SHAPES
from train import compare
from train.closed_form.encoding import blocks
from train.closed_form.ridge import fit_ridge
from train.closed_form.shared_space import VERTEX
from train.closed_form.stem import fill_slots
from train.config.recipe import build, numbers
from train.config.run_context import Arrays, progress
from train.config.run_files import read_run
from train.data.phantom import Participant, session_arrays, session_clips
from train.evaluation.decoders import vectors
from train.evaluation.film_figures import difference, figure
from train.evaluation.sections import condition
from train.evaluation.sessions import Sessions
from train.fitting.shared_space import layer_of
from train.interface.system import System
from train.models.brainnetflix.plan import BrainNetflixPlan

_OUT = "shared_layers"
_NAME = "newcomer"
FITTED = "fitted"
WITHOUT_TRUNK = "without the trunk"
RIDGE = "own ridge"
ZERO_SHOT = "zero-shot"
# Of the recorded sessions, from which no shipped recipe learns, and of those that are judged.
_RECORDED = 600
_FIRST_SESSION = 1010
_LEVEL = 699
_SESSION_S = 600.0
_LEVEL_S = 60.0
_SECONDS = 60.0

Vectors = NDArray[np.floating]
Decode = Callable[[Arrays], Vectors]


@dataclass(frozen=True)
class Network:
    """A run whose participants share all but a layer.

    Attributes
    ----------
    run, scratch : Path
        The run, and a folder for its bundle.
    decoder : Decoder
    plan : BrainNetflixPlan
    """

    run: Path
    scratch: Path
    decoder: compare.Decoder
    plan: BrainNetflixPlan

    @classmethod
    def of(cls, run: Path, scratch: Path) -> "Network":
        """Open a run.

        Raises
        ------
        UsageError
            If it is the run of another system.
        """
        plan = build(read_run(run)["arguments"])["system"]
        if not isinstance(plan, BrainNetflixPlan):
            raise UsageError(
                "benchmark-run-without-shared-space",
                "{run} is no run of brainnetflix, whose participants share all but a layer. Train one with "
                "`python -m train.run brainnetflix scale=tiny`.",
                run=run,
            )
        return cls(run, scratch, compare.opened(run), plan)

    @cached_property
    def bundle(self) -> Bundle:
        """Export the run, which a fit begins at."""
        return opened(str(self.run), self.scratch / "bundle")

    def with_layer(self, fitted: Bundle) -> System:
        """Return the system with the layer of a newcomer's bundle."""
        front = fitted.manifest.built["front"].file
        layer = layer_of(onnx.load_model_from_string(fitted.read(front)))
        return self.plan.restore(self.decoder.system.weights() | layer)

    def without_trunk(self, system: System) -> System:
        """Return a system whose perceptron passes on what it is given."""
        return self.plan.restore(
            {
                name: np.zeros_like(values) if _ends_residual(name) else values
                for name, values in system.weights().items()
            }
        )

    def targets(self, clips: Any) -> Vectors:
        """Embed clips as the vectors that are read."""
        aims = self.decoder.system.targets(clips)
        assert aims is not None
        return aims


def _ends_residual(name: str) -> bool:
    """Tell whether a weight is of the last map in a block of the perceptron."""
    return name.startswith("encoder.trunk.") and ".layers.4." in name


def fitted(
    network: Network, who: Participant, minutes: float, scratch: Path
) -> tuple[Bundle, dict[str, Decode]]:
    """Fit a newcomer's layer to recordings of so many minutes, and a ridge to the same.

    Returns
    -------
    bundle : Bundle
        The newcomer's, through whose chain sessions are read.
    decoders : dict
        `FITTED`, `WITHOUT_TRUNK` and `RIDGE` -> what reads windows.

    Raises
    ------
    RtDecodeError
        If the recordings do not suffice for a fit.
    """
    lengths = list(_lengths(60 * minutes))
    watched = [who.session(_RECORDED + number, length) for number, length in enumerate(lengths)]
    recordings = [record(session, scratch / f"recording-{number}") for number, session in enumerate(watched)]
    with contextlib.redirect_stdout(io.StringIO()):
        fit.run(recordings, None, None, str(network.bundle.path), scratch / "fitted", _NAME)
    bundle = bundles.load(scratch / "fitted", subject=_NAME)
    system = network.with_layer(bundle)
    volumes = np.concatenate([_volumes(session_arrays(bundle, session)) for session in watched])
    aims = np.concatenate(
        [network.targets(session_clips(bundle.manifest, session)) for session in watched]
    ).astype(np.float64)
    ridge = fit_ridge([volumes], aims, [1.0], blocks(len(aims)))

    def read_by_ridge(inputs: Arrays) -> Vectors:
        return (_volumes(inputs) - ridge.means[0]) @ ridge.maps[0] + aims.mean(0)

    without_trunk = network.without_trunk(system)
    return bundle, {
        FITTED: lambda inputs: vectors(system, inputs),
        WITHOUT_TRUNK: lambda inputs: vectors(without_trunk, inputs),
        RIDGE: read_by_ridge,
    }


def _lengths(seconds: float) -> Iterator[float]:
    while seconds > 0:
        yield min(seconds, _SESSION_S)
        seconds -= _SESSION_S


def _volumes(inputs: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the volumes of windows side by side, (window, input)."""
    filled = fill_slots(inputs["fmri"], inputs["fmri_mask"])
    return filled.reshape(len(filled), -1)


def zero_shot(network: Network, who: Participant) -> tuple[Bundle, dict[str, Decode]]:
    """Read a newcomer by the layer that everybody shares.

    Raises
    ------
    UsageError
        If each participant of the run has a layer of their own.
    """
    if network.plan.encoder.stem != VERTEX:
        raise UsageError(
            "benchmark-layers-not-shared",
            "{run} has a layer for each participant, and none for somebody of whom there are no data. Train "
            "it with system.encoder.stem=vertex, or give minutes of recording.",
            run=network.decoder.name,
        )
    bundle = network.decoder.bundle
    manifest = bundle.manifest
    projection = bundle.projection
    newcomer_voxels = who.projection()
    assert projection is not None
    assert manifest.fmri is not None
    # Vertices have one order in everybody.
    order = {voxel: vertex for vertex, voxel in enumerate(network.decoder.who.projection().voxels.tolist())}
    vertices = [order[voxel] for voxel in projection.voxels.tolist()]
    read_voxels = replace(newcomer_voxels, voxels=newcomer_voxels.voxels[vertices])
    resting = replace(who, film=NONE).session(_LEVEL, _LEVEL_S)
    level = resting.vectors()[:, who.read].mean(0)[vertices]
    scanned = replace(
        manifest.fmri, shape=list(newcomer_voxels.shape), affine=newcomer_voxels.affine.tolist()
    )
    newcomer = replace(
        bundle,
        manifest=replace(manifest, fmri=scanned),
        projection=read_voxels,
        stats={**bundle.stats, "fmri_mean": level.astype(np.float32)},
    )
    system = network.decoder.system
    return newcomer, {ZERO_SHOT: lambda inputs: vectors(system, inputs)}


def measure(network: Network, options: argparse.Namespace) -> dict[str, Any]:
    """Fit and judge every newcomer.

    Returns
    -------
    dict
        Minutes -> what reads -> ``value``, and ``less`` than the own ridge (None of itself, and where there
        is none), each ``value`` and ``ci95``; or why there is no fit.
    """
    last = _FIRST_SESSION + options.sessions - 1
    judged = Sessions(SHAPES, options.preset, f"{_FIRST_SESSION}-{last}", _SECONDS)
    figures: dict[str, Any] = {}
    for minutes in options.minutes:
        scores: dict[str, list[NDArray[np.float64]]] = {}
        units: list[NDArray[np.int64]] = []
        try:
            for subject in progress(options.subjects, f"{minutes:g} minutes"):
                who = replace(network.decoder.who, subject=subject, preset=options.preset, own_noise=True)
                with tempfile.TemporaryDirectory() as name:
                    newcomer = (
                        fitted(network, replace(who, film=SHAPES), minutes, Path(name))
                        if minutes
                        else zero_shot(network, replace(who, film=SHAPES))
                    )
                    for number, of_session in enumerate(_scores(network, who, *newcomer, judged)):
                        for decoder, values in of_session.items():
                            scores.setdefault(decoder, []).append(values)
                        units.append(np.full(len(next(iter(of_session.values()))), number))
        except RtDecodeError as error:
            if isinstance(error, UsageError) and not minutes:
                raise
            figures[f"{minutes:g}"] = str(error)
            continue
        figures[f"{minutes:g}"] = _figures(scores, np.concatenate(units))
    return figures


def _scores(
    network: Network, who: Participant, bundle: Bundle, decoders: Mapping[str, Decode], judged: Sessions
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Yield of each session how often each way of reading tells its windows apart."""
    for session, film in judged.watched(who, bundle.manifest):
        inputs = session_arrays(bundle, session)
        aims = network.targets(film.clips)
        yield {
            name: condition.told_apart(decode(inputs), aims, film)[condition.IDENTIFIED][0]
            for name, decode in decoders.items()
        }


def _figures(scores: Mapping[str, Sequence[NDArray[np.float64]]], units: NDArray[np.int64]) -> dict[str, Any]:
    values = {name: np.concatenate(of_sessions) for name, of_sessions in scores.items()}
    of_readers: dict[str, Any] = {}
    for name, of_windows in values.items():
        weights = np.ones(len(of_windows))
        ridge = values.get(RIDGE)
        less = None
        if ridge is not None and name != RIDGE:
            less = difference((of_windows, weights), (ridge, weights), units)
        of_readers[name] = {
            "value": _short(figure(of_windows, weights, 0.5, units)),
            "less": None if less is None else _short(less),
        }
    return of_readers


def _short(of_windows: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if of_windows is None else {name: of_windows[name] for name in ("value", "ci95", "n")}


def table(figures: Mapping[str, Any], title: str) -> Table:
    """Lay out what is printed."""
    laid = Table("minutes", "read by", "condition_2way", "less than the own ridge", title=title)
    for minutes, of_minutes in figures.items():
        if isinstance(of_minutes, str):
            laid.add_row(minutes, of_minutes)
            continue
        for name, entry in of_minutes.items():
            laid.add_row(minutes, name, written(entry["value"]), written(entry["less"]))
    return laid


def main() -> int:
    """Read the arguments, measure, print, and write where that was asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run of brainnetflix")
    parser.add_argument("--subjects", type=numbers, default=[5, 6, 7, 8], help="the newcomers")
    parser.add_argument(
        "--minutes", type=_minutes, default=[2.5, 5.0, 10.0, 40.0], help="of recording; 0 for none"
    )
    parser.add_argument("--preset", default="easy")
    parser.add_argument("--sessions", type=int, default=20, help="sessions of 60 s that are decoded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--write",
        nargs="?",
        const=_OUT,
        metavar="NAME",
        help=f"keep the figures in NAME.json, or {_OUT}.json",
    )
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as name:
            network = Network.of(options.run, Path(name))
            taught = {*network.decoder.data.participants()}
            strangers = [number for number in options.subjects if f"sub-{number:02}" not in taught]
            if len(strangers) < len(options.subjects):
                raise UsageError(
                    "benchmark-newcomer-known",
                    "--subjects {subjects}: a newcomer is none of {participants}, who taught {run}.",
                    subjects=options.subjects,
                    participants=sorted(taught),
                    run=options.run,
                )
            figures = measure(network, options)
    except RtDecodeError as error:
        return explain(error, as_json=options.json)
    cortex = network.decoder.who.cortex
    report = {
        "cortex": cortex,
        "preset": options.preset,
        "stem": network.plan.encoder.stem,
        "minutes": figures,
    }
    if options.write:
        write(RESULTS / f"{options.write}.json", report)
    if options.json:
        terminal.line(json.dumps(report))
    else:
        Console(width=140).print(table(figures, f"newcomers, {cortex} cortex, {options.preset}; chance 0.5"))
    return 0


def _minutes(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
