"""Rule files: what is written is read again, in both forms."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_compress.errors import RuleError
from lit_compress.pruning.rules.files import LARGEST, read_rules, write_rules
from lit_compress.pruning.rules.rule import Rule

once = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ratios = st.floats(0, 1).map(lambda value: Fraction(repr(value)))
parts = st.one_of(
    st.tuples(st.none(), st.sampled_from([None, "abs", "l1", "l2", "bn_scale", "random"])),
    st.tuples(st.just("element"), st.sampled_from([None, "abs", "l1", "l2", "random"])),
    st.tuples(
        st.sampled_from(["filter", "neuron"]),
        st.sampled_from([None, "l1", "l2", "bn_scale", "taylor", "fpgm", "random"]),
    ),
)
stages = st.lists(ratios, min_size=1, max_size=4).map(lambda given: tuple(sorted(given)))


def _rule(pattern: str, part: tuple[str, str], several: tuple[Fraction, ...], listed: bool) -> Rule:
    return Rule(pattern, several[-1], "", *part, several if listed else ())  # type: ignore[arg-type]


# A pattern is text that UTF-8 can hold; one that starts with regex: must be an expression.
patterns = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: not text.startswith("regex:")
)
rules = st.builds(_rule, patterns, parts, stages, st.booleans())


def same(read: tuple[Rule, ...], written: list[Rule]) -> bool:
    return [(r.pattern, r.ratio, r.granularity, r.importance, r.stages) for r in read] == [
        (r.pattern, r.ratio, r.granularity, r.importance, r.stages) for r in written
    ]


@once
@given(st.lists(rules, min_size=1, max_size=4))
def test_yaml_comes_back_as_it_was(tmp_path: Path, written: list[Rule]) -> None:
    path = write_rules(written, tmp_path / "rules.yaml")
    assert same(read_rules(path), written)


@pytest.mark.parametrize("ratio", [1e-5, 1.5e-07, 1e-300, 0.1 + 0.2, 1.0, 0.0, 1 / 3])
def test_a_ratio_of_many_digits_is_still_a_number(tmp_path: Path, ratio: float) -> None:
    """1e-05 without a dot is text in YAML: it was written so, and could not be read."""
    share = Fraction(repr(ratio))
    for name in ("rules.yaml", "net.rule"):
        path = write_rules([Rule("a", share, "", "element", "abs")], tmp_path / name)
        assert read_rules(path)[0].ratio == share


def test_skip_notes_and_head(tmp_path: Path) -> None:
    written = [Rule("a", None, ""), Rule("b", Fraction(1, 2), "", "element")]
    notes = {"": "above\nall", "b": "loses\n- {pattern: c}"}
    path = write_rules(written, tmp_path / "rules.yaml", notes)
    assert path.read_text().splitlines() == [
        "# above",
        "# all",
        '- {pattern: "a", skip: true}',
        '- {pattern: "b", granularity: element, ratio: 0.5}  # loses - {pattern: c}',
    ]
    assert same(read_rules(path), written)


def test_the_line_of_the_original_code_comes_back_letter_by_letter(tmp_path: Path) -> None:
    text = "classifier.1.weight,0.3;0.3,abs,\nfeatures.0.weight,0.35;0.5,l2norm,\n"
    (tmp_path / "net.rule").write_text(text)
    found = read_rules(tmp_path / "net.rule")
    assert write_rules(found, tmp_path / "again.rule").read_text() == text
    assert same(read_rules(tmp_path / "again.rule"), list(found))


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("features.0", True),
        ("model.features.0", True),
        ("my_features.0", False),
        ("features.10", False),
        ("features-0", False),
    ],
)
def test_a_line_put_as_yaml_names_the_same_layers(tmp_path: Path, layer: str, named: bool) -> None:
    """Names of lines may start after any dot; as a plain glob in YAML they named nothing."""
    for pattern in ("features.0.weight", "features.?.weight"):
        (tmp_path / "net.rule").write_text(f"{pattern},0.3,l2norm,\n")
        (line,) = read_rules(tmp_path / "net.rule")
        (rule,) = read_rules(write_rules([line], tmp_path / "rules.yaml"))
        assert line.names(layer) == rule.names(layer) == named
        assert (rule.ratio, rule.granularity, rule.importance) == (Fraction(3, 10), "filter", "l2")


@once
@given(
    st.text("abc.012*?[]_", min_size=1, max_size=12),
    stages,
    st.booleans(),
    st.sampled_from([("element", "abs"), ("filter", "l1"), ("filter", "l2")]),
)
def test_lines_come_back_as_they_were(
    tmp_path: Path, pattern: str, several: tuple[Fraction, ...], listed: bool, part: tuple[str, str]
) -> None:
    if not listed or len(several) == 1:
        several, listed = several[-1:], False
    written = [_rule(pattern, part, several, listed)]
    found = read_rules(write_rules(written, tmp_path / "net.rule"))
    assert same(found, written)
    assert found[0].anywhere


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("a", Fraction(1), "", "neuron", "l2"), "neuron, importance l2"),
        (Rule("a", Fraction(1), "", "filter", "taylor"), "filter, importance taylor"),
        (Rule("a", Fraction(1), "", "element", "random"), "element, importance random"),
        (Rule("*", Fraction(1), "", None, "l2"), "granularity not given"),
        (Rule("regex:a", Fraction(1), "", "element"), "regex:a"),
        (Rule("a,b", Fraction(1), "", "element"), "a,b"),
        (Rule("#a", Fraction(1), "", "element"), "#a"),
        (Rule(" a", Fraction(1), "", "element"), " a"),
    ],
)
def test_what_no_line_can_say_is_refused(tmp_path: Path, rule: Rule, why: str) -> None:
    with pytest.raises(RuleError, match=rf"{why}.* cannot be written as a line.*write a \.yaml"):
        write_rules([rule], tmp_path / "net.rule")
    assert not list(tmp_path.iterdir())


def test_skip_is_a_line_that_prunes_nothing(tmp_path: Path) -> None:
    path = write_rules([Rule("a", None, "")], tmp_path / "net.rule")
    assert path.read_text() == "a,0.0,abs,\n"


def test_a_file_of_a_mebibyte_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    """Whatever is larger is some other file, such as a checkpoint."""
    path, line = tmp_path / "net.rule", b"a,0.5,abs,\n#"
    path.write_bytes(line.ljust(LARGEST, b"x"))
    assert len(read_rules(path)) == 1
    path.write_bytes(line.ljust(LARGEST + 1, b"x"))
    with pytest.raises(RuleError, match="larger than 1048576 bytes, so it is not a rule file"):
        read_rules(path)
