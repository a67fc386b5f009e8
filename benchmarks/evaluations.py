"""The figures of a run's evaluation, kept as a result file from which pages get their tables.

python -m benchmarks.evaluations RUN NAME film=shapes presets=easy,default seeds=1010-1029 seconds=60 keep=DIR

RUN is evaluated as `python -m train.evaluate RUN key=value ...` does, and results/NAME.json gets the figures
of `METRICS`: metric -> preset -> figure, with the film before the preset for all films but the first, and the
oracle's figures beside them. An evaluation that was stopped goes on with the clips in keep=DIR.
"""

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.result_files import RESULTS, write
from rtdecode.errors import RtDecodeError, explain
from train.config.recipe import words
from train.evaluate import evaluate_as_asked, read_request, stopped
from train.evaluation.any_film import title
from train.evaluation.beside import ORACLE
from train.evaluation.result import Figures, Request
from train.run_recipe import show, stop

METRICS = (
    "condition_2way",
    "condition_2way_above_oracle",
    "condition_2way_fmri",
    "condition_2way_eeg",
    "condition_2way_other_film",
    "condition_2way_rest",
    "identification_2way_centred",
    "identification_2way_centred_above_decoded_colour",
    "identification_2way_centred_fmri",
    "identification_2way_centred_eeg",
    "identification_2way_centred_null",
    "identification_2way_centred_other_film",
    "identification_2way_centred_rest",
    "identification_2way_centred_start",
    "identification_2way_matched",
    "identification_2way_matched_above_decoded_colour",
    "identification_2way_matched_above_told_colour",
    "identification_2way_matched_start",
    "identification_2way_temporal",
    "identification_2way_temporal_above_reversed",
    "identification_2way_temporal_start",
    "category_accuracy",
    "category_accuracy_null",
    "category_accuracy_other_film",
    "psnr",
    "condition_gain",
    "condition_gain_start",
    "start_gain",
    "brain_gain",
    "adapter_gain",
    "frechet",
    "frechet_start",
)


def columns(request: Request) -> Iterator[tuple[str, str]]:
    """Yield what each column of the tables is called, and how its figures' names begin.

    Parameters
    ----------
    request : Request
        What was evaluated: its films and presets.
    """
    films = words(str(request.film))
    presets = words(request.presets)
    for film in films:
        for preset in presets:
            of_film = "" if film == films[0] else f"{title(film)}/"
            of_preset = "" if preset == presets[0] else f"{preset}/"
            yield ", ".join([*([title(film)] if of_film else []), preset]), of_film + of_preset


def chosen(figures: Figures, request: Request) -> dict[str, Figures]:
    """Choose the figures of `METRICS`: metric -> column -> figure, with the oracle's after each column.

    Parameters
    ----------
    figures : dict
        Those of `train.evaluate`.
    request : Request
        What was evaluated.
    """
    tree: dict[str, Figures] = {}
    for metric in METRICS:
        for column, before in columns(request):
            names = {column: f"{before}{metric}", f"{column}, its oracle": f"{before}{metric}{ORACLE}"}
            entries = {key: figures[name] for key, name in names.items() if name in figures}
            tree.setdefault(metric, {}).update(entries)
    return {metric: entries for metric, entries in tree.items() if entries}


def main(arguments: Sequence[str] | None = None, folder: Path = RESULTS) -> int:
    """Evaluate a run, print all of its figures, and write those that tables show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("name", metavar="NAME", help="of the result file")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="the arguments of train.evaluate")
    args = parser.parse_args(arguments)
    # A terminated evaluation stops the processes that help it.
    signal.signal(signal.SIGTERM, stop)
    request = Request()
    try:
        request = read_request(args.changes)
        figures = evaluate_as_asked(args.run, args.changes, request).figures
    except RtDecodeError as error:
        return explain(error)
    except KeyboardInterrupt:
        return stopped(request)
    show(figures, f"benchmarks/results/{args.name}.json")
    write(folder / f"{args.name}.json", chosen(figures, request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
