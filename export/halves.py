"""Keep weights of single precision as half precision where that loses nothing, and back."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

# Weights with fewer elements stay in single precision.
_SMALL = 256


def halved(model: ModelProto) -> ModelProto:
    """Store weights in half precision where that loses nothing, cast where they are used."""
    casts = []
    for tensor in model.graph.initializer:
        # What is as large as that was not copied into the graph, and stays where it is.
        if uses_external_data(tensor):
            continue
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < _SMALL:
            continue
        half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def widened(model: ModelProto) -> ModelProto:
    """Store weights in single precision that are kept in half precision and cast where they are used."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Cast" and _is_half(weights.get(node.input[0])) and _to(node) == TensorProto.FLOAT:
            half = numpy_helper.to_array(weights[node.input[0]])
            model.graph.initializer.append(numpy_helper.from_array(half.astype(np.float32), node.output[0]))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _is_half(tensor: TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == TensorProto.FLOAT16


def _to(node: NodeProto) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == "to")
