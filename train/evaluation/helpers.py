"""Processes that decode ahead of the one that evaluates, on other cores or other GPUs.

Each is ``python -m train.evaluate`` with the same arguments and ``ahead=true``. All of them keep what they
decode in one folder, and pass over what another one is decoding
(`train.evaluation.section_runner.decode_ahead`).
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from rtdecode.child import python
from rtdecode.errors import UsageError
from train.evaluation.result import Request

_DEVICES = "CUDA_VISIBLE_DEVICES"
# The keys that a process which decodes ahead gets from the one that evaluates, or does without.
_PARENT_KEYS = ("processes", "keep", "out")
# How long a helper may take to stop, s.
_STOP_S = 10.0


@contextmanager
def helped(run: Path, changes: Sequence[str], request: Request) -> Iterator[Request]:
    """Let other processes decode ahead, and stop them at the end.

    Parameters
    ----------
    run : Path
        Folder of the run that is judged.
    changes : sequence of str
        The arguments of the program, ``key=value``.
    request : Request
        Made of them.

    Yields
    ------
    Request
        It keeps clips in a folder that all processes share.

    Raises
    ------
    UsageError
        If there are to be less than one process, or several of what keeps nothing.
    """
    count = request.processes
    if type(count) is not int or count < 1:
        raise UsageError(
            "evaluate-processes-invalid",
            "processes={processes}: so many processes decode, 1 or more.",
            processes=count,
        )
    if count > 1 and request.decodes_twice:
        raise UsageError(
            "evaluate-processes-keep-nothing",
            "processes={processes} with keep=none: processes share what they decode in a folder. Give "
            "keep=DIR, or leave keep= out.",
            processes=count,
        )
    if count == 1:
        yield request
        return
    with ExitStack() as stack:
        # Without a folder of the user's, one that is gone at the end.
        folder = request.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        passed_on = [text for text in changes if text.partition("=")[0] not in _PARENT_KEYS]
        words = [str(run), *passed_on, f"keep={folder}", "ahead=true"]
        for number in range(1, count):
            stack.enter_context(_helper(words, number))
        yield replace(request, keep=folder)


@contextmanager
def _helper(words: Sequence[str], number: int) -> Iterator[None]:
    # It says what goes wrong with it on standard error. What it did not decode, the others do.
    process = subprocess.Popen(
        python("-m", "train.evaluate", *words), env=_environment(number), stdin=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(number: int) -> Mapping[str, str]:
    """Give every process a GPU of its own, as far as there are GPUs; the first is that of the evaluation."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return os.environ
    visible = os.environ.get(_DEVICES, ",".join(map(str, range(count)))).split(",")
    return {**os.environ, _DEVICES: visible[number % count]}
