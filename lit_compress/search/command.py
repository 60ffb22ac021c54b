"""The words of the verb ``search``."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import NoReturn

from lit_compress.errors import InvalidArgumentError
from lit_compress.search.settings import read_settings
from lit_compress.search.storage import check_optuna
from lit_compress.search.trial import Fits
from lit_compress.search.worker import Options, search

DESCRIPTION = """Search for the best settings of a fit: many fits, and the front that they reach.
The same command again, on this machine or another one, is one worker more.
Other options are those of lit-compress fit, and hold for all trials."""


class _Parser(ArgumentParser):
    """Raises an error of this package, where argparse would stop the program."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"search: {message}")


def search_words(words: Sequence[str], fits: Callable[[list[str]], Fits]) -> None:
    """Search by the words of the command line after ``search``.

    Args:
        words: The options; those that a search does not have are options of the fit.
        fits: Returns what runs a fit with given words, those after ``fit``.

    Raises:
        SearchError: If the search cannot be done; see :func:`lit_compress.search.worker.search`.
        SystemExit: From ``--help``, with code 0.
    """
    parser = _parser()
    given, others = parser.parse_known_args(words)
    if len(given.config) > 1:
        parser.error("--config is given more than once: the configs of the fit are in its file")
    check_optuna()
    named = ("name", "trials", "storage", "dirpath", "heartbeat")
    settings = read_settings(given.config[0]).with_words(**{n: getattr(given, n) for n in named})
    configs = [word for name in settings.fit for word in ("--config", name)]
    options = Options(given.seed, tuple(given.again), not given.no_wait)
    search(settings, fits([*configs, *others]), options)


def _parser() -> _Parser:
    parser = _Parser(
        "lit-compress search",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    describes = "YAML file of ranges and objectives"
    add("--config", action="append", required=True, metavar="FILE", help=describes)
    add("--trials", type=int, metavar="N", help="trials of the whole study, of all workers (30)")
    add("--name", metavar="NAME", help="name of the study (that of the file)")
    add("--dirpath", metavar="DIR", help="folder of trials and front (search)")
    add(
        "--storage",
        metavar="URL",
        help="a database, journal:FILE or grpc://HOST:PORT (SQLite in the folder)",
    )
    add("--heartbeat", type=int, metavar="S", help="seconds between signs of life (60)")
    add("--seed", type=int, metavar="N", help="of the sampler of this worker alone")
    add(
        "--again",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="trials of killed workers to run again, where the storage cannot tell them",
    )
    add("--no-wait", action="store_true", help="end without waiting for trials of other workers")
    return parser
