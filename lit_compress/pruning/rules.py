"""Rule files: the share that single layers lose, in place of the common one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from lit_compress.errors import RuleError
from lit_compress.pruning.layers import matches, no_match

KEYS = ("pattern", "ratio", "skip")
#: A rule file of a megabyte would hold tens of thousands of layers.
LARGEST = 1 << 20


@dataclass(frozen=True)
class Rule:
    """What the layers of a pattern lose.

    Attributes:
        pattern: Glob of layer or weight names.
        ratio: Share of the filters removed in the end, in [0, 1); None leaves the layers alone.
        place: File and line, for messages.
    """

    pattern: str
    ratio: Fraction | None
    place: str


def read_rules(path: str | Path) -> tuple[Rule, ...]:
    """Read a YAML rule file: a list of entries with ``pattern`` and either ``ratio`` or ``skip``.

    Args:
        path: The file, such as::

            - {pattern: "model.features.*", ratio: 0.5}
            - {pattern: "model.classifier.*", skip: true}

    Raises:
        RuleError: If it is missing, or an entry is wrong; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise RuleError(f"there is no rule file {path.resolve()}")
    text = path.read_bytes()[: LARGEST + 1]
    if len(text) > LARGEST:
        raise RuleError(f"{path} is larger than {LARGEST} bytes: it is no rule file")
    try:
        for token in yaml.scan(text, yaml.SafeLoader):
            if isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)):
                raise RuleError(
                    f"{path}:{token.start_mark.line + 1}: tags, anchors and aliases are not read"
                )
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RuleError(
            f"{path}{line}: this is not YAML: {getattr(error, 'problem', error)}"
        ) from error
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise RuleError(
            f"{path}:1: expected a list of rules, such as '- {{pattern: \"*\", ratio: 0.5}}'"
        )
    return tuple(_rule(path, node) for node in root.value)


def first_match(rules: Sequence[Rule], layers: Iterable[str]) -> Rule | None:
    """Return the first rule that matches one of some layers."""
    names = list(layers)
    return next((r for r in rules if any(matches(r.pattern, name) for name in names)), None)


def check_rules(rules: Sequence[Rule], layers: Iterable[str]) -> None:
    """Make sure that each rule matches a layer.

    Raises:
        RuleError: If one does not.
    """
    names = list(layers)
    for rule in rules:
        if not any(matches(rule.pattern, name) for name in names):
            raise RuleError(no_match(rule.pattern, names, rule.place))


def _rule(path: Path, node: yaml.Node) -> Rule:
    place = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise RuleError(f"{place}: expected pattern and ratio (or skip), got {_short(node)}")
    entry: dict[str, Any] = {
        key.value: yaml.SafeLoader("").construct_object(value, deep=True)
        for key, value in node.value
    }
    surplus = [key for key in entry if key not in KEYS]
    if surplus:
        raise RuleError(f"{place}: there is no key {surplus[0]!r}; a rule has {', '.join(KEYS)}")
    pattern, ratio, skip = entry.get("pattern"), entry.get("ratio"), entry.get("skip", False)
    if not isinstance(pattern, str) or not pattern:
        raise RuleError(f"{place}: pattern must be a glob of layer names, got {pattern!r}")
    if not isinstance(skip, bool):
        raise RuleError(f"{place}: skip must be true or false, got {skip!r}")
    if skip == (ratio is not None):
        raise RuleError(f"{place}: give either ratio or skip: true, not both or neither")
    if skip:
        return Rule(pattern, None, place)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
        raise RuleError(f"{place}: ratio must be a number in [0, 1), got {ratio!r}")
    return Rule(pattern, Fraction(repr(float(ratio))), place)


def _short(node: yaml.Node) -> str:
    return repr(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "something else"
