"""Whole blocks go while a network trains: the module, its optimizers, its checkpoints, its file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from pruning.blocks.nets import Basic, PreNorm
from torch import Tensor, nn
from torch.optim import Optimizer

import lit_compress
from lit_compress import Schedule, load_from_checkpoint, restore
from lit_compress.callbacks import (
    BlockPruning,
    CompressionReport,
    FilterPruning,
    KnowledgeDistillation,
    MagnitudePruning,
    PostTrainingQuantization,
)
from lit_compress.callbacks._pruning.pruned_checkpoints import PrunedCheckpoints
from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import (
    ChannelError,
    CheckpointError,
    InvalidArgumentError,
    LitCompressError,
    PatternError,
    PlanError,
    RuleError,
)
from lit_compress.pruning.blocks.stand_in import StandIn

# The checkpoints of these tests hold the state of the callback that wrote them.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

MakeTrainer = Callable[..., Trainer]
ONCE = Schedule(first=1, shape="one_shot")


class Residual(ForeignModule):
    """Four blocks, of which some are hardly used: their branches are small."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        blocks = [Basic(6) for _ in range(count)]
        for block in blocks[1:3]:
            nn.init.normal_(block.last.weight, 0, 1e-3)
            nn.init.zeros_(block.last.bias)
        self.net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 4),
        )

    def configure_optimizers(self) -> Any:
        weights = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() < 2]
        groups = [{"params": weights, "weight_decay": 0.01}, {"params": others}]
        optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Tokens(ForeignModule):
    """A small vision transformer with two pre-norm layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, 4)
        self.net = nn.Sequential(PreNorm(8), PreNorm(8), nn.LayerNorm(8), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.patch(x).flatten(2).transpose(1, 2)).mean(1)


def fit(
    make_trainer: MakeTrainer,
    *callbacks: Any,
    module: ForeignModule | None = None,
    ckpt_path: str | Path | None = None,
    **options: Any,
) -> tuple[Any, Trainer]:
    if module is None:
        seed_everything(0, verbose=False)
        module = Residual()
    trainer = make_trainer(callbacks=list(callbacks), **options)
    path = None if ckpt_path is None else str(ckpt_path)
    trainer.fit(module, loader(48), loader(32, 1), ckpt_path=path)
    return module, trainer


def gone(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, StandIn)]


def equal(one: Any, other: Any) -> bool:
    """Tell whether nested values are equal, tensors bit by bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def every_epoch(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1)


# --- what goes -----------------------------------------------------------------------------------


def test_the_blocks_that_cost_least_are_gone(make_trainer: MakeTrainer) -> None:
    seed_everything(0, verbose=False)
    module = Residual()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    pruning = BlockPruning(0.5, schedule=Schedule(shape="one_shot"))
    _, trainer = fit(make_trainer, pruning, module=module)
    assert set(pruning.removed) == {"net.3", "net.4"}  # those whose branches are small
    assert gone(module) == ["net.3", "net.4"]
    left = sum(parameter.numel() for parameter in module.parameters())
    assert left == parameters - 2 * sum(p.numel() for p in module.net[2].parameters())
    held = [p for g in trainer.optimizers[0].param_groups for p in g["params"]]
    assert set(map(id, held)) == set(map(id, module.parameters()))
    logged = trainer.callback_metrics
    assert logged["compress/parameters"] == left
    assert logged["compress/reached"] == 0.5
    assert pruning.progress()["removed"] == list(pruning.removed)


def test_an_optimizer_keeps_the_state_of_what_is_left(make_trainer: MakeTrainer) -> None:
    class Watched(BlockPruning):
        def prune(self, trainer: Trainer, pl_module: Any, share: Any) -> float:
            before = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
            kept = [n for n, p in enumerate(in_groups(trainer)) if not is_in(p, pl_module.net[3])]
            reached = super().prune(trainer, pl_module, share)
            after = trainer.optimizers[0].state_dict()["state"]
            assert len(after) == len(kept) < len(before)
            assert all(equal(before[n], after[i]) for i, n in enumerate(kept))
            return reached

    def in_groups(trainer: Trainer) -> list[Tensor]:
        return [p for group in trainer.optimizers[0].param_groups for p in group["params"]]

    def is_in(parameter: Tensor, part: nn.Module) -> bool:
        return any(parameter is other for other in part.parameters())

    pruning = Watched(0.9, schedule=ONCE, include=["net.3"])
    fit(make_trainer, pruning)
    assert pruning.removed == ("net.3",)


