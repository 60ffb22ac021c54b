"""The graph of a file against what the onnx package reads."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser

from lit_compress.files.onnx_graph import output_names, read_graph, with_outputs

EXAMPLE = Path(__file__).parents[2] / "examples/digits_int8/model.onnx"


def test_nodes_and_tensors_are_those_that_onnx_reads() -> None:
    content = EXAMPLE.read_bytes()
    found, graph = read_graph(content), onnx.load_from_string(content).graph
    assert [node.operator for node in found.nodes] == [node.op_type for node in graph.node]
    assert [node.inputs for node in found.nodes] == [tuple(node.input) for node in graph.node]
    assert [node.outputs for node in found.nodes] == [tuple(node.output) for node in graph.node]
    stored = {t.name: (tuple(t.dims), t.data_type) for t in graph.initializer}
    constants = {o for node in graph.node if node.op_type == "Constant" for o in node.output}
    read = {name: (t.shape, t.kind) for name, t in found.stored.items()}
    assert {name: read[name] for name in stored} == stored
    assert set(read) - set(stored) <= constants
    assert output_names(content) == tuple(output.name for output in graph.output)


def test_convolutions_of_an_int8_file_are_quantised() -> None:
    graph = read_graph(EXAMPLE.read_bytes())
    convs = [node for node in graph.nodes if node.operator == "Conv"]
    assert len(convs) == 56
    assert all(graph.is_quantised(name) for node in convs for name in node.inputs[:2])
    weights = [graph.weight(node.inputs[1]) for node in convs]
    assert {weight.kind for weight in weights if weight is not None} == {onnx.TensorProto.INT8}


def test_further_outputs_are_outputs_for_onnx() -> None:
    content = EXAMPLE.read_bytes()
    name = next(n.outputs[0] for n in read_graph(content).nodes if n.operator == "Conv")
    more = onnx.load_from_string(with_outputs(content, [name])).graph
    assert [output.name for output in more.output] == ["output", name]
    assert len(more.node) == len(read_graph(content).nodes)


def test_the_table_that_token_numbers_are_places_in() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        net (int64[batch, 3] ids, int64[batch, 3] mask) => (float[batch, 3, 2] y)
        <float[5, 2] table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
        { moved = Identity(ids) found = Gather(table, moved) m = Cast<to = 1>(mask)
          wide = Reshape(m, shape) y = Mul(found, wide) }
    """)
    graph = read_graph(model.SerializeToString())
    assert graph.rows_read_by("ids") == 5
    assert graph.rows_read_by("mask") is None
