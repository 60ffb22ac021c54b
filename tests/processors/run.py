"""Compare the answers of artefacts on processors that QEMU emulates with those on this one.

    python tests/processors/run.py --data-dir DIR     # writes docs/processors.md, 20 minutes

Needs Linux on x86-64, QEMU (``apt-get install qemu-user``), FashionMNIST, and the package with the
extra ``demo``; files of ExecuTorch and LiteRT are among those compared where the extras
``executorch`` and ``litert`` are installed. A Python for AArch64 comes from Debian, its packages
from PyPI; both stay in the cache folder, with the trained networks. The processors of x86-64 run
the Python that runs this.

Each artefact is loaded with the check of its stored inputs. Then the classes of 1,000 images are
compared with those that the same file gives on this machine. Exits with 1 if fewer than 99.9 % are
equal and the check did not refuse the file, or if a processor ran something to no end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from lit_compress.artifact import sqnr_db
from lit_compress.runtimes.processor import lacks_vnni, processor_name
from processors import artefacts, foreign_root
from processors.artefacts import RUNTIMES, Artefact
from processors.processors import PROCESSORS, Processor, is_emulated_here, write_prefix

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "processors.md"
PROGRAM = HERE / "answers_program.py"
#: Comments of the page between which the table stands.
START, END = "<!-- processors: table -->", "<!-- end of processors -->"
#: Smallest share of equal classes of a file that its check accepts.
SAME = 0.999
#: Seconds that one processor may take for all files of a format.
LIMIT = 900
#: By format, the package whose presence tells that files can be written.
WRITERS = {"onnx": "onnx", "litert": "litert_torch", "executorch": "executorch"}


@dataclass(frozen=True)
class Row:
    """One artefact, format and processor.

    Attributes:
        processor: Name of the processor.
        format: The file format.
        artefact: Name of the artefact.
        same: Share of the images with the same class; None if nothing ran.
        sqnr_db: SQNR of the outputs against those of this machine, in dB.
        lost_db: By how much its stored inputs are further from the float network, in dB.
        said: ``accepted``, the message of the refusal, or why nothing ran.
    """

    processor: str
    format: str
    artefact: str
    same: float | None
    sqnr_db: float | None
    lost_db: float | None
    said: str

    def is_bad(self) -> bool:
        """Tell whether other classes were let pass, or nothing ran."""
        return self.same is None or (self.said == "accepted" and self.same < SAME)


#: Returns the words that start a Python on a processor, and the folders that it imports from.
Start = Callable[[Processor, str], tuple[list[str], list[Path]]]


def starter(cache: Path, processors: Iterable[Processor]) -> Start:
    """Fetch what the processors need, and return a function that says how one is started."""
    foreign = any(one.machine == "aarch64" for one in processors)
    root = foreign_root.unpack_debian(cache) if foreign else cache
    lean, executorch = cache, cache
    if foreign:
        python = foreign_root.python_of(root)
        lean, executorch = foreign_root.install_wheels(cache, python.name.removeprefix("python"))

    def start(processor: Processor, file_format: str) -> tuple[list[str], list[Path]]:
        prefix = cache / "processors" / processor.model
        if processor.machine == "x86_64":
            write_prefix(processor, prefix, None)
            return [*processor.emulator(prefix), sys.executable], []
        write_prefix(processor, prefix, root)
        python = str(foreign_root.python_of(root))
        sites = [executorch, lean] if file_format == "executorch" else [lean]
        return [*processor.emulator(prefix), python], sites

    return start


#: What the program said of an artefact, and its outputs; None if it did not run.
Answer = tuple[dict[str, Any], np.ndarray | None]


def answers(
    words: Sequence[str], sites: Sequence[Path], file_format: str, given: Sequence[Artefact]
) -> list[Answer]:
    """Run the program, and return for each artefact what it said, and the outputs.

    Args:
        words: What starts Python.
        sites: Folders to import from, besides this repository.
        file_format: Which files to run.
        given: The artefacts.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, f"outputs-{index}.npy") for index in range(len(given))]
        said, ended = _program(words, sites, RUNTIMES[file_format], given, outputs)
        if any(one["torch"] and file_format != "executorch" for one in said):
            raise SystemExit(f"torch was imported to run {file_format}")
        return [
            (said[index], np.load(path)) if index < len(said) else ({"said": ended}, None)
            for index, path in enumerate(outputs)
        ]


