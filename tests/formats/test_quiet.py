from __future__ import annotations

import logging
import warnings

import pytest

from lit_compress.formats.quiet import quiet


def test_nothing_is_printed_in_the_block(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        print("a note of a converter")
        logging.getLogger("converter").warning("another")
        warnings.warn("a third", stacklevel=1)
    logging.getLogger("converter").warning("of the user")
    print("shown")
    assert capsys.readouterr().out == "shown\n"
    assert [record.message for record in caplog.records] == ["of the user"]
