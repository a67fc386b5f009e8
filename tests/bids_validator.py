"""The BIDS validator of the BIDS maintainers (bids-validator-deno, MIT), without access to the network."""

import json
import os
import subprocess
from pathlib import Path

import bids_validator_deno
from deno import find_deno_bin

_PROGRAM = Path(bids_validator_deno.__file__).with_name("bids-validator.js")
# Deno gives a program no access that is not named here: the network is not.
_MAY = ("--no-prompt", "--allow-read", "--allow-env")


def errors(folder: Path) -> list[str]:
    """Return the errors of a data set and of the derivatives in it, each with its place."""
    done = subprocess.run(
        [find_deno_bin(), "run", *_MAY, _PROGRAM, folder, "--recursive", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},
    )
    try:
        report = json.loads(done.stdout)
    except ValueError as error:
        raise AssertionError(f"the validator printed no report: {done.stderr}") from error
    assert report["summary"]["totalFiles"] > 0
    derivatives = report.get("derivativesSummary") or {}
    reports = [report, *derivatives.values()]
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue.get('location', '')}"
        for dataset in reports
        for issue in dataset["issues"]["issues"]
        if issue["severity"] == "error"
    ]