def _program(
    words: Sequence[str],
    sites: Sequence[Path],
    runtime: str,
    given: Sequence[Artefact],
    outputs: Sequence[Path],
) -> tuple[list[dict[str, Any]], str]:
    """Run the program, and return what it said of each artefact, and how it ended."""
    jobs, found = (outputs[0].with_name(name) for name in ("jobs.json", "answers.json"))
    found.write_text("[]", encoding="utf-8")
    texts = [
        {
            "folder": str(one.folder),
            "images": str(one.images),
            "runtime": runtime,
            "outputs": str(path),
        }
        for one, path in zip(given, outputs, strict=True)
    ]
    jobs.write_text(json.dumps(texts), encoding="utf-8")
    path = os.pathsep.join(map(str, (ROOT, *sites)))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [*words, str(PROGRAM), str(jobs), str(found)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        ended = f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        ended = f"took more than {LIMIT} seconds"
    return json.loads(found.read_text("utf-8")), ended


def compare(
    processor: Processor,
    file_format: str,
    given: Sequence[Artefact],
    here: Sequence[Answer],
    start: Start,
) -> list[Row]:
    """Return a row for each artefact that has a file of the format.

    Args:
        processor: The processor.
        file_format: The format.
        given: The artefacts.
        here: What they answer on this machine.
        start: What starts the processor.
    """
    there = answers(*start(processor, file_format), file_format, given)
    rows = []
    for artefact, (native, expected), (said, found) in zip(given, here, there, strict=True):
        if native["said"] != "accepted" or expected is None:
            raise SystemExit(f"{artefact.folder} does not run on this machine: {native['said']}")
        same, sqnr, lost = None, None, None
        if found is not None:
            same = float(np.mean(expected.argmax(1) == found.argmax(1)))
            sqnr, lost = round(sqnr_db(expected, found), 1), round(said["lost"], 2)
        names = (processor.name, file_format, artefact.name)
        rows.append(Row(*names, same, sqnr, lost, said["said"]))
    return rows


def table(rows: Iterable[Row]) -> str:
    """Return the rows in Markdown."""
    names = ("processor", "file", "network", "same class", "SQNR", "lost", "the check")
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for row in rows:
        same, sqnr, lost = "not run", "-", "-"
        if row.same is not None and row.sqnr_db is not None and row.lost_db is not None:
            same, lost = f"{row.same:.1%}", f"{max(0.0, row.lost_db):.1f} dB"
            sqnr = "equal" if row.sqnr_db >= 200 else f"{row.sqnr_db:.0f} dB"
        said = "-" if row.same is None else "accepts" if row.said == "accepted" else "refuses"
        cells = (row.processor, row.format, row.artefact, same, sqnr, lost, said)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def read_rows() -> list[Row]:
    """Return the rows of earlier calls."""
    if not RESULTS.is_file():
        return []
    return [Row(**row) for row in json.loads(RESULTS.read_text("utf-8"))["rows"]]


def merged(earlier: Iterable[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the rows of both in the order of the table; those of the later call win."""
    new = {(row.processor, row.format) for row in rows}
    both = [*(row for row in earlier if (row.processor, row.format) not in new), *rows]
    places = [
        (one.name, name) for one in PROCESSORS for name in RUNTIMES if name not in one.without
    ]
    return [row for place in places for row in both if (row.processor, row.format) == place]


def write(rows: Sequence[Row]) -> None:
    """Write the rows, and the table of the page."""
    emulator = subprocess.check_output([str(shutil.which("qemu-x86_64")), "--version"], text=True)
    names = [
        name for name in (*foreign_root.SAME, "executorch") if find_spec(name.replace("-", "_"))
    ]
    made = {
        "machine": processor_name(),
        "python": platform.python_version(),
        "qemu": emulator.splitlines()[0],
    }
    made |= {name: version(name) for name in names}
    made["on aarch64"] = ", ".join(foreign_root.EXECUTORCH)
    content = {"with": made, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    before, rest = PAGE.read_text("utf-8").split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{table(rows)}\n{END}{after}", encoding="utf-8")


def cache_folder() -> Path:
    """Return where downloads and trained networks are kept unless an option says."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lit_compress" / "processors"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print and write the table; 1 if other classes were let pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=cache_folder())
    parser.add_argument("--keep", action="store_true", help="take the artefacts of the last call")
    parser.add_argument("--models", nargs="+", choices=[one.model for one in PROCESSORS])
    parser.add_argument("--formats", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    given = parser.parse_args(arguments)
    wanted = [one for one in PROCESSORS if given.models is None or one.model in given.models]
    if missing := sorted({one.machine for one in wanted if not one.is_available()}):
        raise SystemExit(f"qemu-{missing[0]} is missing: apt-get install qemu-user")
    if not is_emulated_here() or lacks_vnni():
        raise SystemExit("it needs Linux on an x86-64 processor with VNNI, to compare with")
    formats = [name for name in given.formats if find_spec(WRITERS[name])]
    work = given.cache / "work"
    work.mkdir(parents=True, exist_ok=True)
    start = starter(given.cache, wanted)
    digits = artefacts.digits(work)
    packed = artefacts.four_bits(digits, work)
    made = [digits, packed, *artefacts.fashion_mnist(given.data_dir, work, formats, given.keep)]
    having = {name: [one for one in made if name in one.formats] for name in formats}
    here = {name: answers([sys.executable], [], name, having[name]) for name in formats}
    rows = []
    for processor in wanted:
        for name in (name for name in formats if name not in processor.without):
            rows += compare(processor, name, having[name], here[name], start)
            print(table(rows[-len(having[name]) :]), flush=True)
        write(merged(read_rows(), rows))
    bad = [row for row in rows if row.is_bad()]
    for row in bad:
        print(f"FAILED: {row}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
