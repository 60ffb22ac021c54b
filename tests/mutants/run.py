"""Mutation tests: put small faults into the core, one at a time, and see which no test notices.

    python tests/mutants/run.py --sample 200 --seed 0

Each mutant runs in a copy of the repository, in a process forked from one that has imported the
libraries, against the tests that mirror its module and then those that use it most.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing as mp
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from mutants.faults import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
CORE = ("artifact", "export", "measure", "pruning", "quantization", "report")
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
#: By the start of a module's path: tests that use it, run after those that mirror it.
MORE = {
    "artifact/": ["tests/artifact/test_write.py", "tests/artifact/test_read.py"],
    "export/": ["tests/export/test_onnx.py", "tests/artifact/test_write.py"],
    "pruning/channels/": [
        "tests/pruning/channels/test_analysis.py",
        "tests/pruning/channels/test_surgery.py",
        "tests/pruning/channels/test_random_graphs.py",
    ],
    "pruning/rules/": ["tests/callbacks/test_rule_pruning.py"],
    "pruning/selection/": [
        "tests/pruning/selection/test_budget.py",
        "tests/callbacks/test_filter_pruning.py",
    ],
    "quantization/": [
        "tests/quantization/test_quantizer.py",
        "tests/callbacks/test_post_training_quantization.py",
    ],
}
#: Imported once, before the forks: none of them starts a thread when it is imported. Plugins of
#: pytest are not among them: it wants to rewrite their assertions.
LIBRARIES = (
    "torch",
    "torchvision",
    "lightning.pytorch",
    "torchao.quantization.pt2e",
    "onnxruntime",
    "onnxscript",
    "pytest",
    "sklearn.datasets",
)
HIDDEN = shutil.ignore_patterns(
    ".*", "__pycache__", "data", "runs", "lightning_logs", "*.egg-info", "build", "dist"
)


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        mutant: The mutant.
        outcome: ``killed``, ``survived`` or ``timeout`` (which counts as killed).
        by: The test that failed.
        seconds: How long its tests ran.
    """

    mutant: Mutant
    outcome: str
    by: str
    seconds: float


def core_mutants() -> list[Mutant]:
    """Return all mutants of the core."""
    paths = (path for name in CORE for path in sorted((ROOT / "lit_compress" / name).rglob("*.py")))
    return [m for p in paths for m in mutants_of(p.relative_to(ROOT).as_posix(), p.read_text())]


