"""Rule lines as the original code of arXiv 2001.04850 writes them.

One line is ``name,ratio;ratio,importance,``.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from lit_compress.errors import RuleError
from lit_compress.pruning.layers import REGEX
from lit_compress.pruning.rules.rule import Granularity, Rule

#: Importances of the original code, as granularity and importance of this package.
KNOWN: dict[str, tuple[Granularity, str]] = {
    "abs": ("element", "abs"),
    "None": ("element", "abs"),
    "default": ("element", "abs"),
    "l2norm": ("filter", "l2"),
    "l1norm": ("filter", "l1"),
}
NEWLINE = b"\n"
EXPECTED = "expected 'name,ratio;ratio,importance,'"


def read_lines(path: Path, content: bytes) -> tuple[Rule, ...]:
    """Read rule lines; the names may lack the prefix of a module that wraps the network now.

    Args:
        path: Path of the file, for messages.
        content: Content of the file.

    Raises:
        RuleError: If a line is wrong; the message names file and line.
    """
    rules = []
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        place = f"{path}:{content[: error.start].count(NEWLINE) + 1}"
        raise RuleError(f"{place}: this is not UTF-8 text: save the file as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            rules.append(_rule(line.strip(), f"{path}:{number}"))
    if not rules:
        raise RuleError(f"{path}:1: the file has no rules: {EXPECTED} on each line")
    return tuple(rules)


def line_of(rule: Rule) -> str:
    """Return a rule as a line of the original code.

    Raises:
        RuleError: If the original code has no such rule.
    """
    kind = rule.granularity
    word = {"abs": "abs", "l1": "l1norm", "l2": "l2norm"}.get(rule.importance or "", "")
    if kind == "element" and rule.importance in (None, "abs", "l1", "l2"):
        word = "abs"
    elif kind == "filter" and rule.importance is None:
        word = "l2norm"
    ambiguous = any(sign in rule.pattern for sign in ",;\n#") or rule.pattern.startswith(REGEX)
    ambiguous |= rule.pattern != rule.pattern.strip()
    if rule.ratio is None:
        return line_of(Rule(rule.pattern, Fraction(0), rule.place, "element"))
    if kind not in ("element", "filter") or not word or ambiguous:
        raise RuleError(
            f"the rule for {rule.pattern!r} (granularity {kind or 'not given'}, importance "
            f"{rule.importance or 'not given'}) cannot be written as a line of the original code: "
            "write a .yaml file"
        )
    ratios = ";".join(str(float(stage)) for stage in rule.stages or (rule.ratio,))
    return f"{rule.pattern},{ratios},{word},"


def _rule(line: str, place: str) -> Rule:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) == 4 and not fields[-1]:
        fields.pop()
    if len(fields) != 3:
        raise RuleError(f"{place}: {EXPECTED}, got {len(fields)} fields: {line[:60]!r}")
    name, ratios, word = fields
    if not name:
        raise RuleError(f"{place}: {EXPECTED}, got an empty name")
    if name.startswith(REGEX):
        raise RuleError(
            f"{place}: a line takes a name or a glob: write a .yaml file for {name[:40]!r}"
        )
    if word not in KNOWN:
        raise RuleError(f"{place}: importance must be one of {', '.join(KNOWN)}, got {word[:40]!r}")
    stages = tuple(ratio_of(part.strip(), place) for part in ratios.split(";"))
    refuse_falling(stages, place)
    granularity, importance = KNOWN[word]
    return Rule(
        pattern=name,
        ratio=stages[-1],
        place=place,
        granularity=granularity,
        importance=importance,  # type: ignore[arg-type]
        stages=stages if len(stages) > 1 else (),
        anywhere=True,
    )


def ratio_of(value: object, place: str) -> Fraction:
    """Return a ratio as a fraction of exactly the decimal that was written.

    Raises:
        RuleError: If it is not a number in [0, 1].
    """
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise TypeError
        ratio = Fraction(repr(float(value)))
    except (TypeError, ValueError, OverflowError):  # text, NaN and infinity
        ratio = Fraction(-1)
    if not 0 <= ratio <= 1:
        raise RuleError(f"{place}: ratio must be a number in [0, 1], got {_abbreviated(value)}")
    return ratio


def refuse_falling(stages: tuple[Fraction, ...], place: str) -> None:
    """Check that no stage is below the one before, since pruned weights stay pruned.

    Raises:
        RuleError: If a stage is.
    """
    for before, after in pairwise(stages):
        if after < before:
            raise RuleError(
                f"{place}: the ratios of the stages fall from {float(before):g} to "
                f"{float(after):g}; each must be at least the one before"
            )


def _abbreviated(value: object) -> str:
    text = str(value)[:40]
    return repr(text) if isinstance(value, str) else text
