"""The digest follows what a graph computes, and nothing else."""

import numpy as np
from onnx import ModelProto

from export.digest import digest
from train.closed_form.graph_writer import GraphWriter


def model(weight: float = 2.0, axis: int = 1, renamed: bool = False, twice: bool = False) -> ModelProto:
    writer = GraphWriter()
    y = writer.add("Mul", "x", writer.constant(np.array([weight], np.float32)))
    for _ in range(2 if twice else 1):
        y = writer.add("Softmax", y, axis=axis)
    proto = writer.model("m", {"x": [1, 3]}, {"y": (y, [1, 3])})
    if renamed:
        for node in proto.graph.node:
            for names in (node.input, node.output):
                names[:] = [n if n in ("x", "y") else f"other_{n}" for n in names]
        for tensor in proto.graph.initializer:
            tensor.name = f"other_{tensor.name}"
    return proto


def test_the_same_graph_has_the_same_digest() -> None:
    assert digest(model()) == digest(model())
    assert digest(model(renamed=True)) == digest(model())
    assert digest(ModelProto.FromString(model().SerializeToString())) == digest(model())


def test_weights_attributes_and_nodes_count() -> None:
    variants = [model(weight=2.0000002), model(axis=0), model(twice=True)]
    assert len({digest(model()), *(digest(m) for m in variants)}) == 4
