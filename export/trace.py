"""Trace a torch module into an ONNX graph.

`graph` exports the module, stores equal weights once and in half precision where that loses nothing, strips
what the exporter notes about itself, and checks the result. This is the one module of the export that needs
torch.
"""

import logging
import warnings

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_ir.passes.common import DeduplicateInitializersPass

from export.files import check
from train.system import Traced

OPSET = 20
# Weights with fewer elements stay in single precision.
_SMALL = 256
# Weights with more elements are not compared with each other: their bytes are held for it.
_MERGED = 2**20


def graph(stage: Traced) -> ModelProto:
    """Trace a stage; store equal weights once, and in half precision where it holds them exactly."""
    # The exporter warns about its own internals and logs what it cannot optimise.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # Copy the examples: one tensor given for two ports would be traced as a single port.
    examples = [example.clone() for example in stage.inputs.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            stage.module.eval(),
            tuple(examples),
            input_names=list(stage.inputs),
            output_names=stage.outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    # torch merges small ones alone. Tables that every layer reads, such as rotary positions, are larger.
    DeduplicateInitializersPass(size_limit=_MERGED)(program.model)
    model = halved(program.model_proto)
    # The exporter notes a stack trace on each node, with the paths of local source files.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    check(model)
    return model


def halved(model: ModelProto) -> ModelProto:
    """Store weights in half precision where that loses nothing, cast where they are used."""
    casts = []
    for tensor in model.graph.initializer:
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
