"""Several processes that train together on one machine.

`launch` starts them as torchrun would, with the environment variables that torch and accelerate read.
"""

import os
import pickle
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import distributed
from torch.multiprocessing.spawn import spawn

from rtdecode.disk import private
from rtdecode.errors import RtDecodeError


def launch(count: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in several processes at once, and wait until all of them have returned.

    Parameters
    ----------
    count : int
        Number of processes.
    folder : Path
        Where the arguments lie meanwhile, in a file that all processes read: a model would otherwise be in
        memory twice, as an object and as its bytes.
    function : callable
        It finds the other processes in the way of a program that torchrun has started; accelerate sees them.
    *arguments
        Its arguments. Each process gets copies of its own, so all of them must be picklable.

    Raises
    ------
    RtDecodeError
        If the arguments cannot be written.
    torch.multiprocessing.ProcessRaisedException
        If one of them raised. The others are then ended.
    """
    private.folder(folder)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="arguments-") as file:
        try:
            # Pickled here: torch's own pickling shares tensors, so that all would train the same memory.
            pickle.dump((function, arguments), file)
            file.flush()
        except OSError as error:
            raise RtDecodeError(
                "processes-write-failed",
                "{count} processes that train together read the model from a file in {folder}, which could "
                "not be written ({error}). Make room there, and go on with resume=.",
                count=count,
                folder=folder,
                error=error,
            ) from error
        # The system chooses a free port, on which the processes find each other.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context: Any = spawn(_one, (count, port, file.name), nprocs=count, join=False)
        try:
            while not context.join():
                continue
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.terminate()
                    process.join()


def _one(process: int, count: int, port: int, arguments: str) -> None:
    """Run the function as one of the processes."""
    environment = {
        "RANK": process,
        "LOCAL_RANK": process,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    with Path(arguments).open("rb") as file:
        function, function_arguments = pickle.load(file)  # noqa: S301 - what this program has just pickled
    function(*function_arguments)
    distributed.destroy_process_group()
