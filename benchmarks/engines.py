"""Engines of every shipped bundle for four generations of GPUs, built on a machine without one.

    python -m benchmarks.engines [--bundle phantom,haxby] [--sm 8.0,8.6,8.9,12.0] [--again] [--json]

Each builder that is installed builds the engine of each stage for each compute capability, as `rtdecode
export --target tensorrt` does, and the ports are held against the manifest. No engine is run. It prints
whether each was built or why not, in how many seconds, and its size, and writes that to results/engines.json
engine by engine. An engine whose figures the file has is not built again unless `--again` is given, as
long as graph, builder's version and machine are the same.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.result_files import RESULTS, write
from export import engines
from export.engines import NotBuiltError
from rtdecode import bundle as bundles
from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError, RtDecodeError, UsageError, explain
from streaming.tools import bench

# Ampere's large and small GPUs, Ada and Blackwell. Hopper (9.0) is no target of TensorRT-RTX.
CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
_OUT = RESULTS / "engines.json"
# What tells an engine from all others, whatever it was built from.
_PLACE = ("bundle", "stage", "builder", "compute_capability")

Figures = dict[str, Any]


def engine_keys(bundle: Bundle, name: str, capabilities: Sequence[str]) -> Iterator[Figures]:
    """Yield what tells each engine of a bundle from all others, among it the hash of its graph.

    Parameters
    ----------
    bundle : Bundle
    name : str
        What it is called among the figures.
    capabilities : sequence of str
        Compute capabilities to build for, such as ``8.0``.
    """
    for builder in engines.installed():
        for capability in capabilities:
            for stage, about in bundle.manifest.built.items():
                yield {
                    "bundle": name,
                    "stage": stage,
                    "graph": bundle.manifest.files[about.file],
                    "builder": builder,
                    "version": engines.version(builder),
                    "compute_capability": capability,
                }


def measure(bundle: Bundle, about: Figures) -> Figures:
    """Build one engine, hold its ports against the manifest, and forget it.

    Parameters
    ----------
    bundle : Bundle
    about : dict
        One engine of `engine_keys`.

    Returns
    -------
    dict
        `about`; `built`; `why` not (None if it was built); `seconds` that building took without the probes
        of attention; `mb`, its size; `flavour`, see `rtdecode.bundle.BuiltEngine`; and the numbers of
        `inputs` and `outputs` whose shapes and types are those of the manifest.
    """
    builder = about["builder"]
    capability = about["compute_capability"]
    try:
        engines.check_target(builder, capability)
        engine = engines.of_stage(bundle, about["stage"], builder, capability)
    except (NotBuiltError, BundleError) as error:
        nothing = dict.fromkeys(("seconds", "mb", "flavour", "inputs", "outputs"))
        return {**about, "built": False, "why": str(error), **nothing}
    return {
        **about,
        "built": True,
        "why": None,
        "seconds": round(engine.seconds, 2),
        "mb": round(len(engine.engine) / 1e6, 2),
        "flavour": engine.flavour,
        "inputs": len(engine.inputs),
        "outputs": len(engine.outputs),
    }


def saved_figures(out: Path, machine: Figures) -> list[Figures]:
    """Read the figures that were kept on this machine; there are none on another one."""
    if not out.exists():
        return []
    saved = json.loads(out.read_text())
    return saved["engines"] if saved["machine"] == machine else []


def check_nothing_is_lost(out: Path, machine: Figures, names: Sequence[str]) -> None:
    """Refuse to write where another machine's figures of bundles that are not built would be lost.

    Raises
    ------
    UsageError
        If there are such bundles.
    """
    if not out.exists():
        return
    saved = json.loads(out.read_text())
    lost = sorted({entry["bundle"] for entry in saved["engines"]} - set(names))
    if lost and saved["machine"] != machine:
        raise UsageError(
            "engines-of-another-machine",
            "--bundle {names} was asked for, but {file} has the figures of {lost} too, from another machine "
            "(the seconds of two machines do not compare). Build all of them: leave --bundle out.",
            names=",".join(names),
            file=out.name,
            lost=", ".join(lost),
        )


def is_kept(figures: Sequence[Figures], about: Figures) -> bool:
    """Tell whether there are figures of an engine, of this graph and this version of its builder."""
    return any(all(entry[key] == value for key, value in about.items()) for entry in figures)


def without(figures: Sequence[Figures], about: Figures) -> list[Figures]:
    """Leave out the figures of one engine, of whatever graph and version they are."""
    return [entry for entry in figures if any(entry[key] != about[key] for key in _PLACE)]


def table(figures: Sequence[Figures]) -> Table:
    """Show one row for each engine."""
    engine_table = Table(title="engines built ahead; none was run", title_justify="left")
    for column in ("bundle", "stage", "builder", "GPU", "built", "s", "MB", "ports", "attention"):
        engine_table.add_column(column, justify="right" if column in ("s", "MB", "ports") else "left")
    for entry in figures:
        place = [
            entry["bundle"],
            entry["stage"],
            f"{entry['builder']} {entry['version']}",
            entry["compute_capability"],
        ]
        if entry["built"]:
            ports = f"{entry['inputs']} + {entry['outputs']}"
            engine_table.add_row(
                *place, "yes", f"{entry['seconds']:.2f}", f"{entry['mb']:.2f}", ports, entry["flavour"]
            )
        else:
            engine_table.add_row(*place, f"no: {entry['why']}")
    return engine_table


def main(words: Sequence[str] | None = None, out: Path = _OUT) -> int:
    """Build what is asked for and not there yet, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shipped = sorted(folder.name for folder in bundles.SHIPPED.iterdir() if folder.is_dir())
    parser.add_argument("--bundle", default=",".join(shipped), help="bundles, separated by commas")
    parser.add_argument("--sm", default=",".join(CAPABILITIES), help="compute capabilities to build for")
    parser.add_argument("--again", action="store_true", help="also engines that were built before")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(words)
    # The load of the moment is no property of the machine.
    machine = {key: value for key, value in bench._machine().items() if key != "load"}
    figures = saved_figures(out, machine)
    try:
        engines.require()
        capabilities = engines.capabilities_of(args.sm)
        names = args.bundle.split(",")
        check_nothing_is_lost(out, machine, names)
        for name in names:
            bundle = bundles.load(name)
            for about in engine_keys(bundle, name, capabilities):
                if is_kept(figures, about) and not args.again:
                    continue
                figures = [*without(figures, about), measure(bundle, about)]
                write(out, {"machine": machine, "engines": figures})
    except RtDecodeError as error:
        return explain(error, as_json=args.json)
    if args.json:
        print(json.dumps({"machine": machine, "engines": figures}))  # noqa: T201
    else:
        Console(width=None if Console().is_terminal else 140).print(table(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
