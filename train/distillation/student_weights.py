"""What a run keeps of a student beside its teacher's weights, and how the student is made of both again."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor, nn

from rtdecode import strict_json
from rtdecode.errors import UsageError
from train.config.run_context import Arrays
from train.trainer import adapters
from train.trainer.adapters import Adapter

# What a student learned lies under this name, and its adapters as JSON under the other one.
STUDENT = "student."
_ADAPTERS = "adapters"


def packed(learned: Mapping[str, Tensor], attached: Mapping[str, Adapter]) -> Arrays:
    """Collect what a student learned beside its teacher, in half precision.

    Parameters
    ----------
    learned : mapping
        Name of a parameter -> its values.
    attached : mapping
        Name -> an adapter that stays beside the weights, as it was put on.
    """
    arrays: Arrays = {f"{STUDENT}{name}": value.cpu().half().numpy() for name, value in learned.items()}
    adapter_settings = {name: asdict(adapter) for name, adapter in attached.items()}
    return arrays | {f"{STUDENT}{_ADAPTERS}": np.array(strict_json.dumps(adapter_settings))}


def of_student(weights: Arrays) -> Arrays:
    """Pick what `packed` made from a run's weights, under the names that it was given."""
    return {name.removeprefix(STUDENT): value for name, value in weights.items() if name.startswith(STUDENT)}


def of_teacher(weights: Arrays) -> Arrays | None:
    """Return a run's weights without its student; None if it has none."""
    teacher_weights = {name: value for name, value in weights.items() if not name.startswith(STUDENT)}
    return teacher_weights if len(teacher_weights) < len(weights) else None


def put_on(module: nn.Module, arrays: Arrays) -> None:
    """Make the teacher's module the student's, its adapters merged.

    Merged weights of single precision are rounded to half precision, as a run keeps all others.

    Parameters
    ----------
    module : Module
        It has the parameters that the student has besides adapters, such as spans.
    arrays : dict
        See `of_student`.

    Raises
    ------
    UsageError
        If the student has weights that the module does not.
    """
    adapter_settings = json.loads(str(arrays[_ADAPTERS]))
    for name, adapter in adapter_settings.items():
        adapters.inject(module, "", name, Adapter(**adapter))
    learned = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items() if name != _ADAPTERS}
    # Strict but for the teacher's own weights, which are there already.
    unknown = module.load_state_dict(learned, strict=False).unexpected_keys
    if unknown:
        raise UsageError(
            "student-unknown-weights",
            "the run's student has weights that its flow does not: {weights}.",
            weights=list(unknown[:4]),
        )
    adapters.merge(module)
    for parameter in module.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.half().float()
