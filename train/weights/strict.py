"""Fill a module with weights so that every name is accounted for, or say which is not."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from rtdecode.errors import UsageError

# So many names of each kind are listed in a message.
_LISTED = 10


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str, unused: Sequence[str] = ()) -> None:
    """Copy a state dict into a module, whose dtype and device stay as they are.

    Parameters
    ----------
    module : Module
        The module that is filled, in place.
    state : mapping
        Name in the module -> values.
    where : str
        What the weights are called in messages.
    unused : sequence of str
        Patterns (``*`` and ``?``) of names in `state` that are knowingly left out.

    Raises
    ------
    UsageError
        If a name is left over or missing, a shape differs, or numbers of another kind would be converted. The
        module is then as it was.
    """
    module_state = module.state_dict()
    new_state = {name: value for name, value in state.items() if not matched(name, unused)}
    misfits = []
    for name in module_state.keys() & new_state.keys():
        expected = module_state[name]
        actual = new_state[name]
        if expected.shape != actual.shape:
            misfits.append(f"{name} (asked {tuple(expected.shape)}, found {tuple(actual.shape)})")
        elif expected.is_floating_point() != actual.is_floating_point():
            misfits.append(f"{name} (asked {expected.dtype}, found {actual.dtype})")
    refuse(
        where,
        {
            "left over": new_state.keys() - module_state.keys(),
            "missing": module_state.keys() - new_state.keys(),
            "of another shape or kind": misfits,
        },
        f"They were to fill a {type(module).__name__}. Give the weights of this very model, or name what is "
        "knowingly left out with unused=.",
    )
    module.load_state_dict(new_state)


def matched(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name has one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def refuse(
    where: str, faults: Mapping[str, Iterable[str]], advice: str, listed: int | None = _LISTED
) -> None:
    """Raise an error if there are faults.

    Parameters
    ----------
    where : str
        What the weights are called.
    faults : mapping
        What is wrong -> the names for which it is.
    advice : str
        What to do, as sentences.
    listed : int or None
        So many names of each fault are listed in the message; None lists all.

    Raises
    ------
    UsageError
    """
    names_of = {kind: sorted(names) for kind, names in faults.items()}
    names_of = {kind: names for kind, names in names_of.items() if names}
    if names_of:
        raise UsageError(
            "weights-module-mismatch",
            "the weights in {source} do not fit: {faults}. {advice}",
            source=where,
            faults="; ".join(_told(kind, names, listed) for kind, names in names_of.items()),
            names=names_of,
            advice=advice,
        )


def _told(kind: str, names: list[str], listed: int | None) -> str:
    ellipsis = "" if listed is None or len(names) <= listed else ", ..."
    return f"{len(names)} {kind}: {', '.join(names[:listed])}{ellipsis}"
