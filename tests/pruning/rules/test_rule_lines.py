"""Lines of the original code: ``name,ratio;ratio,importance,``."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_compress.errors import RuleError
from lit_compress.pruning.rules.rule import Rule
from lit_compress.pruning.rules.rule_lines import read_lines

PATH = Path("rules/net.rule")


def test_lines_are_rules_with_their_place() -> None:
    text = (
        "\ufefffeatures.0.weight,0.35;0.35,l2norm,\r\n"
        "\n"
        "# a comment\n"
        "  classifier.1.weight , 0.3 ; 0.5 ; 1 , abs\n"
        "fc.weight,.5,None,\n"
        "a.weight,0,l1norm,\n"
        "b.weight,7e-2,default,"
    )
    rules = read_lines(PATH, text.encode())
    share = Fraction(35, 100)
    stages = (Fraction(3, 10), Fraction(1, 2), Fraction(1))
    assert rules == (
        Rule("features.0.weight", share, f"{PATH}:1", "filter", "l2", (share, share), True),
        Rule("classifier.1.weight", Fraction(1), f"{PATH}:4", "element", "abs", stages, True),
        Rule("fc.weight", Fraction(1, 2), f"{PATH}:5", "element", "abs", (), True),
        Rule("a.weight", Fraction(0), f"{PATH}:6", "filter", "l1", (), True),
        Rule("b.weight", Fraction(7, 100), f"{PATH}:7", "element", "abs", (), True),
    )


BAD = {
    "a,0.5,abs,\nb,0.5\n": (2, "expected 'name,ratio;ratio,importance,', got 2 fields: 'b,0.5'"),
    "a": (1, "got 1 fields"),
    "a,0.5,abs,x": (1, "got 4 fields"),
    "a,0.5,abs,,": (1, "got 5 fields"),
    ",0.5,abs,": (1, "got an empty name"),
    "a,much,abs,": (1, r"ratio must be a number in \[0, 1\], got 'much'"),
    "a,,abs,": (1, "got ''"),
    f"a,{'9x' * 40},abs,": (1, f"got '{'9x' * 20}'"),
    "a,0.5;,abs,": (1, "got ''"),
    "a,nan,abs,": (1, "got 'nan'"),
    "a,0.5;NaN,abs,": (1, "got 'NaN'"),
    "a,inf,abs,": (1, "got 'inf'"),
    "a,1.01,abs,": (1, "got '1.01'"),
    "a,-0.1,abs,": (1, "got '-0.1'"),
    "a,0.5;0.4,abs,": (1, "ratios of the stages fall from 0.5 to 0.4"),
    "a,0.5,l3norm,": (1, "importance must be one of abs, None, default, l2norm, l1norm, got 'l3no"),
    "a,0.5,,": (1, "importance must be one of .*got ''"),
    "regex:(,0.5,abs,": (1, "a line takes a name or a glob"),
    "": (1, "the file has no rules"),
    "# only\n\n": (1, "the file has no rules"),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_line_is_named_by_file_and_line(text: str) -> None:
    line, message = BAD[text]
    with pytest.raises(RuleError, match=rf"^{PATH}:{line}: .*{message}"):
        read_lines(PATH, text.encode())


def test_bytes_that_are_no_text_are_named_by_line() -> None:
    with pytest.raises(RuleError, match=rf"^{PATH}:2: this is not UTF-8 text"):
        read_lines(PATH, b"a,0.5,abs,\n\xff,0.5,abs,\n")


@given(st.binary(max_size=40) | st.text("a,;.05nae-bs\n ", max_size=30).map(str.encode))
def test_anything_else_is_rules_or_a_rule_error_of_one_line(content: bytes) -> None:
    try:
        rules = read_lines(PATH, content)
    except RuleError as error:
        message = str(error)
        assert message.startswith(f"{PATH}:")
        assert "\n" not in message
    else:
        assert all(0 <= share <= 1 for rule in rules for share in (*rule.stages, rule.ratio))
