"""Folders are replaced whole: after any fault there is the old one or the new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_compress.files.folders import exchange, whole_folder
from lit_compress.files.whole import write_whole

OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "c": "new"}


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def replace(folder: Path, files: dict[str, str] = NEW) -> None:
    with whole_folder(folder) as partial:
        for name, text in files.items():
            (partial / name).write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    replace(tmp_path / "folder", OLD)
    return tmp_path / "folder"


def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_compress.files.folders.exchange", lambda *_: False)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_folder_is_replaced(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if steps == 2:
        two_steps(monkeypatch)
    replace(folder)
    assert content(folder) == NEW
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.skipif(sys.platform != "linux", reason="others may lack the call")
def test_linux_exchanges_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()


#: Functions that a writer calls, and in which the system may fail or the process be killed.
CALLS = ("open", "fsync", "rename", "replace", "mkdir", "close")


def fail_at(number: int, how: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Fail, or be killed, in the call of a number; return how many calls there were."""
    count = 0

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "interrupt":
                    raise KeyboardInterrupt
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("how", ["error", "interrupt"])
def test_a_fault_in_any_call_leaves_the_old_or_the_new(
    folder: Path, how: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = 0
    for number in range(1, 60):
        with monkeypatch.context() as patch:
            if steps == 2:
                two_steps(patch)
            calls = fail_at(number, how, patch)
            try:
                replace(folder)
            except (OSError, KeyboardInterrupt):
                faults += 1
            done = calls() < number
        assert content(folder) in (OLD, NEW)
        replace(folder, OLD)
        assert list(folder.parent.iterdir()) == [folder], number
        if done:
            break
    assert faults > 3


SCRIPT = """
import sys
from pathlib import Path
import pytest
sys.path.insert(0, {tests!r})
import test_folders as here
patch = pytest.MonkeyPatch()
if {steps} == 2:
    here.two_steps(patch)
if {one_file}:
    from lit_compress.files.whole import write_whole
calls = here.fail_at({number}, "kill", patch)
write_whole(sys.argv[1], "new") if {one_file} else here.replace(Path(sys.argv[1]))
print(calls())
"""


def killed(target: Path, number: int, steps: int = 1, one_file: bool = False) -> int:
    """Replace a folder or file in a process that is killed in a call; return its exit status."""
    values = {"tests": str(Path(__file__).parent), "number": number, "steps": steps}
    script = SCRIPT.format(**values, one_file=one_file)
    return subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("steps", [1, 2])
def test_a_kill_in_any_call_leaves_the_old_or_the_new(folder: Path, steps: int) -> None:
    kills = 0
    for number in range(1, 60):
        code = killed(folder, number, steps)
        if folder.exists():
            assert content(folder) in (OLD, NEW)
        else:
            assert steps == 2  # without an exchange, the next writer puts the old one back
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        with whole_folder(folder) as partial:
            assert content(folder) in (OLD, NEW)
            for name, text in OLD.items():
                (partial / name).write_text(text)
        assert list(folder.parent.iterdir()) == [folder], number
    assert kills > 3


def test_a_kill_while_a_file_is_written(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "file", "old")
    kills = 0
    for number in range(1, 60):
        code = killed(path, number, one_file=True)
        assert path.read_text() in ("old", "new")
        if code == 0:
            break
        kills += 1
        write_whole(path, "old")
        assert list(tmp_path.iterdir()) == [path]
    assert kills > 2


def test_of_two_writers_one_wins_whole(folder: Path) -> None:
    def write(text: str) -> None:
        for _ in range(20):
            replace(folder, {"a": text, text: text})

    threads = [threading.Thread(target=write, args=(text,)) for text in ("x", "y", "z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = content(folder)
    assert found in [{"a": text, text: text} for text in "xyz"]
    assert list(folder.parent.iterdir()) == [folder]
