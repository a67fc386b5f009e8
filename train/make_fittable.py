"""Let newcomers be fitted to a run that was trained before runs kept what that takes.

    python -m train.make_fittable RUN OUT [--stages DIR]

writes a copy whose bundle `rtdecode fit` takes to another participant (`train.fitting.tokenizers`). A few of
the run's sessions are simulated again for it. Its weights and figures stay as they are.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np

from rtdecode import strict_json, terminal
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.artifacts.run_folder import draft_of, restored
from train.config.run_context import check_new
from train.config.run_files import read_run, weights
from train.data.film_stages import all_clips, session_stage, some_of_each_kind
from train.models.compact.refit import reopened
from train.models.conditioned.fittable import FITTER, fit_tokens, tokenizing
from train.models.conditioned.system import BrainConditioned
from train.parts.codecs.fitted_patch import fit_codec

# A weight that linear tokenizers have.
_OF_TOKENIZERS = "encoder.tokenizers."


def make_fittable(run: Path, out: Path, stages: Path) -> None:
    """Copy a finished run, and let newcomers be fitted to the copy.

    Parameters
    ----------
    run : Path
        A folder that `train.run` wrote.
    out : Path
        A new folder.
    stages : Path
        Folder of simulated sessions, which are not simulated again.

    Raises
    ------
    UsageError
        If the run is of another system, or was not trained on films of the simulated participant.
    """
    check_new(out)
    tree = read_run(run)
    arguments = tree["arguments"]
    if arguments["data"]["builder"] != "film-sessions" or not _has_tokenizers(run):
        raise UsageError(
            "fittable-run-unsupported",
            "{run} is of the system '{system}' with the data '{data}'; what can be made fittable afterwards "
            "is a system with linear tokenizers and 'film-sessions'. Train it anew: a run on sessions or "
            "recordings is fittable if its tokenizers are.",
            run=run,
            system=arguments["system"]["builder"],
            data=arguments["data"]["builder"],
        )
    parts, data, work = reopened(tree, stages)
    plan = parts["system"]
    taught = data.showings(work)
    draft = draft_of(run)
    first = list({showing.source: showing for showing in reversed(taught)}.values())
    codec = work.stage("codec", lambda: fit_codec(all_clips(first), plan.films.channels, plan.films.contrast))
    examples = some_of_each_kind(taught)
    work.make_all(
        {session_stage(showing): lambda showing=showing: showing.arrays(draft) for showing in examples},
        "watching films",
    )
    eeg = [work.read(session_stage(showing))["eeg"] for showing in examples]
    system = restored(run, plan)
    assert isinstance(system, BrainConditioned)
    reads = tokenizing(system.encoder)
    assert reads is not None
    token_stats = fit_tokens(codec, examples, eeg, reads, draft)
    private.folder(out)
    for source in sorted(path for path in run.rglob("*") if path.is_file()):
        target = out / source.relative_to(run)
        private.folder(target.parent)
        shutil.copyfile(source, private.file(target))
    np.savez_compressed(private.file(out / "stats.npz"), allow_pickle=False, **draft.stats, **token_stats)
    tree["manifest"]["fitter"] = FITTER
    private.file(out / "run.json").write_text(strict_json.dumps(tree, indent=1) + "\n")


def _has_tokenizers(run: Path) -> bool:
    return any(name.startswith(_OF_TOKENIZERS) for name in weights(run))


def main() -> int:
    """Read the arguments, and make the copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that `train.run` wrote")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--stages", type=Path, help="a folder for the simulated sessions, to be kept")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_fittable(options.run, options.out, options.stages or Path(folder))
    except RtDecodeError as error:
        return explain(error)
    terminal.line(options.out)
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main())
