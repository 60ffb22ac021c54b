"""The verb ``pack``: an artefact in less space."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from lit_compress.errors import InvalidArgumentError
from lit_compress.packed.folder import NETWORKS, PackedFile, pack


class _Parser(ArgumentParser):
    """Raises an error of this package, where argparse would stop the program."""

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"pack: {message}")


def pack_words(words: Sequence[str]) -> list[str]:
    """Pack an artefact by the words of the command line after ``pack``.

    Args:
        words: The artefact and the options.

    Returns:
        A line for each packed file, with its bytes, and one with the folder.

    Raises:
        InvalidArgumentError: If a word is unknown, or an option has an impossible value.
        ArtifactError: If the artefact cannot be read, or the folder cannot be written.
        AccuracyError: If 4 bits cost more than ``--min-sqnr`` allows.
        SystemExit: From ``--help``, with code 0.
    """
    parser = _Parser(
        "lit-compress pack",
        description="Write an artefact again in less space: its zeros take almost none. "
        "lit_compress.load takes the new folder.",
        allow_abbrev=False,
    )
    parser.add_argument("artifact", metavar="ARTIFACT", help="the artefact folder")
    parser.add_argument("--to", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--bits",
        type=int,
        default=8,
        choices=(8, 4),
        help="4 rounds the int8 weights, which changes the outputs (%(default)s)",
    )
    parser.add_argument(
        "--weights", default="int8", choices=tuple(NETWORKS), help="networks to keep (%(default)s)"
    )
    parser.add_argument(
        "--min-sqnr", type=float, metavar="DB", help="with --bits 4: refuse less SQNR than this"
    )
    given = parser.parse_args(words)
    files = pack(given.artifact, given.to, given.bits, given.weights, given.min_sqnr)
    return [*map(_line, files), f"written to {given.to}"]


def _line(file: PackedFile) -> str:
    """Return the sizes of a packed file in words."""
    text = (
        f"{file.name}: {file.before:,} bytes before, {file.after:,} after "
        f"({file.after / file.before:.3f}x), of them {file.graph:,} for the graph"
    )
    if file.sqnr_db is None or file.sqnr_before_db is None:
        return text
    return (
        f"{text}; 4 bits change the outputs: {file.sqnr_db:.1f} dB SQNR to the float network, "
        f"{file.sqnr_before_db:.1f} dB before; the metric was not measured"
    )
