"""Read and write rule files: YAML, or lines in the format of the paper's original code."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import inf
from pathlib import Path

import yaml

from lit_compress.errors import RuleError
from lit_compress.files import write_whole
from lit_compress.pruning.layers import REGEX
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.rules.rule_lines import line_of, read_lines
from lit_compress.pruning.rules.yaml_format import read_yaml

#: Suffix of files with lines of the original code instead of YAML.
LINES = ".rule"
#: Largest size of a rule file in bytes: enough for tens of thousands of layers.
LARGEST = 1 << 20


def read_rules(path: str | Path, ratio: Fraction | None = None) -> tuple[Rule, ...]:
    """Read a rule file: YAML, or lines of the original code if the name ends with ``.rule``.

    Args:
        path: The rule file. An example in YAML::

                - {pattern: "model.features.*", ratio: 0.5}
                - {pattern: "regex:model[.]head[.][0-9]", granularity: element, ratio: [0.3, 0.5]}
                - {pattern: "model.classifier.*", skip: true}

            A line has a name, ratios by stage and an importance (``abs`` for elements, ``l2norm``
            for filters)::

                features.0.weight,0.3;0.5,l2norm,
        ratio: Ratio, in [0, 1], of YAML rules that give none; None: each rule must give one.

    Returns:
        The rules in the order of the file.

    Raises:
        RuleError: If the file is missing, or an entry is wrong; the message names file and line.
    """
    if not isinstance(path, (str, Path)):
        raise RuleError(f"rules must be the path of a rule file, got {path!r}")
    path = Path(path)
    content = _bytes(path)
    if path.suffix == LINES:
        return read_lines(path, content)
    return read_yaml(path, content, ratio)


def write_rules(
    rules: Sequence[Rule], path: str | Path, comments: Mapping[str, str] | None = None
) -> Path:
    """Write a rule file that :func:`read_rules` can read; a reader never sees half a file.

    Args:
        rules: The rules.
        path: The file; if its name ends with ``.rule``, lines of the original code are written.
        comments: By pattern, a comment next to its rule; by ``""``, a comment at the top of the
            file. Only for YAML. Default: none.

    Returns:
        Path of the file.

    Raises:
        RuleError: If a rule cannot be written as a line of the original code.
        OSError: If the file cannot be written.
    """
    path, notes = Path(path), comments or {}
    if path.suffix == LINES:
        lines = [line_of(rule) for rule in rules]
    else:
        lines = [f"# {line}" for line in notes.get("", "").splitlines()]
        lines += [_yaml_line(rule) + _comment(notes.get(rule.pattern)) for rule in rules]
    return write_whole(path, "".join(f"{line}\n" for line in lines))


def _yaml_line(rule: Rule) -> str:
    pattern = _anywhere(rule.pattern) if rule.anywhere else rule.pattern
    quoted = yaml.safe_dump(pattern, default_style='"', width=inf).rstrip("\n")
    parts = {"pattern": quoted}
    if rule.ratio is None:
        parts["skip"] = "true"
    else:
        if rule.granularity is not None:
            parts["granularity"] = rule.granularity
        if rule.importance is not None:
            parts["importance"] = rule.importance
        stages = ", ".join(_number(stage) for stage in rule.stages)
        parts["ratio"] = f"[{stages}]" if stages else _number(rule.ratio)
    return "- {" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"


def _anywhere(pattern: str) -> str:
    """Return a pattern that matches after any dot of a name, without ``Rule.anywhere``."""
    if pattern.startswith(REGEX):
        return pattern
    is_glob = bool(set(pattern) & set("*?["))
    return f"{REGEX}(.*[.])?{fnmatch.translate(pattern) if is_glob else re.escape(pattern)}"


def _number(share: Fraction) -> str:
    """Return a share as a YAML number; YAML reads 1e-05 without a dot as text."""
    text = repr(float(share))
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _comment(text: str | None) -> str:
    return f"  # {' '.join(text.split())}" if text else ""


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise RuleError(f"there is no rule file {path.absolute()}")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise RuleError(f"the rule file {path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise RuleError(
            f"{path} is larger than {LARGEST} bytes, so it is not a rule file: check the path"
        )
    return content
