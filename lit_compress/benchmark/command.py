"""The verb ``benchmark``: it needs numpy and a runtime alone, so it runs on the target."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import NoReturn, TypeVar

from lit_compress.benchmark import Benchmark, Options, run_benchmark
from lit_compress.benchmark.options import ALL_RUNTIMES
from lit_compress.errors import InvalidArgumentError
from lit_compress.files import write_whole

T = TypeVar("T")

DESCRIPTION = """Measure a network on this machine: time, throughput, peak memory, and the share of
what the machine does at most. With a second network, both are timed in turn.
Artefacts and ONNX files need numpy and onnxruntime alone."""


class _Parser(ArgumentParser):
    """Raises an error of this package, where argparse would stop the program."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"benchmark: {message}")


def benchmark_words(words: Sequence[str]) -> int:
    """Measure networks by the words of the command line after ``benchmark``.

    Args:
        words: One or two networks, and the options.

    Returns:
        0; 1 if ``--at-least`` does not hold.

    Raises:
        LitCompressError: If a word is unknown, an option has an impossible value, or a network
            cannot be read or run.
        SystemExit: From ``--help``, with code 0.
    """
    given = _parser().parse_args(words)
    if given.at_least is not None and given.other is None:
        raise InvalidArgumentError("benchmark: --at-least compares A with B: give a second network")
    _check_output(given.json)
    options = Options(
        batches=_once(given.batch),
        threads=_once(given.threads),
        runtimes=_once(given.runtime),
        rounds=given.rounds,
        seconds=given.seconds,
        memory=not given.no_memory,
    )
    found = run_benchmark(given.path, given.other, options, given.shape or (), given.model)
    _show(found, given.json)
    below = [] if given.at_least is None else found.below(given.at_least)
    for line in below:
        print(f"not fast enough: {line}", file=sys.stderr)
    return 1 if below else 0


def _parser() -> _Parser:
    parser = _Parser(
        "lit-compress benchmark",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("path", metavar="A", help="an artefact, ONNX file, packed file, checkpoint")
    parser.add_argument("other", metavar="B", nargs="?", help="a second one, to compare A with")
    add = parser.add_argument
    add("--batch", type=int, nargs="+", default=[], metavar="N", help="examples in a call (1)")
    add("--threads", type=int, nargs="+", default=[1], metavar="N", help="threads (1)")
    add("--runtime", nargs="+", default=["onnxruntime"], choices=ALL_RUNTIMES, help="of files")
    add("--rounds", type=int, default=60, metavar="N", help="rounds in turn (%(default)s)")
    add("--seconds", type=_seconds, default=10.0, metavar="S", help="limit of a measurement (10)")
    add(
        "--at-least",
        type=_factor,
        metavar="X",
        help="exit with 1 if A is not X times faster than B",
    )
    add("--json", metavar="FILE", help="file for the figures; - prints them in place of the table")
    add("--shape", type=_shape, nargs="+", metavar="3,32,32", help="shape of one example")
    add("--model", metavar="CLASS", help="class of a checkpoint's module: package.module.Class")
    add("--no-memory", action="store_true", help="leave the peak memory out")
    return parser


def _check_output(file: str | None) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    if file in (None, "-"):
        return
    path = Path(file or "").absolute()
    there = next(one for one in path.parents if one.exists())
    if path.is_dir() or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InvalidArgumentError(f"benchmark: --json {file} cannot be written: name another file")


def _show(found: Benchmark, file: str | None) -> None:
    if file == "-":
        print(found.to_json(), end="")
        return
    print(found)
    if file is None:
        return
    try:
        write_whole(file, found.to_json())
    except OSError as error:
        raise InvalidArgumentError(
            f"benchmark: {file} cannot be written ({error.strerror}): name another file"
        ) from error


def _once(values: Sequence[T]) -> tuple[T, ...]:
    """Return the values without those that are given twice."""
    return tuple(dict.fromkeys(values))


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,8}([,x][1-9]\d{0,8})*", text):
        raise ArgumentTypeError(f"expected the sizes of one example, such as 3,32,32, got {text!r}")
    return tuple(int(size) for size in re.split("[,x]", text))


def _seconds(text: str) -> float:
    return _positive(text, "a number of seconds")


def _factor(text: str) -> float:
    return _positive(text, "how many times faster A must be, such as 2.0")


def _positive(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0 or not isfinite(value):
        raise ArgumentTypeError(f"expected {what}, above 0, got {text!r}")
    return value
