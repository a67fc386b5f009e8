"""Look at a folder of data before training: ``python -m train.data DIR [key=value ...] [--json]``."""

import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rtdecode import strict_json, terminal
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.data import near_duplicates, regions, splits, standard
from train.data.caption_shifts import caption_shift
from train.data.dataset import DataSet
from train.data.examined import examined
from train.data.leaks import Leak
from train.data.sets.opening import LAYOUTS, opened
from train.data.shifts import Shift, shifts

_LAYOUTS = textwrap.fill(", ".join(LAYOUTS), 80, subsequent_indent=" " * 27)
_USAGE = f"""python -m train.data DIR [key=value ...] [--json]

Says which layout a folder of data has, whose recordings it holds, what is missing, and what of the test would
leak into training. Nothing is changed in the folder. Archives are read in place and need not be unpacked.

  layout=NAME              recognised where not given; one of
                           {_LAYOUTS}
  subjects=sub-0001,6      the subjects to use; all that are there where not given
  test=run-19,run-20       the runs to test on; those that the release keeps where not given. sub-0001/run-19
                           is the run of one subject
  validation=2             the last so many training runs of each subject, or the names of runs
  statistics=FILE          mean and deviation of the training windows: a file that is there is checked for
                           windows of the test; otherwise every training window is read, and FILE is written
  near=yes                 look for clips of the test that look like a clip of training; decodes every clip
  signals=yes              look for signals that were scaled by themselves, stand still or were cut off; reads
                           every window
  shift=yes                look for signals that follow their clips better earlier or later than they are
                           paired; decodes every clip of training
  targets=DIR              look for captions that fit clips of neighbouring windows better, or fit none, by
                           the embeddings image and text that python -m train.targets has put there

Exit status: 0, also where something leaks, 2 where the folder cannot be used.

  python -m train.data ~/CineBrain
  python -m train.data ~/CineBrain subjects=1,2,3,4,6 validation=2 statistics=cinebrain.npz near=yes"""

_KEYS = ("layout", "subjects", "test", "validation", "statistics", "near", "signals", "shift", "targets")
# So many missing files are printed; ``--json`` has all of them.
_PRINTED = 8


def described(folder: Path, options: dict[str, str]) -> dict[str, Any]:
    """Say all about a folder of data, as plain values.

    Parameters
    ----------
    options : dict
        The ``key=value`` arguments of the command.

    Raises
    ------
    UsageError
        If the folder or an argument cannot be used.
    """
    names = options.get("subjects")
    data = opened(folder, options.get("layout"), names.split(",") if names else None)
    split = _split(data, options)
    near = _near(data, split, options)
    statistics = _statistics(data, split, options)
    signals = options.get("signals", "no") != "no"
    moved = _shifts(data, split) if options.get("shift", "no") != "no" else None
    captions = caption_shift(data, Path(options["targets"])) if "targets" in options else None
    examination = examined(
        data, split, statistics, near, signals=signals, shifts=moved, caption_shift=captions
    )
    return {
        "layout": data.layout,
        "chain": data.chain,
        "columns": list(data.columns),
        "window_s": data.window_s,
        "lag_s": data.lag_s,
        "tr_s": data.tr_s,
        "sfreq": data.sfreq,
        "fps": data.fps,
        "subjects": [_subject(data, subject) for subject in data.windows.subjects],
        "missing": list(data.missing),
        "notes": list(data.notes),
        "split": None if split is None else _sizes(data, split, near),
        "scaling": {subject: dict(stats.scaling) for subject, stats in statistics.items()},
        "shifts": examination.shifts,
        "looked_for": examination.looked_for,
        "not_looked_for": examination.not_looked_for,
        "leaks": [_plain(leak) for leak in examination.leaks],
        "faults": [_plain(fault) for fault in examination.faults],
    }


def _plain(leak: Leak) -> dict[str, Any]:
    return {"kind": leak.kind, "names": list(leak.names), "says": leak.says}


def _split(data: DataSet, options: dict[str, str]) -> splits.Split | None:
    """Make the split that was asked for; None if neither the release nor the user names a test."""
    validation_text = options.get("validation", "0")
    validation = int(validation_text) if validation_text.isdigit() else validation_text.split(",")
    if "test" in options:
        return splits.by_runs(data.windows, options["test"].split(","), validation)
    return splits.released(data.windows, validation) if data.windows.held_out.any() else None


def _near(
    data: DataSet, split: splits.Split | None, options: dict[str, str]
) -> list[near_duplicates.Pair] | None:
    """Look for near-duplicates; None where that was not asked for."""
    if options.get("near", "no") == "no" or split is None:
        return None
    test = near_duplicates.hashes(data, split.test)
    return near_duplicates.pairs(test, near_duplicates.hashes(data, split.train))


def _shifts(data: DataSet, split: splits.Split | None) -> list[Shift] | None:
    """Look for shifts in the windows that teach; None where there are no clips."""
    if "clips" not in data.columns:
        return None
    return shifts(data, np.arange(len(data.windows)) if split is None else split.train)


