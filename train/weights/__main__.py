"""Turn published weights into a run: ``python -m train.weights SYSTEM FILE... out=RUN [key=value ...]``."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rtdecode import terminal
from rtdecode.disk import private
from rtdecode.errors import RtDecodeError, UsageError, explain
from train.artifacts.slots import parts_of
from train.config.recipe import check, read
from train.config.run_context import RunContext, check_new, clear
from train.interface.system import Trained
from train.models.cinesync import converted
from train.run_recipe import write_whole

_USAGE = """python -m train.weights SYSTEM FILE... out=RUN licence=TEXT [key=value ...]   systems: {systems}
  FILE                       the checkpoint (mp_rank_00_model_states.pt), or all files of it
  out=RUN                    a new folder, for a run that train.evaluate and rtdecode export take
  licence=TEXT               of the checkpoint, as it was published
  data=DIR data.subject=NAME the data set and the person that it was trained on; held-out runs are judged
  system.video.folder=DIR    of the pipeline that it was trained on, and system.video.licence=TEXT
  SLOT.KEY=value             any other argument of the recipe ({recipes})"""

# System -> the recipe of its public code, and what makes a run of a checkpoint.
_CONVERTERS: dict[str, tuple[str, Callable[..., Trained]]] = {
    "cinesync": (converted.RECIPE, converted.convert),
}


def run(system: str, files: Sequence[Path], changes: Sequence[str]) -> Path:
    """Turn a checkpoint into a run.

    Parameters
    ----------
    system : str
        Name of the system whose checkpoint it is: ``cinesync``.
    files : sequence of Path
        The checkpoint's files.
    changes : sequence of str
        ``key=value``: ``licence``, ``out``, ``data`` and any argument of the system's recipe.

    Returns
    -------
    Path
        The run's folder.

    Raises
    ------
    UsageError
        If there is no such system, an argument cannot be taken, or the checkpoint cannot be used. Nothing is
        written then.
    """
    if system not in _CONVERTERS:
        raise UsageError(
            "weights-system-unknown",
            "there is no system '{system}' whose published weights can be read; there are {available}.",
            system=system,
            available=list(_CONVERTERS),
        )
    if not files:
        raise UsageError(
            "weights-checkpoint-missing",
            "no checkpoint was given: name its files before the arguments.",
        )
    recipe_name, convert = _CONVERTERS[system]
    licences = [text.partition("=")[2] for text in changes if text.partition("=")[0] == "licence"]
    recipe = read(recipe_name, [text for text in changes if text.partition("=")[0] != "licence"])
    check(recipe)
    out = recipe.common.out
    if out is None:
        raise UsageError(
            "weights-run-missing", "nothing says where the run goes. Give a new folder with out=RUN."
        )
    check_new(out)
    part = out.with_name(f"{out.name}.part")
    check_new(part)
    work = RunContext(recipe.common.data, recipe.common.seed, part / "stages", noise_key=recipe.digest)
    parts = parts_of(recipe.tree)
    data: Any = parts.data
    data.check(work)
    try:
        trained = convert(files, "".join(licences), parts.system, data, parts.phases, work)
        private.folder(part)
        write_whole(part, out, recipe, trained)
    finally:
        clear(part)
    for row in trained.tables["notes"]:
        terminal.line(row["note"])
    return out


def main(arguments: list[str]) -> int:
    """Run the program; return its exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        recipes = ", ".join(recipe for recipe, _ in _CONVERTERS.values())
        terminal.say(*_USAGE.format(systems=", ".join(_CONVERTERS), recipes=recipes).splitlines())
        return 0 if arguments else 2
    system, *words = arguments
    try:
        out = run(
            system,
            [Path(text) for text in words if "=" not in text],
            [text for text in words if "=" in text],
        )
    except RtDecodeError as error:
        return explain(error)
    terminal.line(out)
    return 0


if __name__ == "__main__":
    terminal.guard()
    raise SystemExit(main(sys.argv[1:]))
