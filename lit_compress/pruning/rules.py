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
#: A rule is a mapping in a list.
DEEPEST = 8

_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


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
    text = _bytes(path)
    try:
        _refuse_what_rules_never_hold(path, text)
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RuleError(f"{path}:{_line(error, text)}: this is not YAML: {_said(error)}") from error
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


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise RuleError(f"there is no rule file {path.absolute()}")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise RuleError(f"the rule file {path} cannot be read: {error.strerror}") from error
    if len(text) > LARGEST:
        raise RuleError(f"{path} is larger than {LARGEST} bytes: it is no rule file")
    return text


def _refuse_what_rules_never_hold(path: Path, text: bytes) -> None:
    """Stop before anything is built of it, which for deep nesting would exhaust the stack."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        place = f"{path}:{token.start_mark.line + 1}"
        if isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)):
            raise RuleError(
                f"{place}: tags, anchors and aliases are not read; put quotes around a pattern "
                "that starts with *, & or !"
            )
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST:
            raise RuleError(f"{place}: nested too deeply for a list of rules")


def _line(error: yaml.YAMLError, text: bytes) -> int:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    return text[: getattr(error, "position", 0)].count(b"\n") + 1


def _said(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.character!r}: {error.reason}"
    problem = str(getattr(error, "problem", error))
    if getattr(error, "context", None) == "while scanning an alias":
        problem += "; put quotes around a pattern that starts with *"
    return problem


def _rule(path: Path, node: yaml.Node) -> Rule:
    place = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise RuleError(f"{place}: expected pattern and ratio (or skip), got {_short(node)}")
    entry: dict[str, Any] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _short(key)
        if name in entry:
            raise RuleError(f"{place}: the key {name!r} is there twice")
        if not isinstance(value, yaml.ScalarNode):
            raise RuleError(f"{place}: {name} must be a single value, not a list or mapping")
        entry[name] = _value(value)
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


def _value(node: yaml.ScalarNode) -> Any:
    """Return a plain value; what looks like a number or date to YAML but is none, as text."""
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        return str(node.value)[:40]


def _short(node: yaml.Node) -> str:
    return repr(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "something else"