def read_equivalent(text: str) -> dict[str, str]:
    """Return the reasons of known equivalent mutants by name.

    Args:
        text: A mutant's name on a line, and its reason on the next, indented.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    names, reasons = lines[::2], lines[1::2]
    for name, reason in zip(names, [*reasons, ""], strict=False):
        if name[0] == " " or reason[:1] != " ":
            raise SystemExit(f"equivalent.txt: {name!r} needs an indented reason on the next line")
    return {name.strip(): reason.strip() for name, reason in zip(names, reasons, strict=True)}


def sample(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return some mutants; a change of the code exchanges only those that it touches."""

    def rank(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    return sorted(mutants, key=rank)[:count]


def tests_for(path: str) -> list[str]:
    """Return the test files for a module: its mirror first."""
    inner = Path(path).relative_to("lit_compress")
    mirror = Path("tests", inner.parent, f"test_{inner.name}")
    more = [test for start, tests in MORE.items() if str(inner).startswith(start) for test in tests]
    return [t for t in dict.fromkeys([mirror.as_posix(), *more]) if (ROOT / t).is_file()]


def run_tests(tests: Sequence[str], mutant: Mutant | None, limit: float) -> tuple[int, str, float]:
    """Run tests in a copy of the repository, with a mutant in it.

    Returns:
        pytest's exit code (negative: out of time), the first failure, and the seconds it took.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "repository")
        shutil.copytree(ROOT, copy, ignore=HIDDEN)
        if mutant is not None:
            (copy / mutant.path).write_text(mutant.source)
        process = mp.get_context("fork").Process(target=_pytest, args=(copy, tests))
        start = time.monotonic()
        process.start()
        process.join(limit)
        if process.is_alive():
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        code = process.exitcode if process.exitcode is not None else -1
        return code, _first_failure(copy / "log.txt"), time.monotonic() - start


def _pytest(copy: Path, tests: Sequence[str]) -> None:
    os.setsid()  # a process group of its own, ended as a whole when it is out of time
    os.chdir(copy)
    log = os.open("log.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["PYTHONPATH"] = str(copy)
    sys.dont_write_bytecode = True
    own = {ROOT, ROOT / "tests", ROOT / "tests" / "mutants"}
    sys.path[:] = [str(copy), *(entry for entry in sys.path if Path(entry) not in own)]
    import pytest

    code = pytest.main(["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _first_failure(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line for line in lines if line.startswith(("FAILED", "ERROR"))), "")[:200]


def try_mutant(mutant: Mutant, limit: float) -> Result:
    """Run a mutant's tests."""
    code, by, seconds = run_tests(tests_for(mutant.path), mutant, limit)
    outcome = "survived" if code in (0, 5) else "timeout" if code < 0 else "killed"
    return Result(mutant, outcome, by, seconds)


def check_tests(files: Iterable[str], pool: ProcessPoolExecutor, limit: float) -> None:
    """Refuse to begin where a test file fails without any fault."""
    names = sorted(files)
    codes = pool.map(run_tests, [[n] for n in names], [None] * len(names), [limit] * len(names))
    failing = [
        f"{name}: exit code {code} {by}"
        for name, (code, by, _) in zip(names, codes, strict=True)
        if code
    ]
    if failing:
        raise SystemExit("these fail without a mutant, fix them first:\n" + "\n".join(failing))


def report(results: Sequence[Result], known: int) -> float:
    """Print the survivors and the score; return the percentage of mutants killed."""
    survivors = [result for result in results if result.outcome == "survived"]
    for result in survivors:
        print(f"\nsurvived {result.mutant.path}:{result.mutant.line}\n  {result.mutant.name}")
        print(result.mutant.diff())
    killed = len(results) - len(survivors)
    late = sum(result.outcome == "timeout" for result in results)
    seconds = sum(result.seconds for result in results) / max(1, len(results))
    score = 100 * killed / max(1, len(results))
    print(
        f"\n{killed} of {len(results)} mutants killed ({score:.1f} %), {late} of them by the time "
        f"limit; {known} known equivalent ones left out; {seconds:.1f} s a mutant"
    )
    return score


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample mutants, run them, and fail under a score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="seconds for a mutant's tests")
    parser.add_argument("--fail-under", type=float, default=90, help="percentage to kill")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    options = parser.parse_args(arguments)
    equivalent = read_equivalent(EQUIVALENT.read_text())
    mutants = core_mutants()
    for name in sorted(set(equivalent) - {mutant.name for mutant in mutants}):
        print(f"equivalent.txt: no such mutant any more: {name}")
    mutants = [m for m in mutants if m.name not in equivalent and options.only in m.name]
    chosen = sample(mutants, options.sample, options.seed)
    os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    for library in LIBRARIES:
        importlib.import_module(library)
    with ProcessPoolExecutor(options.jobs, mp.get_context("fork")) as pool:
        check_tests({t for m in chosen for t in tests_for(m.path)}, pool, options.limit)
        results = []
        for result in pool.map(try_mutant, chosen, [options.limit] * len(chosen)):
            results.append(result)
            print(f"{result.outcome:8} {result.seconds:5.1f} s {result.mutant.name}", flush=True)
            print(f"         {result.by}", flush=True)
    if report(results, len(equivalent)) < options.fail_under:
        raise SystemExit(f"fewer than {options.fail_under:g} % killed")


if __name__ == "__main__":
    main()
