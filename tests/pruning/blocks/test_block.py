from __future__ import annotations

from typing import Any

import pytest

from lit_compress.errors import PlanError
from lit_compress.pruning.blocks.block import Block, BlockGraph

INNER = Block("a.b", {"a.b": "relu"}, 30, 300, 2)
OUTER = Block("a", {"a": "identity"}, 100, 900, 5)
PART = Block("c.mlp", {"c.norm": "identity", "c.mlp": "zero"}, 10, 50, 3)
GRAPH = BlockGraph({b.name: b for b in (INNER, OUTER, PART)}, {"d": "is excluded"}, 200, 2000, 20)


def test_what_is_within_another_block_counts_once() -> None:
    assert INNER.is_within(OUTER)
    assert not OUTER.is_within(INNER)
    assert not INNER.is_within(INNER)
    assert GRAPH.saved(["a", "a.b"], "parameters") == GRAPH.saved(["a"], "parameters") == 100
    assert GRAPH.saved(["a.b", "c.mlp"], "macs") == 350
    assert GRAPH.saved(["a", "c.mlp"], "nodes") == 8
    assert GRAPH.with_inner(["a"]) == {"a", "a.b"}
    assert GRAPH.saved(["a"], "blocks") == 2


def test_totals() -> None:
    assert [GRAPH.total(of) for of in ("blocks", "parameters", "macs", "nodes")] == [
        3,
        200,
        2000,
        20,
    ]


def test_it_comes_back_from_plain_values() -> None:
    found = BlockGraph.from_dict(GRAPH.to_dict())
    assert found.blocks == GRAPH.blocks
    assert (found.parameters, found.macs, found.nodes) == (200, 2000, 20)
    assert not found.kept


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"blocks": 3, "total": [1, 1, 1]},
        {"blocks": [["a"]], "total": [1, 1, 1]},
        {"blocks": [["a", {}, -1, 0, 0]], "total": [1, 1, 1]},
        {"blocks": [["a", {}, True, 0, 0]], "total": [1, 1, 1]},
        {"blocks": [], "total": [1, 1]},
        {"blocks": [], "total": [1.5, 1, 1]},
    ],
)
def test_damaged_content_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="damaged"):
        BlockGraph.from_dict(content)
