"""Judge a run: ``python -m train.evaluate RUN [--json] [key=value ...]``."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rtdecode import bundle
from rtdecode.bundle import Bundle
from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.signal.volume import Projection
from train.data.chain import draft_bundle
from train.data.phantom import Participant
from train.judge import Figures, judge_haxby, judge_phantom, judge_recording
from train.recipe import numbers
from train.run import arrays, read_run, show

_USAGE = """python -m train.evaluate RUN [--json] [key=value ...]
  presets=easy,default,hard  of the simulated participant; easy where not given
  seeds=1000-1001            fresh sessions, 1000 and up
  seconds=400                of film in each
  runs=9-10                  of the recorded data, for a run trained on them
  data=DIR                   a recording with its truth, or the folder of the recorded data"""


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is judged on."""

    presets: str = "easy"
    seeds: str | int = "1000-1001"
    seconds: float = 400.0
    runs: str | int = "9-10"
    data: Path | None = None


def evaluate(run: Path, request: Request) -> Figures:
    """Judge a run on data it has not seen.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    request : Request

    Returns
    -------
    dict
        Metric -> {value, chance, shuffled, constant, ci95, n}; figures of presets other than the
        first carry the preset's name before a slash.
    """
    tree, held = open_run(run)
    weights, model = arrays(run, "weights"), tree["model"]
    if request.data is not None and (request.data / "recording.json").is_file():
        return judge_recording(model, weights, held, request.data)
    if model == "category":
        return judge_haxby(model, weights, held, request.data, numbers(request.runs))
    figures: Figures = {}
    for n, preset in enumerate(request.presets.split(",")):
        who = replace(_participant(tree), preset=preset.strip())
        found = judge_phantom(model, weights, held, who, numbers(request.seeds), request.seconds)
        figures |= found if n == 0 else {f"{preset.strip()}/{name}": value for name, value in found.items()}
    return figures


def open_run(run: Path) -> tuple[dict[str, Any], Bundle]:
    """Read run.json, and hold the run's statistics as the chain wants them."""
    tree = read_run(run)
    manifest = bundle.from_json(tree["manifest"], f"{run / 'run.json'}: manifest")
    place = arrays(run, "projection")
    projection = None
    if place:
        i, j, k = (int(n) for n in place["shape"])
        projection = Projection(place["voxels"].astype(np.int64), (i, j, k), place["affine"])
    return tree, draft_bundle(manifest, arrays(run, "stats"), projection)


def _participant(tree: dict[str, Any]) -> Participant:
    given = {k: v for k, v in tree["arguments"]["who"].items() if k != "builder"}
    return Participant(**given)


def read_request(changes: list[str]) -> Request:
    """Read ``key=value`` arguments.

    Raises
    ------
    UsageError
        Naming every key that is not known.
    """
    pairs = [text.partition("=") for text in changes]
    unknown = [
        text
        for text, (key, equals, _) in zip(changes, pairs, strict=True)
        if not equals or key not in Request.__slots__
    ]
    if unknown:
        raise UsageError(f"cannot take {', '.join(unknown)}. Known keys: {', '.join(Request.__slots__)}.")
    values: dict[str, Any] = {key: yaml.safe_load(value) for key, _, value in pairs}
    if values.get("data") is not None:
        values["data"] = Path(str(values["data"]))
    return Request(**values)


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 0 if arguments else 2
    as_json = "--json" in arguments
    run, *changes = [text for text in arguments if text != "--json"]
    try:
        figures = evaluate(Path(run), read_request(changes))
    except RtDecodeError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    if as_json:
        print(json.dumps(figures))  # noqa: T201
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
