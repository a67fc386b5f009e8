"""Several processes that train together on one machine.

`together` starts them as torchrun would, with the environment variables that torch and accelerate read.
"""

import os
import pickle
import socket
from collections.abc import Callable
from typing import Any

from torch import distributed
from torch.multiprocessing.spawn import spawn


def together(count: int, function: Callable[..., Any], *given: Any) -> None:
    """Call a function in several processes at once, and wait until all of them have returned.

    Parameters
    ----------
    count : int
    function : callable
        It finds the other processes in the way of a program that torchrun has started; accelerate sees them.
    *given
        Its arguments. Each process gets copies of its own, so all of them must be picklable.

    Raises
    ------
    torch.multiprocessing.ProcessRaisedException
        If one of them raised. The others are then ended.
    """
    # Pickled here: torch's own pickling shares tensors, and all processes would train the same memory.
    copies = pickle.dumps((function, given))
    # The system chooses a free port, on which the processes find each other.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context: Any = spawn(_one, (count, port, copies), nprocs=count, join=False)
    try:
        while not context.join():
            continue
    finally:
        for process in context.processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _one(process: int, count: int, port: int, copies: bytes) -> None:
    """Run the function as one of the processes."""
    told = {
        "RANK": process,
        "LOCAL_RANK": process,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in told.items()})
    function, given = pickle.loads(copies)  # noqa: S301 - what this program has just pickled
    function(*given)
    distributed.destroy_process_group()
