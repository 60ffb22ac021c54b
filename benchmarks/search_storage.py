"""Print how many trials a second workers of one study begin and end, by what holds the study.

::

    python benchmarks/search_storage.py [--workers 1 8 32] [--seconds 20] [--folder DIR]

Workers are processes that fit nothing: each asks for a trial with five settings, notes a metric as
a fit of ten epochs does, looks at the other trials, and tells two objectives, as fast as it can. A
worker that fails is counted with its error. The sampler draws at random, so that the storage alone
is measured. ``CPU`` is a worker's processor time for a trial in milliseconds, which counts where
the machine has fewer cores than workers; ``trials`` is the size of the study at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from lit_compress.search.storage import open_storage, quietly

#: Keys of what a trial notes, as in lit_compress/search/_hopeless.py, which imports torch.
EPOCHS, SIZE = "epochs", "size"
#: Epochs of a fit that is only noted, and its settings.
LENGTH, SETTINGS = 10, 5


def work(address: str, folder: Path, begin: Any, seconds: float, results: Any) -> None:
    """Run trials of a study for a while; put their number and seconds, or an error, in a queue."""
    ended, longest, cpu, error = 0, 0.0, 0.0, ""
    with quietly():
        try:
            sampler = optuna.samplers.RandomSampler()
            storage = open_storage(address, folder, 60)
            study = optuna.load_study(study_name="many", storage=storage, sampler=sampler)
            begin.wait()
            cpu = time.process_time()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                began = time.monotonic()
                run_one(study)
                longest = max(longest, time.monotonic() - began)
                ended += 1
        except Exception as raised:  # what breaks is what is asked for
            error = type(raised).__name__
            begin.abort()
    results.put((ended, longest, time.process_time() - cpu, error))


def run_one(study: optuna.Study) -> None:
    """Ask, note, look and tell, as a trial of a search does."""
    trial = study.ask()
    for number in range(SETTINGS):
        trial.suggest_float(f"setting {number}", 0, 1)
    epochs: dict[str, float] = {}
    trial.set_user_attr(SIZE, [1000])
    for epoch in range(LENGTH):
        epochs[str(epoch)] = epoch / LENGTH
        trial.set_user_attr(EPOCHS, epochs)
    study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    study.tell(trial, [0.5, 1000.0])


def measure(address: str, folder: Path, workers: int, seconds: float) -> str:
    """Return a row: trials a second of all workers, the longest trial, and what failed."""
    with quietly():
        storage = open_storage(address, folder, 60)
        optuna.create_study(study_name="many", storage=storage, directions=["maximize", "minimize"])
    context = mp.get_context("spawn")
    begin, results = context.Barrier(workers), context.Queue()
    arguments = (address, folder, begin, seconds, results)
    processes = [context.Process(target=work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    failed = Counter(error for *_, error in found if error)
    ended, longest = sum(row[0] for row in found), max(row[1] for row in found)
    cpu = 1000 * sum(row[2] for row in found) / max(ended, 1)
    with quietly():
        number = len(optuna.load_study(study_name="many", storage=storage).get_trials())
    row = f"{workers:7} {ended / seconds:9.2f} {longest:10.2f} {cpu:7.1f} {number:7}"
    return f"{row}  {said(failed)}"


def said(failed: Mapping[str, int]) -> str:
    """Return the errors of workers in words."""
    return ", ".join(f"{count} {name}" for name, count in failed.items()) or "none failed"


def run(folder: Path, workers: Sequence[int], seconds: float) -> None:
    """Measure each storage with each number of workers."""
    print("storage workers  trials/s  longest s CPU ms  trials  workers that failed")
    for name in ("sqlite", "journal"):
        for number in workers:
            place = folder / f"{name}-{number}"
            place.mkdir(parents=True)
            sqlite, journal = f"sqlite:///{place / 'study.db'}", f"journal:{place / 'study.log'}"
            address = sqlite if name == "sqlite" else journal
            print(f"{name:7} {measure(address, place, number, seconds)}", flush=True)


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(given.folder or Path(temporary), given.workers, given.seconds)


if __name__ == "__main__":
    main()