@pytest.mark.parametrize("of", ["parameters", "macs", "nodes"])
def test_a_share_of_a_cost(of: Any, make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.4, of=of, schedule=ONCE)
    module, _ = fit(make_trainer, pruning)
    dense = BlockPruning(0.4).describe(Residual(), torch.zeros(2, 1, 8, 8)).graph
    share = dense.saved(pruning.removed, of) / dense.total(of)
    assert pruning.reached == pytest.approx(share)
    others = [dense.saved(gone(module)[:n], of) / dense.total(of) for n in range(5)]
    assert abs(share - 0.4) == min(abs(other - 0.4) for other in others)


WORTH = {"net.2": 0.3, "net.3": 0.2, "net.4": 0.1, "net.5": -0.4}


class Preferring(Residual):
    """Logs a metric that says which block is worth what."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("quality", -sum(WORTH[name] for name in gone(self)))


@pytest.mark.parametrize(
    ("mode", "first"), [("max", ["net.5", "net.4"]), ("min", ["net.2", "net.3"])]
)
def test_a_metric_ranks(mode: Any, first: list[str], make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.5, schedule=ONCE, rank_by="quality", batches=2, mode=mode)
    fit(make_trainer, pruning, module=Preferring())
    assert list(pruning.removed) == first


def test_half_precision_of_activations(make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.5, schedule=ONCE)
    fit(make_trainer, pruning, precision="bf16-mixed", accumulate_grad_batches=2)
    assert pruning.reached == 0.5


def test_the_layers_of_a_transformer(make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.5, schedule=Schedule(first=1, last=2))
    module, _ = fit(make_trainer, pruning, module=Tokens(), max_epochs=4)
    assert len(pruning.removed) == 2
    assert len(gone(module)) >= 2


def test_manual_optimization_with_two_optimizers(make_trainer: MakeTrainer) -> None:
    class Manual(ManualModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Residual(3).net

        def configure_optimizers(self) -> Any:
            convs = [p for n, p in self.named_parameters() if not n.startswith("net.7")]
            head = self.net[7].parameters()
            return torch.optim.AdamW(convs), torch.optim.SGD(head, 0.1, momentum=0.9)

    pruning = BlockPruning(0.4, schedule=ONCE)
    module, trainer = fit(make_trainer, pruning, module=Manual())
    held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
    assert len(pruning.removed) == 1
    assert held == set(map(id, module.parameters()))


def test_batch_norm_statistics_are_estimated_anew(make_trainer: MakeTrainer) -> None:
    plain, again = BlockPruning(0.5, schedule=ONCE), BlockPruning(0.5, schedule=ONCE, recalibrate=2)
    one, _ = fit(make_trainer, plain, max_epochs=3)
    other, _ = fit(make_trainer, again, max_epochs=3)
    assert plain.removed == again.removed
    assert not torch.equal(one.net[5].bn.running_mean, other.net[5].bn.running_mean)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Residual, Tokens])
def test_resume_from_each_epoch_ends_in_equal_bits(
    kind: type[ForeignModule], tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    def run(*more: Any, ckpt_path: Path | None = None) -> tuple[Any, Trainer, BlockPruning]:
        seed_everything(0, verbose=False)
        pruning = BlockPruning(0.5, schedule=Schedule(first=1, last=2), monitor="my_acc")
        options = {"max_epochs": 4, "enable_checkpointing": bool(more)}
        module, trainer = fit(
            make_trainer, pruning, *more, module=kind(), ckpt_path=ckpt_path, **options
        )
        return module, trainer, pruning

    whole, trainer, pruning = run(every_epoch(tmp_path))
    assert pruning.reached == 0.5
    for epoch in range(3):
        module, other, resumed = run(ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert resumed.removed == pruning.removed
        assert resumed.history == pruning.history
        assert equal(dict(whole.state_dict()), dict(module.state_dict()))
        assert equal(trainer.optimizers[0].state_dict(), other.optimizers[0].state_dict())


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Residual, Path]:
    """A network without two blocks, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("pruned")
    seed_everything(0, verbose=False)
    module = Residual()
    pruning = BlockPruning(0.5, schedule=ONCE)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[pruning, every_epoch(folder)],
    )
    trainer.fit(module, loader(48), loader(32, 1))
    trainer.save_checkpoint(folder / "weights.ckpt", weights_only=True)
    return module.eval(), folder


