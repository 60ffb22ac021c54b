"""Kill a fit at random moments, go on with the same command, and compare what it leaves.

    python tests/faults/kill_resume.py --kills 20 --seed 0

The fit is that of ``small_fit.yaml``: it trains, distils, prunes, trains as its int8 file computes,
converts and reports, in a quarter of a minute. First it runs without a kill. Then it is killed by
SIGKILL or SIGTERM, one to three times a run: at any moment of the process, imports included, or
when it writes a checkpoint or the artefact. After each kill the same command goes on (``--ckpt_path
last``). At the end the weights, the state of the optimizer and of the callbacks, and each file of
the artefact must have the same bytes as those of the whole run, and the card the same figures but
for times. Prints ``n of n``; the exit code is 1 if a run differs, whose folder is then kept. Linux
only: it reads ``/proc``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
RUN = Path("runs", "run")
#: Files of the artefact that hold no times; the card is compared by its figures.
FILES = ("model.onnx", "model-fp32.onnx", "model.safetensors", "replay.npz")
#: Keys of a card, at any depth, that are measured times, or hashes of what is compared here.
TIMES = {"latency", "seconds", "environment", "files", "digest"}
#: Most kills of one run, and seconds that a process may take.
MOST, LIMIT = 3, 300.0
#: Share of the kills that wait for a file to be written, and seconds after it.
AT_WRITES, AFTER_WRITE = 1 / 3, 0.4
#: How often files are looked for, in seconds.
LOOK = 0.002


@dataclass
class Kill:
    """A signal that was sent.

    Attributes:
        signal: Its name.
        moment: Where it came: seconds of the processor, or seconds after a file was written.
        code: Exit code of the process.
    """

    signal: str
    moment: str
    code: int | None = None


@dataclass
class Trial:
    """A run that is killed and goes on until its end.

    Attributes:
        number: Which run; its random numbers depend on it and on the seed alone.
        kills: The signals that were sent.
        differs: What is not equal to the whole run; empty if all is.
    """

    number: int
    kills: list[Kill] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the fit in a folder, or go on with it: the command is the same."""
    config = str(HERE / "small_fit.yaml")
    words = ["fit", "--config", config, "--ckpt_path", "last"]
    paths = [str(HERE.parent.parent), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ, OMP_NUM_THREADS="1", TQDM_DISABLE="1")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lit_compress", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=environment,
        )


def finish(folder: Path) -> None:
    """Let the fit run to its end.

    Raises:
        SystemExit: If it fails.
    """
    code = start(folder).wait(LIMIT)
    if code:
        raise SystemExit(f"the fit in {folder} ended with {code}:\n{tail(folder)}")


def tail(folder: Path) -> str:
    """Return the last lines of a log."""
    return (folder / "log.txt").read_text("utf-8", "replace")[-3000:]


# --- what a run leaves -------------------------------------------------------------------------


