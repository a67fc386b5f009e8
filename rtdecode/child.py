"""How a program of this project starts another one: as the same program, from whatever folder."""

import sys


def python(*words: str) -> list[str]:
    """Return the command of this interpreter, for what is installed beside it.

    Without ``-P``, Python looks for packages in the current folder first, and takes what is called
    ``rtdecode`` there (a clone's folder, another version) for this program.

    Parameters
    ----------
    *words : str
        What follows: ``-m MODULE`` or ``-c PROGRAM``, and arguments.
    """
    return [sys.executable, "-P", *words]


def command(*words: str) -> list[str]:
    """Return the command line of ``rtdecode`` with the given words.

    Parameters
    ----------
    *words : str
        The command's name and its options.
    """
    return python("-m", "rtdecode.cli", *words)
