"""Keep a run's weights once: ``python -m train.bundled_weights RUN BUNDLE``."""

import sys
from pathlib import Path

from rtdecode import terminal
from rtdecode.errors import RtDecodeError, explain
from train.config.bundled_weights import move


def main(arguments: list[str]) -> int:
    """Move the weights of the run that the command line names into the bundle that it names."""
    if len(arguments) != 2:
        terminal.say("usage: python -m train.bundled_weights RUN BUNDLE")
        return 2
    run, bundle = arguments
    try:
        bundle_count, run_count = move(Path(run), bundle)
    except RtDecodeError as error:
        return explain(error)
    terminal.line(
        f"{bundle_count} weights of {run} are read from the bundle {bundle}; {run_count} stay in weights.npz."
    )
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
