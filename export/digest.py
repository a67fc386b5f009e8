"""Hash what a graph computes.

Two graphs have the same digest if they have the same ports, nodes, attributes and weights, whatever the
values inside them are called. A manifest keeps the digests of its stages (``parity``): exporting a shipped
run again must give the same ones.
"""

import hashlib
from typing import Any

from onnx import AttributeProto, ModelProto, NodeProto, helper

from export.files import values


def digest(model: ModelProto) -> str:
    """Hash the ports, nodes in their order, attributes and initialisers of a graph.

    Names inside the graph do not matter; the names of its ports do.

    Parameters
    ----------
    model : ModelProto
        The graph to hash.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.
    """
    graph = model.graph
    # Ports keep their names. Every other value is called by the order in which it first appears.
    aliases: dict[str, str] = {}
    total = hashlib.sha256()
    for port in (*graph.input, *graph.output):
        aliases[port.name] = port.name
        shape = [d.dim_value or d.dim_param for d in port.type.tensor_type.shape.dim]
        _put(total, port.name, port.type.tensor_type.elem_type, shape)
    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        _put(total, *opset)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input:
            # Hash a weight where it is first used: the order of the initialisers does not matter.
            if name in weights and name not in aliases:
                array = values(weights[name])
                _put(total, array.dtype.str, array.shape)
                total.update(array.tobytes())
            aliases.setdefault(name, f"#{len(aliases)}")
        for name in node.output:
            aliases.setdefault(name, f"#{len(aliases)}")
        inputs = [aliases[n] for n in node.input]
        outputs = [aliases[n] for n in node.output]
        _put(total, node.domain, node.op_type, inputs, outputs, _attributes(node))
    return total.hexdigest()


def _attributes(node: NodeProto) -> list[Any]:
    return [(a.name, _value(a)) for a in sorted(node.attribute, key=lambda a: a.name)]


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    # Tensors and subgraphs are messages: take their bytes.
    return value.SerializeToString(deterministic=True) if hasattr(value, "SerializeToString") else value


def _put(total: "hashlib._Hash", *values: Any) -> None:
    total.update(repr(values).encode() + b"\n")
