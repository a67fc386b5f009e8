"""Change the share of detail that a finished run of `compact` or `compact-distilled` keeps by default.

    python -m train.models.compact.redetail RUN SHARE

Nothing is trained: the share is a factor of the sampler's last step (`train.models.compact.flow.Denoiser`).
All other weights stay as they are. The run is judged again and written in place; export it after this.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.artifacts import pictures
from train.config.run_context import Arrays, read_arrays, write_arrays
from train.config.run_files import read_run, weights
from train.models.compact.refit import judged_anew, of_films, reopened

_WEIGHTS = "weights.npz"


def redetail(run: Path, share: float, stages: Path) -> None:
    """Change the share of detail of a run, judge it, and write it in place.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    share : float
        From 0, the encoder's own clip, to 1, all that the flow draws.
    stages : Path
        Folder for what judging keeps.

    Raises
    ------
    UsageError
        If the share is no number from 0 to 1, or the run is of another system or was not trained on the
        simulated participant.
    """
    # Written so that a NaN is refused too.
    if not 0 <= share <= 1:
        raise UsageError(
            "redetail-share-out-of-range",
            "a share of detail of {share:g} was asked for: a number from 0 to 1 was expected.",
            share=share,
        )
    tree = read_run(run)
    arguments = tree["arguments"]
    if not of_films(arguments):
        raise UsageError(
            "redetail-run-unsupported",
            "{run} is of the system '{system}' with the data '{data}'; a share of detail has 'compact' with "
            "'film-sessions'.",
            run=run,
            system=arguments["system"]["builder"],
            data=arguments["data"]["builder"],
        )
    settings = arguments["system"]["generator"]["settings"]
    if settings is not None:
        settings["detail"] = share
    parts, data, work = reopened(tree, stages)
    judged = judged_anew(run, tree, parts, data, work, with_share(weights(run), share))
    tree |= {"figures": judged.figures, "tables": tree["tables"] | judged.tables}
    # Weights that lie in a bundle stay there.
    kept_here = with_share(read_arrays(run / _WEIGHTS), share)
    write_arrays(run / _WEIGHTS, kept_here, compressed=True)
    private.write_whole(run / "run.json", strict_json.dumps(tree, indent=1) + "\n")
    for name, picture in judged.pictures.items():
        pictures.write(run / name, picture)


def with_share(arrays: Arrays, share: float) -> Arrays:
    """Return the weights of a run with another share of detail in their settings."""
    settings = json.loads(str(arrays["config"]))
    return arrays | {"config": np.array(strict_json.dumps(settings | {"detail": share}))}


def main() -> int:
    """Read the arguments, and change the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument("share", type=float, help="from 0 to 1")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            redetail(options.run, options.share, Path(folder))
    except RtDecodeError as error:
        return explain(error)
    terminal.line(options.run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
