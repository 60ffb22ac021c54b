"""The command line ``lit-compress``: LightningCLI for any LightningModule and LightningDataModule.

The options of each verb are the arguments of the Trainer's method of that name. The docstring of
the method is the text of ``lit-compress VERB --help``. ``configs``, ``pack``, ``report`` and
``benchmark`` need no model and no data, so they are no methods of the Trainer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from lit_compress import __version__
from lit_compress.errors import InvalidArgumentError, LitCompressError

if TYPE_CHECKING:
    from lit_compress.cli_lightning import FitRunner

#: Folder of the configs that come with the package.
PACKAGED = Path(__file__).parent / "configs"

#: The verbs, each with its line in the overview.
VERBS = {
    "fit": "Train and compress: prune, quantise, report.",
    "doctor": "Check a fit before it is started: one line for each question.",
    "search": "Search for the best settings of a fit: metric against size or time.",
    "validate": "Measure a checkpoint on the validation data.",
    "test": "Measure a checkpoint, or an artefact's int8 file, on the test data.",
    "predict": "Predict with a checkpoint.",
    "scan": "Find how much of each layer can be pruned, and write rules for pruning.",
    "quantize": "Turn a checkpoint into a checked int8 ONNX file.",
    "benchmark": "Time an artefact, ONNX file or checkpoint on this machine, or two in turn.",
    "pack": "Write an artefact again in less space, with packed zeros.",
    "report": "Write one HTML page about the runs in a folder.",
    "configs": "List the configs that come with the package.",
}

OVERVIEW = """usage: lit-compress VERB [--config FILE ...] [options]

Prune and quantise Lightning models while they train.

verbs:
{verbs}

options:
  -h, --help   Show this text; lit-compress VERB --help shows a verb's options.
  --version    Show the version.
  --debug      On an error, show the traceback too.

example:
  lit-compress fit --config quickstart.yaml
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: The words after the program's name. Default: ``sys.argv[1:]``.

    Returns:
        The exit code: 0 on success, 1 if ``doctor`` finds an error in a run or ``benchmark`` a
        network that is not as fast as asked for, 2 after an error, 130 after Ctrl-C. An error or
        Ctrl-C prints one line to stderr.

    Raises:
        Exception: The error itself instead of its line, if ``--debug`` is among the words.
        SystemExit: From ``--help``, with code 0.

    Example:
        >>> from lit_compress.cli import main
        >>> main(["--version"])
        lit-compress 0.1.0
        0
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return _interrupted(words)
    except SystemExit as stop:  # Lightning raises it after Ctrl-C in a fit
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted(words)
        raise
    except Exception as error:
        if debug:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: Exception) -> str:
    """Return an error as one line; one of this package needs no import of Lightning."""
    if isinstance(error, LitCompressError):
        return " ".join(str(error).split())
    from lit_compress.cli_errors import explain

    return explain(error)


def _interrupted(words: Sequence[str]) -> int:
    """Print what an interrupted run keeps, and return the exit code."""
    kept = "the last checkpoint is kept, and no incomplete artefact was written"
    if words and words[0] == "scan":
        kept = "the rows so far are kept, and the same command continues from them"
    if words and words[0] == "search":
        kept = "the trials that ended are kept, and the same command goes on"
    print(f"error: interrupted; {kept}", file=sys.stderr)
    return 130


def _dispatch(words: list[str]) -> int:
    """Answer the words that need no Trainer, or run a verb; return the exit code."""
    if not words or words[0] in ("-h", "--help"):
        print(OVERVIEW.format(verbs="\n".join(f"  {v:<10} {text}" for v, text in VERBS.items())))
        return 0
    if words[0] == "--version":
        print(f"lit-compress {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise InvalidArgumentError(f"{verb!r} is not a verb of lit-compress: {hint}")
    if verb == "configs":
        print("\n".join(_packaged_configs()))
        return 0
    if verb == "report":
        from lit_compress.cli_report import report

        print(f"written to {report(words[1:])}")
        return 0
    if verb == "pack":
        from lit_compress.cli_pack import pack_words

        print("\n".join(pack_words(words[1:])))
        return 0
    if verb == "benchmark":
        from lit_compress.benchmark.command import benchmark_words

        return benchmark_words(words[1:])
    if verb == "doctor":
        from lit_compress.cli_doctor import doctor

        return doctor(_with_packaged_configs(words))
    if verb == "search":
        from lit_compress.search.command import search_words

        search_words(words[1:], _fits)
        return 0
    from lit_compress.cli_lightning import run

    run(verb, _with_packaged_configs(words))
    return 0


def _fits(words: list[str]) -> FitRunner:
    """Return what runs the fits of a search."""
    from lit_compress.cli_lightning import FitRunner

    return FitRunner(_with_packaged_configs(["fit", *words]))


def _with_packaged_configs(words: list[str]) -> list[str]:
    """Return the words with the full path of each config that only the package has."""
    found = list(words)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("-c", "--config"):
            if equals:
                found[index] = f"{name}={_config(value)}"
            elif index + 1 < len(words):
                found[index + 1] = _config(words[index + 1])
    for word in found:
        _check_config(word.rpartition("=")[2] if word.startswith("-") else word)
    return found


def _check_config(word: str) -> None:
    """Check a YAML file among the words: its aliases can stand for billions of values."""
    from lit_compress.files.reading import read_limited, reading
    from lit_compress.files.yaml_text import LARGEST, check_yaml

    if not word.endswith((".yaml", ".yml")):
        return
    remedy = "write it anew, or give another config"
    with reading(word, InvalidArgumentError, remedy):
        if Path(word).is_file():
            content = read_limited(Path(word), LARGEST, InvalidArgumentError, "a config")
            check_yaml(content.decode("utf-8"))


def _config(given: str) -> str:
    """Return the path of a config: the user's own file first, then the one of the package."""
    path = Path(given)
    packaged = PACKAGED / path.name
    if path.exists() or path.parent.name not in ("", "configs"):
        return given
    if packaged.is_file():
        return str(packaged)
    names = [found.name for found in PACKAGED.glob("*.yaml")]
    near = get_close_matches(path.name, names, 1, cutoff=0.8)
    if path.suffix in (".yaml", ".yml") and near:
        raise InvalidArgumentError(f"there is no config {given}: did you mean {near[0]}?")
    return given


def _packaged_configs() -> list[str]:
    """Return a line for each config of the package: its name and its first comment."""
    lines = []
    for path in sorted(PACKAGED.glob("*.yaml")):
        first = path.read_text("utf-8").partition("\n")[0]
        lines.append(f"{path.name:<34} {first.lstrip('# ')}")
    return lines
