"""Make an ONNX file small without a change of what it computes: names, shapes and equal tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import ascii_lowercase, digits
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs
from onnx.helper import get_attribute_value

#: Operators with windows, and what their attributes are without a value, in each direction.
WINDOWED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool")
UNIT = {"strides": 1, "dilations": 1, "pads": 0}
#: What short names are made of; the first sign is a letter.
SIGNS = ascii_lowercase + digits


def slim(model: ModelProto, batch: str) -> None:
    """Remove stack traces and inferred shapes, and name the batch axis.

    They make up a third of a small file that :func:`torch.onnx.export` writes.

    Args:
        model: The model, changed in place.
        batch: Name for the batch axis.
    """
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and axes[0].dim_param:
            axes[0].dim_param = batch


def share_initializers(model: ModelProto) -> None:
    """Keep one of the initializers that are equal in type, shape and bytes.

    Args:
        model: The model, changed in place.
    """
    kept: list[TensorProto] = []
    first: dict[bytes, str] = {}
    instead: dict[str, str] = {}
    for item in model.graph.initializer:
        content = TensorProto()
        content.CopyFrom(item)
        content.name = ""
        name = first.setdefault(content.SerializeToString(deterministic=True), item.name)
        instead[item.name] = name
        if name == item.name:
            kept.append(content)
            kept[-1].name = name
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for graph in _graphs(model.graph):
        for node in graph.node:
            node.input[:] = [instead.get(name, name) for name in node.input]


def drop_defaults(model: ModelProto) -> None:
    """Remove the attributes of nodes that say what holds without them.

    Args:
        model: The model, changed in place.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and defs.has(node.op_type):
                known = defs.get_schema(node.op_type, version).attributes
                kept = [a for a in node.attribute if not _is_default(node, a, known)]
                del node.attribute[:]
                node.attribute.extend(kept)


def _is_default(node: NodeProto, attribute: AttributeProto, known: Mapping[str, Any]) -> bool:
    """Tell whether an attribute has the value that the operator takes without it."""
    if node.op_type in WINDOWED and attribute.name in UNIT:
        return all(value == UNIT[attribute.name] for value in attribute.ints)
    schema = known.get(attribute.name)
    default = None if schema is None else schema.default_value
    if default is None or not default.name:
        return False
    return bool(get_attribute_value(default) == get_attribute_value(attribute))


def shorten_names(model: ModelProto) -> None:
    """Give every value inside the graph a name of a few signs, and no name to its nodes.

    Inputs and outputs of the graph keep their names. Names are a tenth of a file of 400,000
    weights, and a third of one of 50,000.

    Args:
        model: The model, changed in place.
    """
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    short = (name for name in _short_names() if name not in fixed)
    names: dict[str, str] = {name: name for name in ("", *fixed)}

    def shortened(name: str) -> str:
        if name not in names:
            names[name] = next(short)
        return names[name]

    for graph in _graphs(model.graph):
        for value in (*graph.initializer, *graph.input, *graph.output):
            value.name = shortened(value.name)
        for node in graph.node:
            node.ClearField("name")
            node.input[:] = [shortened(name) for name in node.input]
            node.output[:] = [shortened(name) for name in node.output]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, and the graphs of the branches and loops in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for one in (*inner, *attribute.graphs):
                yield from _graphs(one)


def _short_names() -> Iterator[str]:
    """Yield a, b, …, z, aa, ab, …: names that need no quotes anywhere."""
    yield from ascii_lowercase
    for start in _short_names():
        yield from (start + sign for sign in SIGNS)
