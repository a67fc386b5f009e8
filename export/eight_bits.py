"""Let decode graphs round their frames to 8 bits, a quarter of the bytes of single precision.

`rounded` puts at the end of a graph what a session does with frames of single precision, so that both give
the same frames to the bit (`rtdecode.bundle.frames`).
"""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.files import check
from export.states import rename
from rtdecode.bundle.frames import FRAMES, MEAN

_SINGLE = f"{FRAMES}.single"


def rounded(model: ModelProto) -> ModelProto:
    """Let a graph give its frames in 8 bits, and their mean before that, in place; return the graph.

    The mean is not finite where any value is not, which 8 bits cannot tell. A graph whose frames are not of
    single precision stays as it is.
    """
    graph = model.graph
    port = next((output for output in graph.output if output.name == FRAMES), None)
    if port is None or port.type.tensor_type.elem_type != TensorProto.FLOAT:
        return model
    rename(graph, {FRAMES: _SINGLE})
    port.type.tensor_type.elem_type = TensorProto.UINT8
    axes = len(port.type.tensor_type.shape.dim)
    graph.output.append(helper.make_tensor_value_info(MEAN, TensorProto.FLOAT, [1] * axes))
    levels = {"black": 0, "white": 1, "largest": 255}
    black, white, largest = (f"{FRAMES}.{name}" for name in levels)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(level, np.float32), f"{FRAMES}.{name}")
        for name, level in levels.items()
    )
    clipped, scaled, whole_levels = (f"{FRAMES}.{part}" for part in ("clipped", "scaled", "rounded"))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [_SINGLE], [MEAN], keepdims=1),
            helper.make_node("Clip", [_SINGLE, black, white], [clipped]),
            helper.make_node("Mul", [clipped, largest], [scaled]),
            helper.make_node("Round", [scaled], [whole_levels]),
            helper.make_node("Cast", [whole_levels], [FRAMES], to=TensorProto.UINT8),
        ]
    )
    check(model)
    return model
