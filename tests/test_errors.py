import inspect

import pytest

from lit_compress import errors

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", OURS)
def test_each_is_ours_and_most_are_a_builtin_too(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.LitCompressError)
    if kind is not errors.LitCompressError:
        assert issubclass(kind, (ValueError, FileNotFoundError, RuntimeError))


def test_a_missing_data_set_is_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match="looked there"):
        raise errors.DataNotFoundError("looked there")
