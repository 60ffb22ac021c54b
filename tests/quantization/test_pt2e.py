import logging
import subprocess
import sys

from lit_compress.quantization import pt2e


def test_everything_it_offers_is_there() -> None:
    assert all(callable(getattr(pt2e, name)) for name in pt2e.__all__)


def test_the_import_says_nothing_and_leaves_the_logger_as_it_was() -> None:
    """torchao registers an Enum, which torch reports to the log at each import."""
    words = [sys.executable, "-c", "import lit_compress.quantization.pt2e"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "deprecated" not in done.stderr
    assert logging.getLogger("torch.utils._pytree").level == logging.NOTSET
