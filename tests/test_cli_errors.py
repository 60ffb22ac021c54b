from argparse import ArgumentError
from pathlib import Path

import pytest

from lit_compress.cli_errors import explain
from lit_compress.errors import InvalidArgumentError, LitCompressError


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_ours_among_the_causes_speaks_for_itself() -> None:
    ours = InvalidArgumentError("target must be\n  in [0, 1)")
    error = raised(ValueError("Does not validate"), raised(TypeError("x"), ours))
    assert explain(error) == "target must be in [0, 1)"
    assert issubclass(InvalidArgumentError, (LitCompressError, ValueError))


def test_any_other_error_is_one_line_with_its_kind() -> None:
    line = explain(raised(RuntimeError("first\nsecond")))
    assert line == "RuntimeError: first second (--debug shows where)"


def test_a_file_error_names_the_file() -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        Path("/nowhere/at/all").read_text()
    assert explain(caught.value) == "No such file or directory: /nowhere/at/all"


@pytest.mark.parametrize(
    ("text", "deepest", "line"),
    [
        (
            "unrecognized arguments: --x",
            "unrecognized arguments: --x",
            "unrecognized arguments: --x",
        ),
        (
            'Parser key "trainer.max_epochs": Expected',
            "Expected a <class 'int'>. Got value: x",
            "trainer.max_epochs: expected int. Got value: x",
        ),
        (
            "Problem with given class_path 'lit_compress.callbacks.MagnitudePruning':",
            "Option 'inklude' is not accepted",
            ": MagnitudePruning has no argument 'inklude'; did you mean 'include'?",
        ),
        (
            "Parser key \"trainer.callbacks\": Problem with given class_path 'a.FilterPruning': "
            "Parser key \"importance\": Expected a typing.Literal['l1', 'l2']\n"
            "Expected a dot import path string: l7",
            "Expected a dot import path string: l7",
            "trainer.callbacks: FilterPruning.importance: 'l7' is not one of 'l1', 'l2', and not "
            "the full path of a class of your own (package.module.Class)",
        ),
        (
            "Problem with given class_path 'no.such.Thing':",
            "Option 'a' is not accepted",
            ": Thing has no argument 'a'; --help lists its arguments",
        ),
    ],
)
def test_argument_errors_are_boiled_down(text: str, deepest: str, line: str) -> None:
    assert explain(raised(ArgumentError(None, text), ValueError(deepest))) == line
