"""The choice of blocks: least loss for what is saved, nearest to what is due."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from conftest import loader
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from callbacks._blocks.test_worth import ask
from callbacks.test_block_pruning import Residual
from lit_compress.callbacks._blocks.choice import Choice, Ranking, choose_blocks
from lit_compress.evaluation.example_inputs import ExampleInputs
from lit_compress.pruning.blocks.analysis import find_blocks
from lit_compress.pruning.blocks.block import BlockGraph

MakeTrainer = Callable[..., Trainer]
__all__ = ["ask"]
X = torch.randn(2, 1, 8, 8)


def chosen(
    make_trainer: MakeTrainer, due: Fraction, removed: tuple[str, ...] = (), of: str = "blocks"
) -> tuple[list[Choice], BlockGraph]:
    """Choose at the start of a fit, in a network whose blocks matter from first to last."""
    module, found = Residual(), []
    for number in range(4):
        last = module.net[number + 2].last
        nn.init.normal_(last.weight, 0, 10.0 ** (number - 4))
        nn.init.zeros_(last.bias)

    class Choosing(Residual):
        def on_train_start(self) -> None:
            graph = find_blocks(module, X)
            ranking = Ranking(of, None, True, 2)  # type: ignore[arg-type]
            example = ExampleInputs("", X)
            found.append(
                (choose_blocks(self.trainer, self, example, graph, removed, due, ranking), graph)
            )

    run = Choosing()
    run.load_state_dict(module.state_dict())
    make_trainer(max_epochs=1).fit(run, loader(32), loader(32, 1))
    assert not [m for m in run.modules() if type(m).__name__ == "StandIn"]
    return found[0]


def test_the_least_needed_go_first(make_trainer: MakeTrainer) -> None:
    choices, _ = chosen(make_trainer, Fraction(3, 4))
    assert [choice.name for choice in choices] == ["net.2", "net.3", "net.4"]
    assert [choice.kinds for choice in choices] == [{c.name: "identity"} for c in choices]
    assert 0 < choices[0].cost < choices[1].cost < choices[2].cost


def test_those_that_went_count(make_trainer: MakeTrainer) -> None:
    choices, _ = chosen(make_trainer, Fraction(1, 2), removed=("net.5",))
    assert [choice.name for choice in choices] == ["net.2"]
    choices, _ = chosen(make_trainer, Fraction(1, 2), removed=("net.5", "net.4"))
    assert not choices


def test_the_nearest_share_is_taken(make_trainer: MakeTrainer) -> None:
    for due, count in ((Fraction(1, 9), 0), (Fraction(1, 7), 1), (Fraction(2, 5), 2)):
        assert len(chosen(make_trainer, due)[0]) == count


def test_a_share_of_parameters(make_trainer: MakeTrainer) -> None:
    choices, graph = chosen(make_trainer, Fraction(1, 2), of="parameters")
    saved = graph.saved([choice.name for choice in choices], "parameters")
    each = graph.blocks["net.2"].parameters
    assert abs(saved - graph.parameters / 2) <= each / 2


def test_a_copy_is_measured(make_trainer: MakeTrainer) -> None:
    def check(trainer: Trainer, copy: LightningModule) -> None:
        assert Ranking("blocks", "my_loss", False, 1).worth(trainer, copy, "").loss() == 0
        assert Ranking("blocks", None, False, 1).worth(trainer, copy, "").loss() == 0

    ask(make_trainer, check)