X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["epoch=2.ckpt", "weights.ckpt"])
def test_a_checkpoint_loads_into_a_new_module(name: str, pruned: tuple[Residual, Path]) -> None:
    module, folder = pruned
    torch.load(folder / name, weights_only=True)  # plain values alone
    loaded = load_from_checkpoint(Residual, folder / name).eval()
    assert gone(loaded) == gone(module)
    assert torch.equal(loaded(X), module(X))
    assert all(part.removed is None for part in loaded.modules() if isinstance(part, StandIn))
    fresh = Residual().eval()
    load_weights(fresh, folder / name)
    assert torch.equal(fresh(X), module(X))


def test_a_checkpoint_from_before_the_removal_has_all_blocks(
    pruned: tuple[Residual, Path], make_trainer: MakeTrainer
) -> None:
    """Of a run that tests its best checkpoint, which is an early one."""
    _, folder = pruned
    dense = load_from_checkpoint(Residual, folder / "epoch=0.ckpt").eval()
    assert not gone(dense)
    pruning = BlockPruning(0.5, schedule=ONCE)
    module, trainer = fit(make_trainer, pruning)
    assert gone(module)
    trainer.validate(module, loader(32, 1), ckpt_path=folder / "epoch=0.ckpt", verbose=False)
    assert not gone(module)
    assert torch.equal(module.eval()(X), dense(X))
    trainer.validate(module, loader(32, 1), ckpt_path=folder / "epoch=2.ckpt", verbose=False)
    assert gone(module) == gone(pruned[0])
    assert torch.equal(module.eval()(X), pruned[0](X))


def test_a_run_without_the_callback_tests_its_checkpoint(
    pruned: tuple[Residual, Path], make_trainer: MakeTrainer
) -> None:
    module, folder = pruned
    fresh = Residual()
    trainer = make_trainer(callbacks=[PrunedCheckpoints()])
    trainer.validate(fresh, loader(32, 1), ckpt_path=folder / "epoch=2.ckpt", verbose=False)
    assert torch.equal(fresh.eval()(X), module(X))
    with pytest.raises(CheckpointError, match="saved with a pruning callback"):
        fit(make_trainer, PrunedCheckpoints(), ckpt_path=folder / "epoch=1.ckpt")