def left_by(folder: Path) -> dict[str, Any]:
    """Return a digest of each thing that a run left, by its name, and the card without times."""
    run = folder / RUN
    found: dict[str, Any] = {
        name: hashlib.sha256((run / "artifact" / name).read_bytes()).hexdigest() for name in FILES
    }
    found["dense"] = hashlib.sha256((run / "dense.safetensors").read_bytes()).hexdigest()
    newest = max((run / "checkpoints").glob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    content = torch.load(newest, weights_only=True)
    for key in ("state_dict", "optimizer_states", "callbacks", "epoch", "global_step"):
        for name, value in flat(content[key], key):
            if ".ModelCheckpoint" not in name and "ModelCheckpoint{" not in name:  # paths
                found[f"checkpoint: {name}"] = value
    card = json.loads((run / "artifact" / "card.json").read_text("utf-8"))
    found |= {f"card: {name}": value for name, value in flat(card, "")}
    here = str(folder.resolve())
    return {k: v.replace(here, "") if isinstance(v, str) else v for k, v in found.items()}


def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested values, tensors as digests of their bytes, without times."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in TIMES:
                yield from flat(item, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flat(item, f"{name}/{index}")
    elif isinstance(value, torch.Tensor):
        data = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        kind = f"{value.dtype} {tuple(value.shape)}"
        yield name, f"{kind} {hashlib.sha256(data).hexdigest()}"
    else:
        yield name, repr(value)


def differences(whole: Mapping[str, Any], part: Mapping[str, Any]) -> list[str]:
    """Return the names of what is not equal."""
    return sorted(name for name in whole.keys() | part.keys() if whole.get(name) != part.get(name))


# --- kills -------------------------------------------------------------------------------------


def written(folder: Path) -> dict[str, int]:
    """Return when the checkpoints and the folders of the run were last changed."""
    run, found = folder / RUN, {}
    for place in (run, run / "checkpoints"):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    found[entry.path] = entry.stat().st_mtime_ns
        except FileNotFoundError:
            continue  # not made yet, or just renamed
    return found


def wait_for_write(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> str:
    """Wait until the run has written some more files, and a moment more."""
    number, known = chance.randint(1, 14), written(folder)
    for _ in range(number):
        while (now := written(folder)) == known and process.poll() is None:
            time.sleep(LOOK)
        changed = [path for path, when in now.items() if known.get(path) != when]
        known = now
    pause = chance.choice([0.0, chance.uniform(0, AFTER_WRITE)])
    time.sleep(pause)
    names = ", ".join(Path(path).name for path in changed)
    return f"{pause:.3f} s after change {number} of files ({names})"


def used(process: subprocess.Popen[bytes]) -> float:
    """Return the seconds that a process has had the processor: the same on a busy machine."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return float("inf")  # it has ended
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill(folder: Path, chance: random.Random, seconds: float) -> Kill | None:
    """Start the fit and kill it; None if it ended before.

    Args:
        folder: Its folder.
        chance: Draws signal and moment.
        seconds: Time of the processor that the whole run takes.
    """
    process = start(folder)
    which = chance.choice([signal.SIGKILL, signal.SIGTERM])
    if chance.random() < AT_WRITES:
        moment = wait_for_write(process, folder, chance)
    else:
        pause = chance.uniform(0, seconds)
        moment = f"after {pause:.3f} s of the processor"
        while process.poll() is None and used(process) < pause:
            time.sleep(LOOK)
    if process.poll() is not None:
        return None
    process.send_signal(which)
    return Kill(which.name, moment, process.wait(LIMIT))


def tried(number: int, seed: int, folder: Path, whole: Mapping[str, Any], seconds: float) -> Trial:
    """Kill one run up to three times, let it end, and compare it with the whole run."""
    chance, trial = random.Random(f"{seed}/{number}"), Trial(number)
    folder.mkdir(parents=True)
    for _ in range(chance.randint(1, MOST)):
        if (one := kill(folder, chance, seconds)) is not None:
            trial.kills.append(one)
    try:
        finish(folder)
        trial.differs = differences(whole, left_by(folder))
    except (SystemExit, OSError, ValueError, RuntimeError) as error:
        trial.differs = [f"{type(error).__name__}: {error}"]
    return trial


def main() -> int:
    """Run the trials until enough signals were sent; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="signals to send (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of signals and moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="keeps failed runs (default: a temporary one)")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp(prefix="lit-compress-kills-"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "whole").mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finish(folder / "whole")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    whole = left_by(folder / "whole")
    trials: list[Trial] = []
    while sum(len(trial.kills) for trial in trials) < words.kills:
        place = folder / f"run-{len(trials)}"
        trial = tried(len(trials), words.seed, place, whole, seconds)
        trials.append(trial)
        with (folder / "trials.jsonl").open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
        for one in trial.kills:
            print(f"run {trial.number}: {one.signal} {one.moment}: {one.code}", flush=True)
        if trial.differs:
            print(f"run {trial.number} differs: {trial.differs[:20]}\n{tail(place)}", flush=True)
        else:
            shutil.rmtree(place)
    return summary(trials, folder, seconds)


def summary(trials: list[Trial], folder: Path, seconds: float) -> int:
    """Print the result, and return the exit code."""
    kills = [one for trial in trials for one in trial.kills]
    hard = sum(one.signal == "SIGKILL" for one in kills)
    at_writes = sum("change" in one.moment for one in kills)
    equal = [trial for trial in trials if not trial.differs]
    same = sum(len(trial.kills) for trial in equal)
    kinds = f"{hard} SIGKILL, {len(kills) - hard} SIGTERM; {at_writes} at writes"
    runs = f"{len(equal)} of {len(trials)} runs of {seconds:.1f} s"
    print(f"{same} of {len(kills)} kills ({kinds}), {runs}: equal to the whole run")
    if len(equal) == len(trials):
        shutil.rmtree(folder)
        return 0
    print(f"the runs that differ are in {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
