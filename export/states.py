"""Keep the states of graphs in half precision, so that a session holds half the bytes.

`ports` names the ports that read and write states. `narrowed` turns those of single precision into ports of
half precision, with a cast beside each: what the graph computes in stays as it is.
"""

from collections.abc import Collection, Mapping

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from rtdecode.bundle import Manifest

_LIMIT = float(np.finfo(np.float16).max)
_LEAST = "states.least"
_GREATEST = "states.most"


def ports(manifest: Manifest) -> dict[str, list[str]]:
    """Name the ports of each stage that read or write the values of a state.

    A state with a source is left out. It is the end of the clean latent, which the session itself takes from
    a port of single precision, and the next window carries on from it: what is rounded there would go into
    every later clip.
    """
    states = {name for name, state in manifest.states.items() if state.source is None}
    ports_of: dict[str, list[str]] = {}
    for name, stage in manifest.built.items():
        reads = [port for port, read in stage.inputs.items() if read.state in states and not read.there]
        writes = [port for port, written in stage.outputs.items() if written.state in states]
        ports_of[name] = reads + writes
    return ports_of


def narrowed(model: ModelProto, state_ports: Collection[str], *, limited: bool) -> None:
    """Turn ports of single precision into ports of half precision, in place.

    Parameters
    ----------
    model : ModelProto
        The graph, which is changed.
    state_ports : collection of str
        The ports. Those of another type, whole numbers for one, are left alone.
    limited : bool
        Whether values beyond the largest of half precision are cut off there. Otherwise they become
        infinite, as they do in nodes that compute in half precision.
    """
    graph = model.graph
    reads = [port for port in graph.input if port.name in state_ports and _is_single(port)]
    writes = [port for port in graph.output if port.name in state_ports and _is_single(port)]
    # Inside the graph the values have other names, because a port keeps its own.
    inner_names = {port.name: f"{port.name}.single" for port in (*reads, *writes)}
    rename(graph, inner_names)
    nodes: list[NodeProto] = []
    for port in reads:
        port.type.tensor_type.elem_type = TensorProto.FLOAT16
        nodes.append(helper.make_node("Cast", [port.name], [inner_names[port.name]], to=TensorProto.FLOAT))
    nodes += graph.node
    for port in writes:
        port.type.tensor_type.elem_type = TensorProto.FLOAT16
        value = inner_names[port.name]
        if limited:
            nodes.append(helper.make_node("Clip", [value, _LEAST, _GREATEST], [f"{port.name}.limited"]))
            value = f"{port.name}.limited"
        nodes.append(helper.make_node("Cast", [value], [port.name], to=TensorProto.FLOAT16))
    if limited and writes:
        least = np.array(-_LIMIT, np.float32)
        greatest = np.array(_LIMIT, np.float32)
        limits = [numpy_helper.from_array(least, _LEAST), numpy_helper.from_array(greatest, _GREATEST)]
        graph.initializer.extend(limits)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_single(port: ValueInfoProto) -> bool:
    return port.type.tensor_type.elem_type == TensorProto.FLOAT


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename values in the nodes of a graph, in place, and in graphs within them, which read from outside."""
    for node in graph.node:
        inputs = [names.get(name, name) for name in node.input]
        outputs = [names.get(name, name) for name in node.output]
        del node.input[:]
        del node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                rename(attribute.g, names)
                for port in attribute.g.output:
                    port.name = names.get(port.name, port.name)
