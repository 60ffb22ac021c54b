from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from lit_compress.errors import ChannelError, InvalidArgumentError, PatternError, RuleError
from lit_compress.pruning.blocks.block import Block, BlockGraph
from lit_compress.pruning.blocks.eligible import check_reachable, eligible_blocks
from lit_compress.pruning.rules.files import read_rules

NAMES = ("net.1", "net.2", "head.mlp")
BLOCKS = {n: Block(n, {n: "identity", f"{n}.norm": "identity"}, 100) for n in NAMES}
GRAPH = BlockGraph(BLOCKS, {"net.0": "changes the shape"}, 1000)


def test_patterns_keep_blocks_with_the_reason() -> None:
    found = eligible_blocks(GRAPH, ["net.*"], ["regex:net[.]2"])
    assert list(found.blocks) == ["net.1"]
    assert found.kept == {
        "net.2": "is excluded",
        "head.mlp": "is not included",
        "net.0": "changes the shape",
    }


def test_a_pattern_of_a_module_that_goes_names_its_block() -> None:
    assert "head.mlp" not in eligible_blocks(GRAPH, exclude=["head.mlp.norm"]).blocks


def test_a_pattern_of_a_block_that_stays_anyway_is_allowed() -> None:
    assert eligible_blocks(GRAPH, exclude=["net.0"]).blocks == GRAPH.blocks


def test_rules_keep_blocks(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text('- {pattern: "head.*", skip: true}\n')
    found = eligible_blocks(GRAPH, rules=read_rules(path))
    assert found.kept["head.mlp"].startswith("a rule says so")
    path.write_text('- {pattern: "tail.*", skip: true}\n')
    with pytest.raises(RuleError, match="matches no block; names of blocks look like"):
        eligible_blocks(GRAPH, rules=read_rules(path))


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(PatternError, match=r"exclude: the pattern 'nett.1'.*net.1"):
        eligible_blocks(GRAPH, exclude=["nett.1"])


def test_no_block_says_what_was_looked_at() -> None:
    with pytest.raises(
        ChannelError, match=r"Looked at: net.1 is excluded; .*net.0 changes the shape"
    ):
        eligible_blocks(GRAPH, exclude=["*"])
    with pytest.raises(ChannelError, match="no module of the network adds a branch to its input"):
        eligible_blocks(BlockGraph({}))


def test_the_floor_of_a_target_is_said() -> None:
    check_reachable(GRAPH, "parameters", Fraction(3, 10))
    with pytest.raises(InvalidArgumentError, match=r"target 0.31 of parameters .* 0.300 of them"):
        check_reachable(GRAPH, "parameters", Fraction(31, 100))
    with pytest.raises(InvalidArgumentError, match=r"target 0.04 .* removes no block: .* 0.100"):
        check_reachable(GRAPH, "parameters", Fraction(4, 100))
    check_reachable(GRAPH, "parameters", Fraction(0))
