"""Rules in YAML: a list of mappings; anything else is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import yaml

from lit_compress.errors import PatternError, RuleError
from lit_compress.pruning.importance import ImportanceName
from lit_compress.pruning.layers import REGEX, expression
from lit_compress.pruning.rules.rule import ElementImportance, Granularity, Rule
from lit_compress.pruning.rules.rule_lines import ratio_of, refuse_falling

KEYS = ("pattern", "granularity", "importance", "ratio", "skip")
#: Deepest nesting: a rule is a mapping in a list, and may contain a list of ratios.
DEEPEST = 8

_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_yaml(path: Path, content: bytes, ratio: Fraction | None) -> tuple[Rule, ...]:
    """Read rules in YAML: a list of entries with ``pattern`` and either ``ratio`` or ``skip``.

    Args:
        path: Path of the file, for messages.
        content: Content of the file.
        ratio: Ratio of entries that give none; None: each entry must give one.

    Raises:
        RuleError: If an entry is wrong; the message names file and line.
    """
    try:
        _check_tokens(path, content)
        root = yaml.compose(content, yaml.SafeLoader)
    except yaml.YAMLError as error:
        line = _line(error, content)
        raise RuleError(f"{path}:{line}: this is not YAML: {_problem(error)}") from error
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise RuleError(
            f"{path}:1: expected a list of rules, such as '- {{pattern: \"*\", ratio: 0.5}}'"
        )
    return tuple(_rule(f"{path}:{node.start_mark.line + 1}", node, ratio) for node in root.value)


def _check_tokens(path: Path, content: bytes) -> None:
    """Refuse tags, anchors and deep nesting before parsing, since they can exhaust the stack."""
    depth = 0
    for token in yaml.scan(content, yaml.SafeLoader):
        place = f"{path}:{token.start_mark.line + 1}"
        if isinstance(token, (yaml.AliasToken, yaml.AnchorToken, yaml.TagToken)):
            raise RuleError(
                f"{place}: tags, anchors and aliases are not supported: put quotes around a "
                "pattern that starts with *, & or !"
            )
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > DEEPEST:
            raise RuleError(
                f"{place}: nested too deeply for a list of rules: expected mappings in a list"
            )


def _line(error: yaml.YAMLError, content: bytes) -> int:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    return content[: getattr(error, "position", 0)].count(b"\n") + 1


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.character!r}: {error.reason}"
    problem = str(getattr(error, "problem", error))
    if getattr(error, "context", None) == "while scanning an alias":
        problem += ": put quotes around a pattern that starts with *"
    return problem


def _rule(place: str, node: yaml.Node, default: Fraction | None) -> Rule:
    entry = _entry(place, node)
    pattern, skip = entry.get("pattern"), entry.get("skip", False)
    if not isinstance(pattern, str) or not pattern:
        raise RuleError(f"{place}: pattern must be a glob of layer names, got {pattern!r}")
    if pattern.startswith(REGEX):
        try:
            expression(pattern)
        except PatternError as error:
            raise RuleError(f"{place}: {error}") from error
    if not isinstance(skip, bool):
        raise RuleError(f"{place}: skip must be true or false, got {skip!r}")
    ratio = entry.get("ratio")
    if ratio is None and not skip:
        ratio = default
    if skip == (ratio is not None):
        raise RuleError(f"{place}: give either ratio or skip: true, and not both")
    granularity = _one_of(place, entry, "granularity", get_args(Granularity))
    names = dict.fromkeys((*get_args(ElementImportance), *get_args(ImportanceName)))
    if granularity is not None:
        kind = ElementImportance if granularity == "element" else ImportanceName
        names = dict.fromkeys(get_args(kind))
    importance = _one_of(place, entry, "importance", tuple(names))
    stages = () if ratio is None else _stages(place, ratio)
    return Rule(
        pattern=pattern,
        ratio=stages[-1] if stages else None,
        place=place,
        granularity=granularity,
        importance=importance,
        stages=stages if isinstance(ratio, list) else (),
    )


def _stages(place: str, ratio: object) -> tuple[Fraction, ...]:
    if isinstance(ratio, Fraction):
        return (ratio,)
    given = ratio if isinstance(ratio, list) else [ratio]
    if not given:
        raise RuleError(f"{place}: ratio is an empty list: give one ratio for each stage")
    text = next((value for value in given if isinstance(value, str)), None)
    if text is not None:
        raise RuleError(f"{place}: ratio must be a number in [0, 1], got {text!r}")
    stages = tuple(ratio_of(value, place) for value in given)
    refuse_falling(stages, place)
    return stages


def _one_of(place: str, entry: dict[str, Any], key: str, choices: tuple[str, ...]) -> Any:
    value = entry.get(key)
    if value is not None and value not in choices:
        raise RuleError(f"{place}: {key} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _entry(place: str, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise RuleError(f"{place}: expected pattern and ratio (or skip), got {_abbreviated(node)}")
    entry: dict[str, Any] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _abbreviated(key)
        if name in entry:
            raise RuleError(f"{place}: the key {name!r} is given twice: remove one")
        entry[name] = _value(place, name, value)
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise RuleError(f"{place}: there is no key {unknown[0]!r}: a rule has {', '.join(KEYS)}")
    return entry


def _value(place: str, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    numbers = isinstance(node, yaml.SequenceNode) and all(
        isinstance(item, yaml.ScalarNode) for item in node.value
    )
    if name == "ratio" and numbers:
        return [_scalar(item) for item in node.value]
    what = (
        "a number, or a list with one number for each stage"
        if name == "ratio"
        else "a single value"
    )
    raise RuleError(f"{place}: {name} must be {what}")


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar, as text if it is an invalid number or date."""
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        return str(node.value)[:40]


def _abbreviated(node: yaml.Node) -> str:
    return repr(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "something else"
