import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import ForeignModule
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lit_compress.errors import ChannelError
from lit_compress.evaluation.distributed import on_rank_zero, rewrap
from lit_compress.pruning import analyse, apply, make_plan


def processes(count: int) -> list[Any]:
    """Trainers of several processes, the first of which comes first; what it says goes pickled."""
    said: list[bytes] = []

    def broadcast(value: Any) -> Any:
        said.append(pickle.dumps(value))
        return pickle.loads(said[0])  # noqa: S301

    strategy = SimpleNamespace(broadcast=broadcast)
    return [SimpleNamespace(is_global_zero=not rank, strategy=strategy) for rank in range(count)]


def test_the_first_process_decides_for_all() -> None:
    asked = []

    def decide() -> list[int]:
        asked.append(1)
        return [3, 4]

    assert [on_rank_zero(trainer, decide) for trainer in processes(3)] == [[3, 4]] * 3
    assert len(asked) == 1


def test_none_is_a_decision() -> None:
    assert [on_rank_zero(trainer, lambda: None) for trainer in processes(2)] == [None, None]


def test_an_error_is_raised_on_all() -> None:
    def decide() -> None:
        raise ChannelError("no channel can go")

    for trainer in processes(3):
        with pytest.raises(ChannelError, match="no channel can go"):
            on_rank_zero(trainer, decide)


def test_alone_the_trainer_decides(make_trainer: Callable[..., Trainer]) -> None:
    value = object()
    assert on_rank_zero(make_trainer(), lambda: value) is value


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_the_wrapper_is_made_anew_for_the_shapes_that_are_left(foreign: ForeignModule) -> None:
    strategy = DDPStrategy(parallel_devices=[torch.device("cpu")])
    strategy.connect(foreign)
    strategy.configure_ddp()
    first = strategy.model
    images = torch.randn(2, 1, 8, 8)
    graph = analyse(foreign, images)
    apply(make_plan(graph, [group.channels[0] for group in graph.groups]), foreign)
    rewrap(SimpleNamespace(strategy=strategy))  # type: ignore[arg-type]
    assert isinstance(strategy.model, DistributedDataParallel)
    assert strategy.model is not first
    assert strategy.model.module is foreign
    strategy.model(images).sum().backward()
    assert foreign.net[0].weight.grad.shape == (7, 1, 3, 3)


def test_where_nothing_is_wrapped_nothing_is_done(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    model = trainer.strategy.model
    rewrap(trainer)
    assert trainer.strategy.model is model