def _statistics(
    data: DataSet, split: splits.Split | None, options: dict[str, str]
) -> dict[str, standard.Statistics]:
    if "statistics" not in options or split is None:
        return {}
    path = Path(options["statistics"])
    if path.is_file():
        return standard.read(path)
    # Before the reading, which takes long, and whose result could not be written otherwise.
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise UsageError(
            "statistics-path-unwritable",
            "statistics={path} cannot be written. Give a file ending in .npz in a folder that is there.",
            path=path,
        )
    by_subject = standard.statistics(data, split.train)
    standard.write(path, by_subject)
    return by_subject


def _subject(data: DataSet, subject: str) -> dict[str, Any]:
    of_subject = data.windows.subject == subject
    count = int(of_subject.sum())
    return {
        "subject": subject,
        "runs": len(set(data.windows.run[of_subject].tolist())),
        "windows": count,
        "minutes": round(count * data.window_s / 60, 1),
        "held_out": int(data.windows.held_out[of_subject].sum()),
        "regions": regions.sizes(data.regions(subject)),
    }


def _sizes(
    data: DataSet, split: splits.Split, near: list[near_duplicates.Pair] | None
) -> dict[str, int | None]:
    """Count the windows of each part, and those of the test that look like nothing in training."""
    clear = None if near is None else int(near_duplicates.without(data, split.test, near).sum())
    return {
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "left_out": len(split.left_out),
        "test_without_near_duplicates": clear,
    }


def _print(report: dict[str, Any]) -> None:
    console = terminal.console(width=None if sys.stdout.isatty() else 140)
    rates = [f"window {report['window_s']:g} s", f"first volume {report['lag_s']:g} s after its start"]
    rates += [f"TR {report['tr_s']:g} s"] if report["tr_s"] else []
    rates += [f"EEG {report['sfreq']:g} Hz"] if report["sfreq"] else []
    rates += [f"clips {report['fps']:g} frames a second"] if report["fps"] else []
    console.print(f"{report['layout']}: {', '.join(report['columns'])}; {report['chain']}", highlight=False)
    console.print(", ".join(rates), highlight=False)
    table = Table("subject", "runs", "windows", "minutes", "held out", "regions")
    for subject in report["subjects"]:
        region_sizes = ", ".join(f"{name} {size}" for name, size in subject["regions"].items()) or "no atlas"
        values = (
            subject["subject"],
            subject["runs"],
            subject["windows"],
            subject["minutes"],
            subject["held_out"],
            region_sizes,
        )
        table.add_row(*map(str, values))
    console.print(table)
    if report["split"]:
        sizes = {name.replace("_", " "): size for name, size in report["split"].items() if size is not None}
        parts = [f"{size} {name}" for name, size in sizes.items()]
        console.print(f"windows: {', '.join(parts)}", highlight=False)
    _listed(console, "missing", report["missing"])
    _listed(console, "to know", report["notes"], len(report["notes"]))
    leak_lines = [f"{leak['kind']}: {leak['says']}" for leak in report["leaks"]]
    _listed(console, "leaks", leak_lines, len(leak_lines))
    faults = [f"{fault['kind']}: {fault['says']}" for fault in report["faults"]]
    _listed(console, "faults", faults, len(faults))
    for sentence in report["shifts"]:
        console.print(f"  {sentence}", highlight=False, markup=False)
    console.print(f"looked for: {'; '.join(report['looked_for']) or 'nothing'}", highlight=False)
    for topic in report["not_looked_for"]:
        console.print(f"not looked for: {topic}", highlight=False)


def _listed(console: Console, title: str, lines: list[str], limit: int = _PRINTED) -> None:
    console.print(f"{title}: {'none found' if not lines else len(lines)}", highlight=False)
    for line in lines[:limit]:
        console.print(f"  {line}", highlight=False, markup=False)
    if len(lines) > limit:
        console.print(f"  and {len(lines) - limit} more, all of them with --json", highlight=False)


def read_arguments(arguments: list[str]) -> dict[str, str]:
    """Read ``key=value`` arguments.

    Raises
    ------
    UsageError
        If keys are not known, all of which it names.
    """
    parts = [text.partition("=") for text in arguments]
    are_known = [bool(equals) and key in _KEYS for key, equals, _ in parts]
    unknown = [text for text, is_known in zip(arguments, are_known, strict=True) if not is_known]
    if unknown:
        raise UsageError(
            "data-argument-unknown",
            "cannot take {arguments}. Known keys: {available}.",
            arguments=list(unknown),
            available=list(_KEYS),
        )
    return {key: value for key, _, value in parts}


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    as_json = "--json" in arguments
    positional = [text for text in arguments if text != "--json"]
    if not positional or positional[0] in ("-h", "--help"):
        terminal.say(*_USAGE.splitlines())
        return 0 if positional else 2
    try:
        report = described(Path(positional[0]), read_arguments(positional[1:]))
    except RtDecodeError as error:
        return explain(error, as_json=as_json)
    if as_json:
        terminal.line(strict_json.dumps(report))
    else:
        _print(report)
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
