"""ONNX graphs written node by node, for decoders in closed form."""

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
Ports = dict[str, list[int]]


class GraphWriter:
    """A graph being written: nodes and constants under short names.

    Weights stored as float16 or uint8 stay so in the file and are cast where they are used.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: Any) -> str:
        """Store an array; floats come out as float32, integers as int64."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self._name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if array.dtype in (np.float16, np.uint8):
            return self.add("Cast", name, to=TensorProto.FLOAT)
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        name = self._name()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def shaped(self, name: str, *shape: int) -> str:
        """Reshape."""
        return self.add("Reshape", name, self.constant(np.array(shape, np.int64)))

    def model(self, name: str, inputs: Ports, outputs: dict[str, tuple[str, list[int]]]) -> ModelProto:
        """Finish: `outputs` maps a port to the value behind it and its shape."""
        for port, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [port]))
        ports = {port: shape for port, (_, shape) in outputs.items()}
        graph = helper.make_graph(self.nodes, name, _infos(inputs), _infos(ports), self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="rtdecode")
        onnx.checker.check_model(model)
        return model


def _infos(ports: Ports) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()]
