"""Which blocks may be removed, by the patterns of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fractions import Fraction

from lit_compress.errors import ChannelError, InvalidArgumentError, PatternError, RuleError
from lit_compress.pruning.blocks.block import Block, BlockGraph, OfBlocks
from lit_compress.pruning.layers import matches
from lit_compress.pruning.rules.rule import Rule

#: Most reasons in a message.
MOST = 6


def eligible_blocks(
    graph: BlockGraph,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    rules: Sequence[Rule] = (),
) -> BlockGraph:
    """Return the blocks that may be removed; the others are kept, with the reason.

    Args:
        graph: The blocks of a network.
        include: Patterns of block names.
        exclude: Patterns of block names.
        rules: Rules that keep blocks.

    Raises:
        PatternError: If a pattern matches no block.
        RuleError: If a rule matches none.
        ChannelError: If no block may be removed.

    Example:
        >>> graph = BlockGraph({name: Block(name, {name: "identity"}) for name in ("a", "b")})
        >>> left = eligible_blocks(graph, exclude=["a"])
        >>> list(left.blocks), left.kept
        (['b'], {'a': 'is excluded'})
    """
    if not graph.blocks:
        raise ChannelError(f"no block can be removed: {_reasons(graph)}")
    kept: dict[str, str] = {}
    included = _matching(include, graph, "include")
    excluded = _matching(exclude, graph, "exclude")
    for name in graph.blocks:
        rule = next((r for r in rules if _names(r, graph.blocks[name])), None)
        if name in excluded or name not in included:
            kept[name] = "is excluded" if name in excluded else "is not included"
        elif rule is not None:
            kept[name] = f"a rule says so ({rule.place})"
    for rule in rules:
        if not any(_names(rule, block) for block in graph.blocks.values()):
            raise RuleError(f"{rule.place}: {_no_match(rule.pattern, graph)}")
    left = {name: block for name, block in graph.blocks.items() if name not in kept}
    found = replace(graph, blocks=left, kept={**kept, **graph.kept})
    if not left:
        raise ChannelError(f"no block can be removed: {_reasons(found)}")
    return found


def check_reachable(graph: BlockGraph, of: OfBlocks, target: Fraction) -> None:
    """Check that a share can be removed, and that it is one block at least.

    Args:
        graph: The blocks that may be removed.
        of: What the share is of.
        target: The share.

    Raises:
        InvalidArgumentError: If it cannot be.
    """
    total = graph.total(of)
    most = Fraction(graph.saved(list(graph.blocks), of), max(1, total))
    if target > most:
        raise InvalidArgumentError(
            f"target {float(target):g} of {of} cannot be reached: all {len(graph.blocks)} blocks "
            f"that may be removed have {float(most):.3f} of them; lower target, or let more blocks "
            f"go (include, exclude, rules). {_reasons(graph)}"
        )
    smallest = min(graph.saved([name], of) for name in graph.blocks)
    if target and smallest >= 2 * target * total:
        raise InvalidArgumentError(
            f"target {float(target):g} of {of} removes no block: the smallest has "
            f"{smallest / max(1, total):.3f} of them; raise target"
        )


def _matching(patterns: Iterable[str], graph: BlockGraph, argument: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name, block in graph.blocks.items() if _matches(pattern, block)}
        if not matched and not any(matches(pattern, name) for name in graph.kept):
            raise PatternError(f"{argument}: {_no_match(pattern, graph)}")
        found |= matched
    return found


def _matches(pattern: str, block: Block) -> bool:
    """Tell whether a pattern matches the name of a block, or of a module that goes with it."""
    return any(matches(pattern, name) for name in (block.name, *block.kinds))


def _names(rule: Rule, block: Block) -> bool:
    return any(rule.names(name) for name in (block.name, *block.kinds))


def _no_match(pattern: str, graph: BlockGraph) -> str:
    names = list(graph.blocks)
    similar = get_close_matches(pattern, names, 3, 0.5) or names
    listed = ", ".join(similar[:4]) + (" ..." if len(similar) > 4 else "")
    return (
        f"the pattern {pattern!r} matches no block; names of blocks look like: "
        f"{listed or '(the network has none)'}"
    )


def _reasons(graph: BlockGraph) -> str:
    if not graph.kept:
        return "no module of the network adds a branch to its input"
    rows = [f"{name or 'the network itself'} {why}" for name, why in graph.kept.items()]
    more = f"; and {len(rows) - MOST} more" if len(rows) > MOST else ""
    return f"Looked at: {'; '.join(rows[:MOST])}{more}"