def test_a_later_fit_goes_on_without_the_blocks(
    pruned: tuple[Residual, Path], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Its checkpoints, that of another callback's run, say what was removed."""
    loaded = load_from_checkpoint(Residual, pruned[1] / "epoch=2.ckpt")
    pruning = FilterPruning(0.5, schedule=Schedule(shape="one_shot"))
    module, trainer = fit(make_trainer, pruning, module=loaded)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = load_from_checkpoint(Residual, tmp_path / "a.ckpt").eval()
    assert gone(again) == gone(pruned[0])
    assert torch.equal(again(X), module.eval()(X))
    more = BlockPruning(0.5, schedule=Schedule(shape="one_shot"))
    further, trainer = fit(make_trainer, more, module=again)
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    assert len(gone(further)) == 3
    assert torch.equal(
        load_from_checkpoint(Residual, tmp_path / "b.ckpt").eval()(X), further.eval()(X)
    )


def test_a_callback_that_fits_twice_goes_on(make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.5, schedule=Schedule(first=0, last=1))
    module, _ = fit(make_trainer, pruning)
    removed = pruning.removed
    fit(make_trainer, pruning, module=module)
    assert pruning.removed == removed
    fit(make_trainer, pruning, module=Residual())  # another network is pruned from the beginning
    assert pruning.reached == 0.5


@pytest.mark.parametrize(
    "damage",
    [
        {"removed": ["nine"]},
        {"removed": None},
        {"total": [1]},
        {"blocks": [["net.3", {"net.3": "identity"}]]},
    ],
)
def test_a_damaged_state_is_refused(
    damage: dict[str, Any], pruned: tuple[Residual, Path], tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    content = torch.load(pruned[1] / "epoch=1.ckpt", weights_only=True)
    (state,) = [s for key, s in content["callbacks"].items() if "BlockPruning" in key]
    state["blocks"].update(damage)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(LitCompressError, match="damaged"):
        fit(make_trainer, BlockPruning(0.5, schedule=ONCE), ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "blocks", [{"net.3": "os.system"}, {"net.33": "identity"}, {"": "identity"}, ["net.3"]]
)
def test_a_damaged_record_makes_nothing(
    blocks: Any, pruned: tuple[Residual, Path], tmp_path: Path
) -> None:
    content = torch.load(pruned[1] / "epoch=2.ckpt", weights_only=True)
    for key in ("lit_compress", *content["callbacks"]):
        record = content.get(key) or content["callbacks"][key]
        if "original" in record:
            record["original"]["blocks"] = blocks
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises((CheckpointError, PlanError)):
        load_from_checkpoint(Residual, tmp_path / "a.ckpt")


def test_a_fit_that_fails_leaves_the_module_as_it_was(
    pruned: tuple[Residual, Path], tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    content = torch.load(pruned[1] / "epoch=1.ckpt", weights_only=True)
    (state,) = [s for key, s in content["callbacks"].items() if "BlockPruning" in key]
    state["blocks"]["total"] = None  # states are restored after the weights
    torch.save(content, tmp_path / "a.ckpt")
    module = Residual()
    before = copy.deepcopy(module.state_dict())
    pruning = BlockPruning(0.5, schedule=ONCE)
    with pytest.raises(LitCompressError):
        fit(make_trainer, pruning, module=module, ckpt_path=tmp_path / "a.ckpt")
    assert not gone(module)
    assert equal(dict(before), dict(module.state_dict()))


# --- a limit for the metric ----------------------------------------------------------------------


class Falling(Residual):
    """Logs a metric that falls with each block that goes."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("quality", 1.0 - 0.1 * len(gone(self)))


def test_a_run_goes_back_to_the_network_that_kept_its_metric(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    pruning = BlockPruning(
        0.75,
        schedule=Schedule(first=0, last=2, shape="linear"),
        monitor="quality",
        max_drop=0.15,
        mode="max",
    )
    with pytest.warns(UserWarning, match="the run goes back|gave way"):
        module, trainer = fit(make_trainer, pruning, module=Falling(), max_epochs=5)
    assert len(gone(module)) == len(pruning.removed) == 1
    assert pruning.reached == 0.25
    held = [p for g in trainer.optimizers[0].param_groups for p in g["params"]]
    assert set(map(id, held)) == set(map(id, module.parameters()))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = load_from_checkpoint(Falling, tmp_path / "a.ckpt").eval()
    assert torch.equal(loaded(X), module.eval()(X))


def test_steps_wait_for_the_metric(make_trainer: MakeTrainer) -> None:
    pruning = BlockPruning(0.5, schedule=Schedule(0, 1), monitor="my_loss", max_drop=100.0)
    fit(make_trainer, pruning, max_epochs=4)
    assert pruning.reached == 0.5


# --- with other callbacks ------------------------------------------------------------------------


def test_filters_go_from_what_blocks_leave_and_a_run_resumes(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(*more: Any, ckpt_path: Path | None = None) -> tuple[Any, Any]:
        blocks = BlockPruning(0.5, schedule=ONCE)
        filters = FilterPruning(0.5, schedule=Schedule(first=2, last=3))
        options = {"max_epochs": 5, "enable_checkpointing": bool(more)}
        module, _ = fit(make_trainer, blocks, filters, *more, ckpt_path=ckpt_path, **options)
        return module, filters

    module, filters = run(every_epoch(tmp_path))
    assert len(gone(module)) == 2
    assert filters.reached == pytest.approx(0.5, abs=0.1)
    assert module.net[2].a.out_channels < 6
    for epoch in (0, 1, 2):
        other, _ = run(ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert equal(dict(module.state_dict()), dict(other.state_dict()))
    loaded = load_from_checkpoint(Residual, tmp_path / "epoch=4.ckpt").eval()
    assert torch.equal(loaded(X), module.eval()(X))


@pytest.mark.usefixtures("no_trial_conversion", "noise_of_two_inputs")
def test_the_file_has_fewer_nodes_and_the_card_says_which_blocks_went(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")

    def nodes(folder: Path, *callbacks: Any) -> int:
        quantize = PostTrainingQuantization(dirpath=str(folder))
        report = CompressionReport(dirpath=str(folder))
        fit(make_trainer, *callbacks, quantize, report)
        return len(onnx.load(folder / "model.onnx").graph.node)

    pruning = BlockPruning(0.5, schedule=ONCE)
    assert nodes(tmp_path / "pruned", pruning) < nodes(tmp_path / "dense")
    net = lit_compress.load(tmp_path / "pruned")
    assert net.card.pruning[0]["removed"] == list(pruning.removed)
    dense, small = (net.card.variant(name) for name in ("dense", "pruned"))
    assert dense.parameters > small.parameters
    module = restore(tmp_path / "pruned", Residual)
    assert gone(module) == sorted(pruning.removed)


def test_distillation_learns_from_the_network_with_all_blocks(make_trainer: MakeTrainer) -> None:
    teacher, pruning = KnowledgeDistillation(), BlockPruning(0.5, schedule=ONCE)
    _, trainer = fit(make_trainer, teacher, pruning)
    assert pruning.reached == 0.5
    assert torch.isfinite(trainer.callback_metrics["compress/distillation_loss"])


def test_a_block_whose_layer_is_compared_with_the_teacher_stays(make_trainer: MakeTrainer) -> None:
    teacher = KnowledgeDistillation(features=["net.3.a"], feature_weight=1.0)
    pruning = BlockPruning(0.6, schedule=ONCE)
    module, _ = fit(make_trainer, teacher, pruning)
    assert len(gone(module)) == 2
    assert "net.3" not in gone(module)


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_a_compiled_network_loses_blocks(make_trainer: MakeTrainer) -> None:
    module = Residual()
    module.net = torch.compile(module.net, backend="eager")
    pruning = BlockPruning(0.5, schedule=ONCE)
    fit(make_trainer, pruning, module=module)
    assert len(gone(module)) == 2
    assert pruning.removed[0].startswith("net._orig_mod.")
    eager = copy.deepcopy(module.net._orig_mod)
    torch.testing.assert_close(module.eval()(X), eager.eval()(X))


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([FilterPruning(0.5, schedule=Schedule(0, 1))], "let it begin later"),
        ([FilterPruning(0.5, schedule=ONCE), "blocks"], "let it begin later"),
        ([MagnitudePruning(0.5, schedule=Schedule(2))], "cannot run together"),
        ([BlockPruning(0.3, schedule=Schedule(2))], "cannot run together"),
    ],
)
def test_callbacks_in_another_order_are_refused(
    others: list[Any], why: str, make_trainer: MakeTrainer
) -> None:
    blocks = BlockPruning(0.5, schedule=ONCE)
    order = [blocks if other == "blocks" else other for other in others]
    order = order if blocks in order else [blocks, *order]
    with pytest.raises(InvalidArgumentError, match=why):
        fit(make_trainer, *order, max_epochs=4)


def test_a_limit_next_to_filters_is_refused(make_trainer: MakeTrainer) -> None:
    blocks = BlockPruning(0.5, schedule=ONCE, monitor="my_acc", max_drop=0.1)
    with pytest.raises(InvalidArgumentError, match="with max_drop cannot run together"):
        fit(make_trainer, blocks, FilterPruning(0.5, schedule=Schedule(2)), max_epochs=4)


# --- refused before the training -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "why"),
    [
        ({"target": 0.5, "exclude": ["*"]}, ChannelError, "no block can be removed: .*is excluded"),
        ({"target": 0.5, "exclude": ["nett.*"]}, PatternError, "matches no block"),
        ({"target": 0.99, "of": "parameters"}, InvalidArgumentError, "at the most|cannot be reach"),
        ({"target": 0.01}, InvalidArgumentError, "removes no block"),
        ({"target": 0.5, "rank_by": "nothing"}, InvalidArgumentError, "is not logged"),
    ],
)
def test_what_cannot_be_reached_is_refused(
    arguments: dict[str, Any], kind: type[Exception], why: str, make_trainer: MakeTrainer
) -> None:
    module = Residual()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(kind, match=why):
        fit(make_trainer, BlockPruning(**arguments), module=module)
    assert equal(dict(before), dict(module.state_dict()))


def test_a_network_without_blocks_says_what_was_looked_at(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ChannelError, match="no module of the network adds a branch to its input"):
        fit(make_trainer, BlockPruning(0.5), module=ForeignModule())


class Diverging(Residual):
    """Has NaN among its weights when the first epoch is over."""

    def on_train_epoch_end(self) -> None:
        nn.init.constant_(self.net[0].weight, float("nan"))


def test_a_diverged_network_cannot_be_ranked(make_trainer: MakeTrainer) -> None:
    with pytest.raises(LitCompressError, match=r"not finite|no finite value|NaN"):
        fit(make_trainer, BlockPruning(0.5, schedule=ONCE), module=Diverging())


def test_a_resumed_run_may_have_a_higher_target(
    pruned: tuple[Residual, Path], make_trainer: MakeTrainer
) -> None:
    more = BlockPruning(0.75, schedule=Schedule(first=1, last=2))
    path = pruned[1] / "epoch=1.ckpt"
    module, _ = fit(make_trainer, more, ckpt_path=path, max_epochs=4)
    assert len(gone(module)) == 3
    assert more.reached == 0.75  # of the network with all blocks
    other = BlockPruning(0.99, of="parameters", schedule=Schedule(first=1, last=2))
    with pytest.raises(InvalidArgumentError, match="cannot be reached"):
        fit(make_trainer, other, ckpt_path=path, max_epochs=4)


class Regularised(Residual):
    """Its training step reads the weights of a block that the forward would do without."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + self.net[3].last.weight.square().sum()


def test_a_block_that_a_step_needs_stays(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    pruning = BlockPruning(0.6, schedule=ONCE)
    with caplog.at_level("INFO"):
        module, _ = fit(make_trainer, pruning, module=Regularised())
    assert "net.3" not in gone(module)
    assert len(gone(module)) == 2
    assert "training_step fails without it (AttributeError" in caplog.text


class Averaged(Residual):
    """Keeps an average of its network, as mean teachers do."""

    def __init__(self) -> None:
        super().__init__()
        self.ema = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            for slow, fast in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                slow.lerp_(fast, 0.1)

    def configure_optimizers(self) -> Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.01)


def test_an_average_in_the_module_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(InvalidArgumentError, match="ema is an average of net"):
        fit(make_trainer, BlockPruning(0.5), module=Averaged())


def test_lbfgs_is_refused(make_trainer: MakeTrainer) -> None:
    class Whole(Residual):
        def configure_optimizers(self) -> Optimizer:
            return torch.optim.LBFGS(self.parameters(), lr=0.1)

    with pytest.raises(InvalidArgumentError, match=r"LBFGS.*one joint state.*use SGD"):
        fit(make_trainer, BlockPruning(0.5, schedule=ONCE), module=Whole())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"target": 1}, "target must be in"),
        ({"target": 0.5, "of": "layers"}, "of must be one of blocks"),
        ({"target": 0.5, "batches": 0}, "batches must be a whole number"),
        ({"target": 0.5, "exclude": "net.1"}, "exclude must be a list"),
        ({"target": 0.5, "max_drop": 0.1}, "max_drop needs a metric"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgumentError, match=why):
        BlockPruning(**arguments)


def test_a_rule_keeps_a_block_and_takes_no_ratio(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text('- {pattern: "net.2", skip: true}\n')
    preview = BlockPruning(0.5, rules=str(path)).describe(Residual(), X)
    assert "net.2" not in preview.graph.blocks
    assert preview.graph.kept["net.2"].startswith("a rule says so")
    path.write_text('- {pattern: "net.2", ratio: 0.5}\n')
    with pytest.raises(RuleError, match="a block goes as a whole"):
        BlockPruning(0.5, rules=str(path))
