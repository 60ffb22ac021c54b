"""Runs in processes of their own: several at once, killed at any moment, resumed."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def start(*words: object) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(HERE / "pruning_program.py"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=path),
    )


def finished(*words: object) -> None:
    process = start(*words)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out[-2000:]


def digests(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_killed_twenty_times_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    finished(whole)
    final = digests(whole / "final-0")
    chance = random.Random(0)
    kills = completed = 0
    while kills < 20 or not completed:
        process = start(part)
        assert process.stdout is not None
        while (line := process.stdout.readline()) and not line.startswith("epoch"):
            pass
        if kills < 20:
            time.sleep(chance.uniform(0, 1.5))
            process.kill()
            process.stdout.close()
        if process.wait(300) == 0:
            completed += 1
            assert digests(part / "final-0") == final
            shutil.rmtree(part)
            part.mkdir()
        else:
            kills += 1
    print(f"{kills} kills, {completed} runs completed, all with the same weights")


@pytest.mark.parametrize("kind", ["filters", "rules", "blocks", "aware"])
def test_two_processes_hold_the_same_weights_and_resume(kind: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    finished(whole, 2, "-", kind)
    assert digests(whole / "digest-0") == digests(whole / "digest-1")
    assert len(set(digests(whole / "digest-0"))) == 9
    final = digests(whole / "final-0")
    assert digests(whole / "final-1") == final
    for epoch in range(8):
        (whole / "final-0").unlink()
        finished(whole, 2, epoch, kind)
        assert digests(whole / "final-0") == digests(whole / "final-1") == final, epoch
