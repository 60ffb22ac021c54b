from collections.abc import Callable

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_compress.callbacks import CompressionReport, MagnitudePruning
from lit_compress.callbacks._report.variants import empty_card, float_name, time_variants, to_batch
from lit_compress.report.table import card_table


@pytest.mark.parametrize(("size", "rows"), [(1, [0]), (3, [0, 1, 2]), (7, [0, 1, 2, 0, 1, 2, 0])])
def test_a_batch_repeats_the_inputs_there_are(size: int, rows: list[int]) -> None:
    example = torch.randn(3, 2, 4)
    assert torch.equal(to_batch(example, size)[0], example[rows])


def test_what_is_not_of_the_batch_is_not_repeated() -> None:
    example = (torch.randn(3, 2), torch.randn(5), torch.randn(3))
    made = to_batch(example, 5)
    assert [tuple(tensor.shape) for tensor in made] == [(5, 2), (5,), (5,)]


def test_a_network_is_called_pruned_from_its_zeros(
    foreign: ForeignModule, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer()
    assert float_name(trainer, foreign) == "dense"
    with torch.no_grad():
        foreign.net[3].weight[:6] = 0
    assert float_name(trainer, foreign) == "pruned"


def test_each_variant_is_timed_against_the_first_and_its_own_runtime() -> None:
    layer, inputs = nn.Linear(4, 4), torch.randn(1, 4)
    runners = {name: lambda: layer(inputs) for name in ("dense", "onnx", "int8")}
    times = time_variants(runners, {"int8": "onnx"}, batch=1, threads=1)
    assert {name: [s.over for s in t.speedups] for name, t in times.items()} == {
        "dense": [],
        "onnx": ["dense"],
        "int8": ["dense", "onnx"],
    }


class Wave(ForeignModule):
    """Adds a transform of which no products are known."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + torch.fft.rfft(x).abs().sum() * 0)


def test_a_network_with_operators_that_are_not_counted_has_no_macs(
    make_trainer: Callable[..., Trainer],
) -> None:
    """Its MACs were those of the other operators, without a word."""
    report = CompressionReport(batch_size=2)
    make_trainer(max_epochs=1, callbacks=[report]).fit(Wave(), loader(32), loader(32, 1))
    dense = report.card.variant("dense")
    assert dense.macs is None
    assert dense.note == "no MACs, since those of _fft_r2c are not known"
    assert f"dense: {dense.note}" in card_table(report.card)


def test_an_empty_card_has_the_seed_and_the_pruning(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    card = empty_card(make_trainer(callbacks=[MagnitudePruning(0.25)]), {})
    assert (card.seed, card.run) == (7, "run")
    expected = {"callback": "MagnitudePruning", "target": 0.25, "reached": 0.0, "epochs": []}
    assert card.pruning == (expected,)
    card.to_json()
