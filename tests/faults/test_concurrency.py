"""One model for many threads, a folder that many load, and models in processes that were forked."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer, seed_everything

import lit_compress
from lit_compress.artifact import OnnxModel
from lit_compress.callbacks import PostTrainingQuantization
from lit_compress.errors import ArtifactError

THREADS, ROUNDS = 8, 40
FORKS = 10
#: Seconds after which a forked process is taken to wait for ever.
LONG = 20

Runtime = Literal["onnxruntime", "openvino"]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an artefact of a network as it was made."""
    folder = tmp_path_factory.mktemp("concurrency") / "artifact"
    seed_everything(0, verbose=False)
    quantizer = PostTrainingQuantization(dirpath=str(folder))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, callbacks=[quantizer], **quiet)
    trainer.fit(ForeignModule(), loader(), loader(64, 1))
    return folder


@pytest.fixture(params=["onnxruntime", "openvino"])
def runtime(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(request.param)
    return request.param


def batches(model: OnnxModel, count: int = THREADS) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    shapes = [(4 + index, *model.input_shape) for index in range(count)]
    return [random.normal(size=shape).astype(model.input_dtype) for shape in shapes]


def at_once(call: Callable[[int], Any]) -> list[Any]:
    """Call a function in eight threads that begin together."""
    start = threading.Barrier(THREADS)

    def waiting(index: int) -> Any:
        start.wait()
        return call(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(waiting, range(THREADS)))


@pytest.mark.parametrize("threads", [1, 4])
def test_eight_threads_call_one_model(artifact: Path, threads: int, runtime: Runtime) -> None:
    """OpenVINO was given one request for all threads, and refused what came while it was busy."""
    model = lit_compress.load(artifact, threads=threads, runtime=runtime)
    inputs = batches(model)
    alone = [model(batch) for batch in inputs]
    found = at_once(lambda index: [model(inputs[index]) for _ in range(ROUNDS)])
    equal = [np.array_equal(alone[i], one) for i, outputs in enumerate(found) for one in outputs]
    assert (sum(equal), len(equal)) == (THREADS * ROUNDS, THREADS * ROUNDS)


def test_eight_threads_load_one_folder(artifact: Path) -> None:
    inputs = batches(lit_compress.load(artifact))[0]
    alone = lit_compress.load(artifact)(inputs)
    found = at_once(lambda _: [lit_compress.load(artifact)(inputs) for _ in range(3)])
    assert all(np.array_equal(one, alone) for outputs in found for one in outputs)


@contextmanager
def busy(model: OnnxModel, batch: np.ndarray) -> Iterator[None]:
    """Let four threads call a model all the time."""
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            model(batch)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        stop.set()
        for one in threads:
            one.join()


def forked(check: Callable[[], bool]) -> int:
    """Return how a forked process ends: 0 if a check holds in it, and the signal if it waits."""
    child = os.fork()
    if not child:
        signal.alarm(LONG)
        try:
            code = 0 if check() else 3
        except BaseException:  # the parent must not go on in the child
            traceback.print_exc(file=sys.__stderr__)
            code = 4
        os._exit(code)
    return os.waitpid(child, 0)[1]


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 4])
def test_a_model_is_called_in_forked_processes(artifact: Path, threads: int) -> None:
    """A call in another thread held a lock at the moment of the fork: the child waited for ever."""
    model = lit_compress.load(artifact, threads=threads)
    first, second = batches(model, 2)
    expected = model(second)
    with busy(model, first):
        found = [forked(lambda: np.array_equal(model(second), expected)) for _ in range(FORKS)]
    assert found == [0] * FORKS


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_is_loaded_in_forked_processes(artifact: Path) -> None:
    model = lit_compress.load(artifact, threads=4)
    first, second = batches(model, 2)
    expected = model(second)

    def loads() -> bool:
        return np.array_equal(lit_compress.load(artifact)(second), expected)

    with busy(model, first):
        assert [forked(loads) for _ in range(FORKS)] == [0] * FORKS


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_openvino_is_refused_in_forked_processes(artifact: Path) -> None:
    """Its threads are those of the process: also a model that the child opens may wait for ever."""
    pytest.importorskip("openvino")
    model = lit_compress.load(artifact, runtime="openvino")
    inputs = batches(model, 1)[0]

    def refused() -> bool:
        for call in (lambda: model(inputs), lambda: lit_compress.load(artifact, 1, "openvino")):
            with pytest.raises(ArtifactError, match=r"forked.*spawn.*onnxruntime"):
                call()
        return True

    assert forked(refused) == 0
