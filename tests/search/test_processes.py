"""Workers in processes of their own: three of one study, of which one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_compress.artifact.folder.card import read_card

from .test_command import FIT, SEARCH
from .told import optuna, rows

pytestmark = pytest.mark.slow
#: Seconds that workers may take: a busy machine is no fault.
PATIENCE = 1500
#: Seconds between two signs of life.
HEARTBEAT = 2
#: The fit of a trial ends with an int8 file.
INT8 = {"class_path": "PostTrainingQuantization", "init_args": {"monitor": "val_acc"}}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    trainer = {**FIT["trainer"], "callbacks": [FIT["trainer"]["callbacks"][0], INT8]}
    search = SEARCH | {"trials": 6, "sampler": "tpe", "heartbeat": HEARTBEAT}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(FIT | {"trainer": trainer}))
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(search))


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start lit-compress in a folder."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "lit_compress", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"),
    )


def worker(folder: Path, *words: str) -> subprocess.Popen[str]:
    return start(folder, "search", "--config=search.yaml", *words)


def ended(process: subprocess.Popen[str]) -> str:
    out: str = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, out[-3000:]
    return out


def trials(storage: Any) -> list[Any]:
    """Return the trials of the study; none before it is made."""
    try:
        found: list[Any] = optuna.load_study(study_name="search", storage=storage).trials
    except Exception:
        return []
    return found


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return what is true of a condition, once it is."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def fitting(folder: Path) -> list[str]:
    """Return the folders of trials whose fit has begun."""
    return [path.parent.name for path in folder.glob("search/trials/*/fit.log")]


def test_three_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search' / 'study.db'}"
    victim = worker(tmp_path)
    (number,) = map(int, wait_for(lambda: fitting(tmp_path)))
    others = [worker(tmp_path), worker(tmp_path)]
    victim.kill()
    victim.communicate()
    printed = [ended(one) for one in others]
    found = trials(storage)
    assert found[number].state.name == "FAIL"
    (again,) = [one for one in found if one.system_attrs.get("failed_trial") == number]
    assert (again.params, again.state.name) == (found[number].params, "COMPLETE")
    states = [one.state.name for one in found]
    assert states.count("FAIL") == 1
    assert states.count("COMPLETE") + states.count("PRUNED") == 6
    assert all("6 trials are there" in out for out in printed)
    front = rows(tmp_path / "search")
    best = optuna.load_study(study_name="search", storage=storage).best_trials
    values = {tuple(one.values) for one in best}
    assert {(float(row["val_acc"]), float(row["bytes"])) for row in front} == values
    kept = [path.parent.parent.name for path in tmp_path.glob("search/trials/*/*/model.onnx")]
    assert sorted(kept) == sorted(f"{int(row['trial']):05}" for row in front)


def test_a_point_is_the_same_network_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Trials before it in its process leave no trace in a fit."""
    ended(worker(tmp_path, "--trials=3"))
    row = max(rows(tmp_path / "search"), key=lambda row: int(row["trial"]))
    ended(start(tmp_path, "fit", f"--config=search/{row['config']}"))
    alone, trial = read_card(tmp_path / "artifact"), read_card(row["artifact"])
    assert {"model.onnx", "model.safetensors"} <= set(alone.files)
    assert alone.files == trial.files  # SHA-256
    assert [one.metric for one in alone.variants] == [one.metric for one in trial.variants]


def test_workers_of_a_journal_file(tmp_path: Path) -> None:
    storage = "--storage=journal:study.log"
    victim = worker(tmp_path, storage)
    (number,) = map(int, wait_for(lambda: fitting(tmp_path)))
    victim.kill()
    victim.communicate()
    out = [ended(one) for one in [worker(tmp_path, storage) for _ in range(2)]]
    assert all("a journal file has no heartbeat in Optuna" in one for one in out)
    last = ended(worker(tmp_path, storage, f"--again={number}"))
    assert "run at other workers" not in last
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    states = [one.state.name for one in trials(optuna.storages.JournalStorage(backend))]
    assert states[number] == "FAIL"
    assert states.count("COMPLETE") + states.count("PRUNED") == 6


def test_workers_of_a_proxy(tmp_path: Path) -> None:
    """A gRPC server stands in front of the database: no worker opens it."""
    program = (
        "import optuna, sys\n"
        "storage = optuna.storages.RDBStorage('sqlite:///proxied.db')\n"
        "optuna.storages.run_grpc_proxy_server(storage, host='localhost', port=int(sys.argv[1]))\n"
    )
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", program, str(port)], cwd=tmp_path)
    try:
        words = ("--trials=2", f"--storage=grpc://localhost:{port}")
        out = [ended(one) for one in [worker(tmp_path, *words) for _ in range(2)]]
    finally:
        server.kill()
        server.wait()
    assert all("a gRPC proxy has no heartbeat in Optuna" in one for one in out)
    assert len(trials(f"sqlite:///{tmp_path / 'proxied.db'}")) >= 2
