from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_compress.errors import RuleError
from lit_compress.pruning.rules.files import LARGEST, read_rules
from lit_compress.pruning.rules.rule import Rule

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | bytes) -> Path:
        path = tmp_path / "rules.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


GOOD = """\
# comment
- {pattern: "model.features.*", ratio: 0.3}
- pattern: model.head
  skip: true

- {pattern: '*', ratio: 0}
- {pattern: b, ratio: .5, skip: false}
- {pattern: c, skip: yes, ratio: null}
"""


def test_rules_come_in_order_with_exact_shares_and_their_line(write: Write) -> None:
    path = write(GOOD)
    assert read_rules(path) == (
        Rule("model.features.*", Fraction(3, 10), f"{path}:2"),
        Rule("model.head", None, f"{path}:3"),
        Rule("*", Fraction(0), f"{path}:6"),
        Rule("b", Fraction(1, 2), f"{path}:7"),
        Rule("c", None, f"{path}:8"),
    )
    assert read_rules(str(path)) == read_rules(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_marks_of_other_editors_are_read(write: Write, encoding: str) -> None:
    text = "- pattern: é\r\n  ratio: 0.5\r\n"
    assert read_rules(write(text.encode(encoding)))[0].pattern == "é"


BAD = {
    "": (1, "expected a list of rules"),
    "# nothing\n": (1, "expected a list of rules"),
    "[]": (1, "expected a list of rules"),
    "pattern: a": (1, "expected a list of rules"),
    "0.5": (1, "expected a list of rules"),
    "- 0.5": (1, r"expected pattern and ratio \(or skip\), got '0.5'"),
    "- [a, 0.5]": (1, r"expected pattern and ratio \(or skip\), got something else"),
    "- {ratio: 0.5}": (1, "pattern must be a glob of layer names, got None"),
    "- {pattern: '', ratio: 0.5}": (1, "pattern must be a glob"),
    "- {pattern: 3, ratio: 0.5}": (1, "pattern must be a glob of layer names, got 3"),
    "- {pattern: [a], ratio: 0.5}": (1, "pattern must be a single value"),
    "- {pattern: {[a]: 1}, ratio: 0.5}": (1, "pattern must be a single value"),
    "- {[pattern]: a}": (1, "there is no key|must be a single value"),
    "- {pattern: a}": (1, "give either ratio or skip"),
    "- {pattern: a, skip: false}": (1, "give either ratio or skip"),
    "- {pattern: a, ratio: 0.5, skip: true}": (1, "give either ratio or skip"),
    "- {pattern: a, skip: 1}": (1, "skip must be true or false, got 1"),
    "- {pattern: a, skip: null}": (1, "skip must be true or false, got None"),
    "- {pattern: a, ratio: 0.5, min: 3}": (1, "there is no key 'min'"),
    "- {pattern: a, ratio: 0.5, ratio: 0.1}": (1, "'ratio' is given twice"),
    "- {pattern: a, ratio: 0.5, pattern: b}": (1, "'pattern' is given twice"),
    "- {pattern: a, ratio: 1.01}": (1, r"ratio must be a number in \[0, 1\], got 1.01"),
    "- {pattern: a, ratio: -0.1}": (1, "got -0.1"),
    "- {pattern: a, ratio: .nan}": (1, "got nan"),
    "- {pattern: a, ratio: .inf}": (1, "got inf"),
    "- {pattern: a, ratio: -.inf}": (1, "got -inf"),
    "- {pattern: a, ratio: true}": (1, "got True"),
    "- {pattern: a, ratio: '0.5'}": (1, "got '0.5'"),
    "- {pattern: a, ratio: 50%}": (1, "got '50%'"),
    "- {pattern: a, ratio: []}": (1, "ratio is an empty list: give one ratio for each"),
    "- {pattern: a, ratio: [[0.5]]}": (1, "ratio must be a number, or a list with one"),
    "- {pattern: a, ratio: {b: 1}}": (1, "ratio must be a number, or a list with one"),
    "- {pattern: a, ratio: [0.5, 2]}": (1, "got 2"),
    "- {pattern: a, ratio: [0.5, .nan]}": (1, "got nan"),
    "- {pattern: a, ratio: [0.5, much]}": (1, "got 'much'"),
    "- {pattern: a, ratio: [0.5, true]}": (1, "got True"),
    "- {pattern: a, ratio: [0.1, 0.5, 0.3]}": (1, "of the stages fall from 0.5 to 0.3"),
    "- {pattern: a, granularity: row, ratio: 0}": (1, "one of element, filter, neuron, got 'row'"),
    "- {pattern: a, granularity: [element], ratio: 0}": (1, "granularity must be a single value"),
    "- {pattern: a, importance: l3, ratio: 0}": (
        1,
        "importance must be one of abs, l1, l2, .*'l3'",
    ),
    "- {pattern: a, granularity: element, importance: fpgm, ratio: 0}": (1, "of abs, l1, l2, rand"),
    "- {pattern: a, granularity: filter, importance: abs, ratio: 0}": (1, "of l1, l2, bn_scale"),
    "- {pattern: 'regex:(', ratio: 0}": (1, r"'regex:\(' is not a valid regular expression"),
    "- {pattern: a, ratio: 0b_}": (1, "got '0b_'"),
    "- {pattern: a, ratio: 2001-99-99}": (1, "got '2001-99-99'"),
    "- {pattern: a, ratio: =}": (1, "got '='"),
    "- {pattern: a, ratio: " + "9" * 5000 + "}": (1, "got '9{40}'$"),
    "- {pattern: a, ratio: 0.5}\n- {pattern: b, ratio: 2}\n": (2, "got 2"),
    "- {pattern: a, ratio: 0.5}\n---\n- {pattern: a, ratio: 0.5}": (2, "this is not YAML"),
    "- {pattern: a\n- b": (2, "this is not YAML"),
    "- pattern: a\n\tratio: 0.5": (2, "this is not YAML"),
    "- pattern: a\n\n  ratio: *.5": (3, "put quotes around a pattern that starts with"),
    "- pattern: *.conv\n  ratio: 0.5": (1, "put quotes around a pattern that starts with"),
    "- pattern: *conv\n  ratio: 0.5": (1, "put quotes around a pattern that starts with"),
    "- &a {pattern: a, ratio: 0.5}\n- *a": (1, "tags, anchors and aliases are not supported"),
    "- {pattern: !!python/object/apply:os.getcwd [], ratio: 0.5}": (1, "tags, anchors"),
    "- {pattern: a, ratio: !!float '0.5'}": (1, "tags, anchors and aliases"),
    "- {<<: {pattern: a}, ratio: 0.5}": (1, "there is no key '<<'|single value"),
    "- a\n- \x00": (2, "this is not YAML: character 0"),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_rule_is_named_by_file_and_line(write: Write, text: str) -> None:
    path, (line, message) = write(text), BAD[text]
    with pytest.raises(RuleError, match=rf"^{path}:{line}: .*(?:{message})") as caught:
        read_rules(path)
    assert "\n" not in str(caught.value)


BOMB = "- &a [x, x]\n" + "".join(
    f"- &{new} [*{old}, *{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", [BOMB, "[" * 500_000, "- " * 3000, "{a: " * 3000])
def test_what_would_exhaust_memory_or_stack_is_refused_at_once(write: Write, text: str) -> None:
    with pytest.raises(RuleError, match=r"rules\.yaml:1: (tags|nested too deeply)"):
        read_rules(write(text))


def test_bytes_that_are_no_text_are_refused(write: Write) -> None:
    with pytest.raises(RuleError, match=r"rules\.yaml:2: this is not YAML: character 252"):
        read_rules(write("- pattern: a\n  ratio: 0.5 # ü".encode("latin-1")))
    with pytest.raises(RuleError, match="is not YAML"):
        read_rules(write(bytes(range(256)) * 8))


def test_a_huge_file_is_not_read(write: Write) -> None:
    path = write(b"")
    with path.open("r+b") as file:
        file.truncate(1 << 36)  # sparse: it takes no space, but reading it would take memory
    with pytest.raises(RuleError, match=f"is larger than {LARGEST} bytes"):
        read_rules(path)


@pytest.mark.parametrize("name", ["none.yaml", ".", "n" * 5000, "nul\0"])
def test_a_path_without_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuleError, match=r"there is no rule file /|cannot be read: File name"):
        read_rules(tmp_path / name)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.text("- {}[]:,*&!<=?|>'\"%@`#\n\tpaternioskip0.5~e_", max_size=60).map(str.encode)
    | st.text("0123456789_.+-:xobeinfNa~=<", max_size=12).map(
        lambda value: f"- {{pattern: a, ratio: {value}}}".encode()
    )
)
def test_anything_else_is_rules_or_a_rule_error_of_one_line(write: Write, content: bytes) -> None:
    try:
        rules = read_rules(write(content))
    except RuleError as error:
        message = str(error)
        assert "rules.yaml" in message
        assert "\n" not in message
    else:
        assert all(rule.pattern and (rule.ratio is None or 0 <= rule.ratio <= 1) for rule in rules)


def test_stages_granularity_and_importance_are_read(write: Write) -> None:
    rules = read_rules(
        write(
            "- {pattern: a, granularity: filter, importance: fpgm, ratio: [0, .25, 1]}\n"
            "- {pattern: b, importance: abs, ratio: [0.5]}\n"
            "- {pattern: c}\n"
        ),
        Fraction(1, 3),
    )
    assert (rules[0].granularity, rules[0].importance) == ("filter", "fpgm")
    assert rules[0].stages == (Fraction(0), Fraction(1, 4), Fraction(1))
    assert [rule.ratio for rule in rules] == [Fraction(1), Fraction(1, 2), Fraction(1, 3)]
    assert rules[1].stages == (Fraction(1, 2),)
    assert rules[2].stages == ()
