"""FilterPruning: channels leave the network while it trains, and everything around it goes on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    WeightAveraging,
)
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import (
    CompressionReport,
    FilterPruning,
    MagnitudePruning,
    PostTrainingQuantization,
)
from lit_compress.errors import (
    ChannelError,
    CheckpointError,
    InvalidArgumentError,
    PatternError,
    PlanError,
    ScheduleError,
)
from lit_compress.measure import cost
from lit_compress.pruning import Importance
from lit_compress.pruning.channels.resize import unpruned_shapes_of

MakeTrainer = Callable[..., Trainer]
LATE = Schedule(first=1)


class Mobile(LightningModule):
    """A small MobileNetV2: depthwise convolutions, batch norms, residual additions."""

    BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2))

    def __init__(self, width: float = 0.25, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = mobilenet_v2(
            num_classes=4, width_mult=width, dropout=0.0, inverted_residual_setting=self.BLOCKS
        )
        self.net.features[0][0] = nn.Conv2d(
            1, self.net.features[0][0].out_channels, 3, 2, 1, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        scores = self(batch[0])
        self.log("my_acc", (scores.argmax(-1) == batch[1]).float().mean())

    test_step = validation_step

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(
            self.parameters(), self.hparams.lr, momentum=0.9, weight_decay=1e-4
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2),
        }


def widths(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_half_of_the_filters_that_can_go_are_gone(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = FilterPruning(0.5, schedule=LATE)
    trainer = make_trainer(max_epochs=5, callbacks=[pruning])
    trainer.fit(foreign, loader(), loader(32, 1))
    assert foreign.net[0].weight.shape == (4, 1, 3, 3)
    assert foreign.net[3].weight.shape == (6, 4, 3, 3)
    assert foreign.net[7].weight.shape == (4, 6)
    assert foreign.net[0].out_channels == foreign.net[1].num_features == 4
    assert foreign.net[7].in_features == 6
    assert [event["reached"] for event in pruning.history] == [0.35, 0.5, 0.5]
    assert pruning.reached == 0.5


def test_reached_is_logged_with_sizes(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)])
    trainer.fit(foreign, loader(), loader(32, 1))
    logged = trainer.callback_metrics
    assert logged["compress/reached"] == logged["sparsity/total"] == 0.5
    assert logged["compress/parameters"] == parameters(foreign)
    assert logged["compress/macs"] == cost(foreign, torch.zeros(1, 1, 8, 8)).macs


@pytest.mark.parametrize(
    ("of", "scope"),
    [("filters", "local"), ("parameters", "global"), ("macs", "global")],
)
def test_share_is_of_the_original(
    of: str, scope: str, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mobile, "BLOCKS", None)  # the groups of a shallow one are too large
    module = Mobile()
    example = torch.zeros(2, 1, 8, 8)
    before = {"parameters": parameters(module), "macs": cost(module, example).macs}
    pruning = FilterPruning(0.4, of=of, scope=scope)
    make_trainer(max_epochs=4, callbacks=[pruning], limit_train_batches=2).fit(
        module, loader(32), loader(32, 1)
    )
    assert pruning.reached == pytest.approx(0.4, abs=0.003)
    if of != "filters":
        now = {"parameters": parameters(module), "macs": cost(module, example).macs}
        assert 1 - now[of] / before[of] == pytest.approx(pruning.reached)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_groups_of_few_channels_come_near_to_the_target(scope: Any) -> None:
    """Each group was rounded up, and 45.8 % of the MACs went where 40 % were asked for."""
    preview = FilterPruning(0.4, of="macs", scope=scope).describe(Mobile(), torch.zeros(1, 1, 8, 8))
    removed = 1 - preview.after.macs / preview.before.macs
    assert removed == pytest.approx(0.4, abs=0.01)


def test_a_schedule_keeps_its_shape_where_widths_are_rounded(make_trainer: MakeTrainer) -> None:
    """All layers took their next multiple of eight at the same step."""
    torch.manual_seed(0)
    module = ForeignModule()
    module.net = nn.Sequential(
        *(part for k in range(8) for part in (nn.Conv2d(32 if k else 1, 32, 1), nn.ReLU())),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)),
    )
    pruning = FilterPruning(0.5, schedule=Schedule(0, 3), round_to=8)
    make_trainer(max_epochs=5, callbacks=[pruning], limit_train_batches=1).fit(
        module, loader(16), loader(16, 1)
    )
    due = [step["due"] for step in pruning.history]
    assert [step["reached"] for step in pruning.history] == pytest.approx(due, abs=1 / 64)


def test_a_target_that_groups_cannot_come_near_to_is_said(make_trainer: MakeTrainer) -> None:
    """Only what falls short was said."""
    module = ForeignModule()
    module.net[0], module.net[1] = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
    module.net[3], module.net[7] = nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 4)
    pruning = FilterPruning(0.3)
    with pytest.warns(UserWarning, match=r"filters will be removed, and the target is 0.30"):
        make_trainer(callbacks=[pruning], limit_train_batches=1).fit(
            module, loader(16), loader(16, 1)
        )


def test_description_equals_the_result(make_trainer: MakeTrainer) -> None:
    module, example = Mobile(), torch.zeros(2, 1, 8, 8)
    pruning = FilterPruning(0.5, schedule=Schedule(shape="one_shot"))
    preview = pruning.describe(module, example)
    assert preview.before.parameters == parameters(module)
    make_trainer(callbacks=[pruning], limit_train_batches=1).fit(module, loader(), loader(32, 1))
    assert preview.after.parameters == parameters(module)
    assert preview.after.macs == cost(module, example).macs
    layers = {layer.name: layer for layer in preview.layers}
    assert all(
        layers[n].kept == m.weight.shape[0] for n, m in module.named_modules() if n in layers
    )
    assert "is an output of the network" in layers["net.classifier.1"].reasons[0]


def test_shrinking_at_the_end_gives_the_same_network(make_trainer: MakeTrainer) -> None:
    results = []
    for shrink in ("every", "end"):
        seed_everything(0, verbose=False)
        module = Mobile(lr=0.01).double()
        trainer = make_trainer(
            max_epochs=5,
            callbacks=[FilterPruning(0.5, schedule=LATE, shrink=shrink)],
            precision="64-true",
            gradient_clip_val=1.0,
        )
        trainer.fit(module, loader(32), loader(32, 1))
        results.append(module)
    every, end = results
    assert widths(every) == widths(end)
    for name, tensor in every.state_dict().items():
        assert torch.allclose(tensor, end.state_dict()[name], rtol=1e-7, atol=1e-8), name


def test_resume_from_each_epoch_ends_in_the_same_weights(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    def fit(resume: Path | None = None) -> Mobile:
        seed_everything(0, verbose=False)
        module = Mobile()
        keep = ModelCheckpoint(tmp_path / "all", filename="{epoch}", save_top_k=-1)
        callbacks = [FilterPruning(0.5, schedule=Schedule(1, 3)), *([] if resume else [keep])]
        trainer = make_trainer(
            max_epochs=5, callbacks=callbacks, enable_checkpointing=resume is None
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")
            trainer.fit(module, loader(32), loader(16, 1), ckpt_path=resume)
        return module

    whole = fit()
    for epoch in range(5):
        assert same_weights(fit(tmp_path / "all" / f"epoch={epoch}.ckpt"), whole), epoch


def test_best_checkpoint_of_an_earlier_epoch_grows_the_module_back(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    module = Mobile()
    full = widths(module)
    keep = ModelCheckpoint(tmp_path / "all", filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(
        max_epochs=4, callbacks=[FilterPruning(0.5, schedule=LATE), keep], enable_checkpointing=True
    )
    trainer.fit(module, loader(32), loader(16, 1))
    small = widths(module)
    trainer.test(module, loader(16, 1), ckpt_path=tmp_path / "all" / "epoch=0.ckpt", verbose=False)
    assert widths(module) == full
    trainer.test(module, loader(16, 1), ckpt_path=tmp_path / "all" / "epoch=3.ckpt", verbose=False)
    assert widths(module) == small


def test_resume_with_a_higher_target_counts_from_the_original(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """State is kept by arguments: with others, what was left used to be taken for the original."""
    module = Mobile()
    first = make_trainer(max_epochs=3, callbacks=[FilterPruning(0.3)], limit_train_batches=2)
    first.fit(module, loader(32), loader(16, 1))
    first.save_checkpoint(tmp_path / "a.ckpt")
    pruning = FilterPruning(0.5, schedule=Schedule(3, 3))
    trainer = make_trainer(max_epochs=5, callbacks=[pruning], limit_train_batches=2)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        trainer.fit(Mobile(), loader(32), loader(16, 1), ckpt_path=tmp_path / "a.ckpt")
    assert 0.5 <= pruning.reached < 0.53
    assert [event["epoch"] for event in pruning.history] == [0, 1, 3]


def test_another_module_is_restored_after_a_fit_that_failed(
    pruned: tuple[Mobile, Path], foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    """After an exception teardown is not called, and the hook stayed on the first module."""
    module, path = pruned
    pruning = FilterPruning(0.5)
    foreign.lr = "fast"
    with pytest.raises(TypeError):
        make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    whole = Mobile()
    make_trainer(callbacks=[pruning]).validate(whole, loader(16, 1), ckpt_path=path, verbose=False)
    assert same_weights(whole, module)


def test_lazy_layers_are_refused(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.net[7] = nn.LazyLinear(4)
    module.example_input_array = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ChannelError, match="run one batch through the module"):
        FilterPruning(0.5).describe(module, torch.zeros(1, 1, 8, 8))


@pytest.fixture
def pruned(tmp_path: Path, make_trainer: MakeTrainer) -> tuple[Mobile, Path]:
    module = Mobile()
    trainer = make_trainer(max_epochs=3, callbacks=[FilterPruning(0.5)], limit_train_batches=2)
    trainer.fit(module, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "pruned.ckpt")
    return module, tmp_path / "pruned.ckpt"


def test_checkpoint_loads_without_a_trainer(pruned: tuple[Mobile, Path]) -> None:
    module, path = pruned
    loaded = lit_compress.load_from_checkpoint(Mobile, path)
    assert type(loaded) is Mobile
    assert same_weights(loaded, module)
    assert torch.equal(loaded.eval()(torch.ones(1, 1, 8, 8)), module.eval()(torch.ones(1, 1, 8, 8)))
    assert "load_state_dict" not in vars(Mobile)


def test_checkpoint_of_another_width_is_refused(
    pruned: tuple[Mobile, Path], make_trainer: MakeTrainer
) -> None:
    _, path = pruned
    with pytest.raises(CheckpointError, match="pruned from a network whose"):
        lit_compress.load_from_checkpoint(Mobile, path, width=0.5)
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)])
    wide = Mobile(0.5)
    before, widths = copy.deepcopy(wide.state_dict()), wide.net.features[0][0].out_channels
    with pytest.raises(CheckpointError, match="build the module with the arguments"):
        trainer.fit(wide, loader(32), loader(16, 1), ckpt_path=path)
    assert_untouched(wide, before)
    assert wide.net.features[0][0].out_channels == widths


def assert_untouched(module: LightningModule, before: dict[str, Tensor]) -> None:
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_checkpoint_of_another_network_is_refused(
    pruned: tuple[Mobile, Path], foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    _, path = pruned
    with pytest.raises(CheckpointError, match="and here it is missing"):
        lit_compress.load_from_checkpoint(ForeignModule, path)
    before = copy.deepcopy(foreign.state_dict())
    with pytest.raises(CheckpointError, match="holds no weights of"):
        make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(
            foreign, loader(32), loader(16, 1), ckpt_path=path
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in foreign.state_dict().items())


def test_damaged_record_in_a_checkpoint_is_refused(pruned: tuple[Mobile, Path]) -> None:
    _, path = pruned
    content = torch.load(path, weights_only=True)
    state = next(s for key, s in content["callbacks"].items() if key.startswith("FilterPruning"))
    state["original"] = {"shapes": {"net.features.0.0.weight": "wide"}}
    torch.save(content, path)
    with pytest.raises(PlanError, match="damaged"):
        lit_compress.load_from_checkpoint(Mobile, path)


def _swap_shape(state: dict[str, Any], weights: dict[str, Tensor]) -> None:
    weights["net.0.weight"] = weights["net.0.weight"][:1]


DAMAGES: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Any]] = {
    "no ledger": lambda state, _: state.pop("ledger"),
    "no text": lambda state, _: state.update(done="half"),
    "beyond": lambda state, _: state.update(done="7"),
    "history": lambda state, _: state.update(history=5),
    "scores": lambda state, _: state.update(scores=3),
    "fewer removed": lambda state, _: state["ledger"].update(removed=state["ledger"]["gone"][1:]),
    "weights of another shape": _swap_shape,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_record_leaves_the_module_untouched(
    damage: str, foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Damage ended in errors of Python's and torch's, and in a module that had half of it."""
    path, pruner = tmp_path / "damaged.ckpt", FilterPruning(0.5, schedule=Schedule(1, 1))
    trainer = make_trainer(callbacks=[pruner])
    trainer.fit(copy.deepcopy(foreign), loader(32), loader(16, 1))
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    DAMAGES[damage](content["callbacks"][pruner.state_key], content["state_dict"])
    torch.save(content, path)
    before = copy.deepcopy(foreign.state_dict())
    trainer = make_trainer(callbacks=[FilterPruning(0.5, schedule=Schedule(1, 1))])
    with pytest.raises(PlanError, match="damaged"):
        trainer.fit(foreign, loader(32), loader(16, 1), ckpt_path=path)
    assert_untouched(foreign, before)
    assert foreign.net[0].out_channels == 8


def test_missing_and_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        lit_compress.load_from_checkpoint(Mobile, tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="damaged"):
        lit_compress.load_from_checkpoint(Mobile, tmp_path / "bad.ckpt")


def test_checkpoint_holds_plain_values_only(pruned: tuple[Mobile, Path]) -> None:
    content = torch.load(pruned[1], weights_only=True)
    assert unpruned_shapes_of(content) is not None


def test_metric_of_the_pruned_network_exists_once_the_target_is_reached(
    tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    """The dense network of the first epoch would win by accuracy, were it watched."""
    keep = ModelCheckpoint(tmp_path, monitor="pruned/my_acc", mode="max")
    pruning = FilterPruning(0.5, schedule=Schedule(0, 2), monitor="my_acc")
    trainer = make_trainer(max_epochs=5, callbacks=[pruning, keep], enable_checkpointing=True)
    module = Mobile()
    trainer.fit(module, loader(32), loader(16, 1))
    best = torch.load(keep.best_model_path, weights_only=True)
    assert best["epoch"] >= 2
    trainer.test(module, loader(16, 1), ckpt_path="best", verbose=False)


def test_monitor_that_is_not_logged_is_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5, monitor="acc")])
    with pytest.raises(InvalidArgumentError, match="my_acc"):
        trainer.fit(foreign, loader(), loader(32, 1))


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "fpgm", "random"])
def test_every_importance_prunes(
    importance: str, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = FilterPruning(0.5, importance=importance, schedule=LATE)
    make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert foreign.net[0].out_channels == 4


def test_layers_without_a_norm_are_left_alone_by_bn_scale(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = FilterPruning(0.5, importance="bn_scale")
    make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert (foreign.net[0].out_channels, foreign.net[3].out_channels) == (4, 12)
    assert pruning.reached == 0.5


class FirstOnes(Importance):
    """The later filters go first."""

    def score(self, weight: Tensor, gradient: Tensor | None) -> Tensor:
        return torch.arange(len(weight), 0, -1)


def test_own_importance_decides(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    kept = foreign.net[0].weight[:4].clone()
    pruning = FilterPruning(0.5, importance=FirstOnes(), schedule=Schedule(shape="one_shot"))
    foreign.lr = 0.0
    make_trainer(max_epochs=2, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert torch.equal(foreign.net[0].weight, kept)


def test_widths_are_rounded(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    pruning = FilterPruning(0.6, round_to=4)
    make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert (foreign.net[0].out_channels, foreign.net[3].out_channels) == (4, 4)


def test_layers_keep_min_channels_and_it_is_said_once(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = FilterPruning(0.9, min_channels=5)
    with pytest.warns(UserWarning, match="will keep more than their share") as record:
        make_trainer(max_epochs=5, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert (foreign.net[0].out_channels, foreign.net[3].out_channels) == (5, 5)
    assert sum("keep more" in str(one.message) for one in record) == 1


def test_unreachable_target_is_refused_at_the_start(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    pruning = FilterPruning(0.99, of="parameters", min_channels=4)
    with pytest.raises(InvalidArgumentError, match=r"at most .* can be removed"):
        make_trainer(max_epochs=5, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert foreign.net[0].out_channels == 8


def test_excluded_layers_stay(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    pruning = FilterPruning(0.5, exclude=["net.0"])
    make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert (foreign.net[0].out_channels, foreign.net[3].out_channels) == (8, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rules": 5}, "path of a rule file, got 5"), ({"schedule": {"first": 1}}, "a Schedule")],
)
def test_arguments_of_another_type_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterPruning(0.5, **arguments)


def test_describing_what_is_no_module_is_refused() -> None:
    with pytest.raises(ChannelError, match="expected a torch module, got str"):
        FilterPruning(0.5).describe("net", torch.zeros(1, 1, 8, 8))  # type: ignore[arg-type]


def test_pattern_that_matches_nothing_is_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5, exclude=["head.*"])])
    with pytest.raises(PatternError, match=r"head\.\*"):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_frozen_layers_stay_and_are_named(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    foreign.net[0].weight.requires_grad = False
    pruning = FilterPruning(0.5)
    preview = str(pruning.describe(foreign, torch.zeros(1, 1, 8, 8)))
    assert "net.0.weight is not trained" in preview
    make_trainer(max_epochs=4, callbacks=[pruning]).fit(foreign, loader(), loader(32, 1))
    assert (foreign.net[0].out_channels, foreign.net[3].out_channels) == (8, 6)


def test_network_without_channels_that_can_go_is_refused(make_trainer: MakeTrainer) -> None:
    module = ForeignModule()
    module.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(ChannelError, match="is an output of the network"):
        make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(
            module, loader(), loader(32, 1)
        )


def test_nan_weights_are_named(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    with torch.no_grad():
        foreign.net[0].weight[0] = torch.nan
    with pytest.raises(PatternError, match=r"net\.0\.weight holds NaN"):
        make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(
            foreign, loader(), loader(32, 1)
        )


def test_without_example_and_validation_a_training_batch_is_enough(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(foreign, loader())
    assert foreign.net[0].out_channels == 4


def test_stated_example_is_enough(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    foreign.example_input_array = torch.zeros(1, 1, 8, 8)
    make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(foreign, loader())
    assert foreign.net[0].out_channels == 4


class TwoInputs(ForeignModule):
    """Its forward takes two keyword arguments, and needs two images at least."""

    def forward(self, *, image: Tensor, scale: Tensor) -> Tensor:
        if len(image) < 2:
            raise ValueError("needs two images")
        return self.net(image) * scale

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        scores = self(image=batch[0], scale=torch.ones(len(batch[0]), 1))
        return nn.functional.cross_entropy(scores, batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("my_loss", self.training_step(batch, batch_idx))


def test_forward_with_keywords_and_several_images(make_trainer: MakeTrainer) -> None:
    module = TwoInputs()
    make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(module, loader(), loader(32, 1))
    assert module.net[0].out_channels == 4


class HiddenHead(ForeignModule):
    """validation_step uses a layer that forward does not."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(12, 2)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.side(self.net[:7](batch[0]))


def test_layers_outside_forward_are_found_before_training(make_trainer: MakeTrainer) -> None:
    module = HiddenHead()
    with pytest.raises(InvalidArgumentError, match="weights or sizes that the forward does not"):
        make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)]).fit(
            module, loader(), loader(32, 1)
        )
    assert module.net[0].out_channels == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 1.0}, r"in \[0, 1\)"),
        ({"target": 0.5, "of": "weights"}, "of must be one of"),
        ({"target": 0.5, "scope": "layer"}, "scope must be one of"),
        ({"target": 0.5, "shrink": "never"}, "shrink must be one of"),
        ({"target": 0.5, "importance": "l3"}, "importance must be one of"),
        ({"target": 0.5, "round_to": 0}, "round_to must be a whole number"),
        ({"target": 0.5, "min_channels": 0.5}, "min_channels must be a whole number"),
        ({"target": 0.5, "include": "net.*"}, "must be a list"),
        ({"target": 0.5, "exclude": None}, "must be a list"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        FilterPruning(**arguments)


def test_taylor_needs_an_epoch_before_the_first_event(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5, importance="taylor")])
    with pytest.raises(InvalidArgumentError, match=r"set schedule\.first to 1"):
        trainer.fit(foreign, loader(), loader(32, 1))


@pytest.mark.parametrize("other", [MagnitudePruning(0.5), FilterPruning(0.3)])
def test_two_pruning_callbacks_are_refused(
    other: Any, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5), other])
    with pytest.raises(InvalidArgumentError, match="cannot run together with"):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_weight_averaging_is_refused_by_name(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5), WeightAveraging()])
    with pytest.raises(InvalidArgumentError, match="WeightAveraging"):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_schedule_that_does_not_fit_is_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(max_epochs=3, callbacks=[FilterPruning(0.5, schedule=Schedule(last=2))])
    with pytest.raises(ScheduleError):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_early_stopping_says_what_was_reached(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    stop = EarlyStopping("my_acc", mode="max", stopping_threshold=-1.0)
    pruning = FilterPruning(0.5, schedule=Schedule(0, 5))
    trainer = make_trainer(max_epochs=8, callbacks=[pruning, stop])
    with pytest.warns(UserWarning, match=r"reached 0\.\d+ of 0\.50"):
        trainer.fit(foreign, loader(), loader(32, 1))


def test_learning_rate_finder_leaves_the_network_whole(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    finder = LearningRateFinder(num_training_steps=6, update_attr=True)
    pruning = FilterPruning(0.5)
    make_trainer(max_epochs=4, callbacks=[finder, pruning], enable_checkpointing=True).fit(
        foreign, loader(), loader(32, 1)
    )
    assert [event["epoch"] for event in pruning.history] == [0, 1, 2]
    assert foreign.net[0].out_channels == 4


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"precision": "bf16-mixed"},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-true"},
    ],
)
def test_trainer_options(
    options: dict[str, Any], foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)], **options).fit(
        foreign, loader(), loader(32, 1)
    )
    assert foreign.net[0].out_channels == 4


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_optimizers_go_on_with_what_is_left(name: str, make_trainer: MakeTrainer) -> None:
    class Module(ForeignModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            options = {"momentum": 0.9} if name == "SGD" else {}
            return getattr(torch.optim, name)(self.parameters(), lr=1e-3, **options)

    module = Module()
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5)])
    trainer.fit(module, loader(), loader(32, 1))
    optimizer = trainer.optimizers[0]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in module.parameters()}
    for parameter, state in optimizer.state.items():
        for value in state.values():
            assert (
                not isinstance(value, Tensor) or value.dim() == 0 or value.shape == parameter.shape
            )


class Whole(ForeignModule):
    """Its optimizer keeps one state of all parameters."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), max_iter=2)


def test_optimizer_that_cannot_be_cut_is_refused_and_nothing_changes(
    make_trainer: MakeTrainer,
) -> None:
    """It was refused at the first event, epochs later."""
    module = Whole()
    trainer = make_trainer(max_epochs=4, callbacks=[FilterPruning(0.5, schedule=LATE)])
    with pytest.raises(InvalidArgumentError, match="LBFGS"):
        trainer.fit(module, loader(), loader(32, 1))
    assert trainer.global_step == 0
    assert module.net[0].out_channels == 8
    assert module.net[0].weight.shape[0] == 8


def test_optimizer_that_cannot_be_cut_trains_where_channels_leave_at_the_end(
    make_trainer: MakeTrainer,
) -> None:
    """The last hook of the fit failed over the state that no step needs any more."""
    module = Whole()
    trainer = make_trainer(callbacks=[FilterPruning(0.5, schedule=LATE, shrink="end")])
    with pytest.warns(UserWarning, match="start without it"):
        trainer.fit(module, loader(32), loader(32, 1))
    assert module.net[0].out_channels == 4
    assert not trainer.optimizers[0].state


@pytest.mark.slow
def test_compiled_module_is_pruned(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    compiled = torch.compile(foreign, backend="eager")
    make_trainer(max_epochs=3, callbacks=[FilterPruning(0.5)], limit_train_batches=1).fit(
        compiled, loader(), loader(32, 1)
    )
    assert foreign.net[0].out_channels == 4


def test_batch_norm_statistics_are_estimated_anew(make_trainer: MakeTrainer) -> None:
    results = []
    for batches in (0, 2):
        seed_everything(0, verbose=False)
        module = ForeignModule(lr=0.0)
        pruning = FilterPruning(0.5, schedule=Schedule(shape="one_shot"), recalibrate=batches)
        make_trainer(max_epochs=1, callbacks=[pruning], limit_train_batches=1).fit(
            module, loader(), loader(32, 1)
        )
        results.append(module.net[1].running_var)
    assert not torch.equal(*results)


def test_report_knows_the_dense_network(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    module = Mobile()
    report = CompressionReport(monitor="my_acc", dirpath=str(tmp_path / "artifact"))
    make_trainer(max_epochs=3, callbacks=[report, FilterPruning(0.5)]).fit(
        module, loader(32), loader(16, 1)
    )
    dense, pruned = report.card.variant("dense"), report.card.variant("pruned")
    assert dense.parameters == parameters(Mobile())
    assert pruned.parameters == parameters(module)
    assert pruned.macs < 0.5 * dense.macs


@pytest.mark.usefixtures("no_trial_conversion", "noise_of_two_inputs")
@pytest.mark.parametrize("shrink", [pytest.param("every", marks=pytest.mark.slow), "end"])
def test_pruned_network_is_quantised(
    shrink: str, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    module = Mobile()
    quantize = PostTrainingQuantization(monitor="my_acc", dirpath=str(tmp_path / "artifact"))
    make_trainer(max_epochs=3, callbacks=[quantize, FilterPruning(0.5, shrink=shrink)]).fit(
        module, loader(32), loader(16, 1)
    )
    card = lit_compress.load(tmp_path / "artifact").card
    assert card.variant("pruned").parameters == parameters(module) < 0.5 * parameters(Mobile())


def test_weights_alone_of_another_width_are_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """They were taken on, whatever their shapes."""
    trainer = make_trainer(max_epochs=2, callbacks=[FilterPruning(0.5)])
    trainer.fit(foreign, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    trainer.validate(foreign, loader(16, 1), ckpt_path=tmp_path / "a.ckpt", verbose=False)

    def validate(whole: ForeignModule) -> None:
        make_trainer(callbacks=[FilterPruning(0.5)]).validate(
            whole, loader(16, 1), ckpt_path=tmp_path / "a.ckpt", verbose=False
        )

    validate(whole := ForeignModule())
    assert same_weights(whole, foreign)
    wider = ForeignModule()
    wider.net[3], wider.net[7] = nn.Conv2d(8, 24, 3, 2, 1), nn.Linear(24, 4)
    before = copy.deepcopy(wider.state_dict())
    with pytest.raises(
        CheckpointError, match=r"was \(12, 8, 3, 3\) in the network that was pruned"
    ):
        validate(wider)
    assert_untouched(wider, before)


def test_weights_alone_without_a_record_are_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """Older versions saved none with the weights alone."""
    trainer = make_trainer(max_epochs=2, callbacks=[FilterPruning(0.5)])
    trainer.fit(foreign, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del content["lit_compress"]
    torch.save(content, tmp_path / "a.ckpt")
    whole = ForeignModule()
    before = copy.deepcopy(whole.state_dict())
    with pytest.raises(CheckpointError, match="without a record of what was pruned"):
        make_trainer(callbacks=[FilterPruning(0.5)]).validate(
            whole, loader(16, 1), ckpt_path=tmp_path / "a.ckpt", verbose=False
        )
    assert_untouched(whole, before)


def test_a_fit_resumed_from_its_last_epoch_shrinks_at_the_end(
    foreign: ForeignModule, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """It had nothing left to train, so the channels held at zero stayed."""

    def run(module: ForeignModule, **options: Any) -> None:
        pruner = FilterPruning(0.5, schedule=Schedule(0, 1), shrink="end")
        saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)
        trainer = make_trainer(callbacks=[pruner, saver], enable_checkpointing=True)
        trainer.fit(module, loader(32), loader(16, 1), **options)

    resumed = copy.deepcopy(foreign)
    run(foreign)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the folder is not empty
        run(resumed, ckpt_path=tmp_path / "2.ckpt")
    assert resumed.net[0].out_channels == 4
    assert same_weights(resumed, foreign)


class TwoLoaders(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


def test_the_metric_of_one_of_several_loaders_is_monitored(make_trainer: MakeTrainer) -> None:
    """Lightning names it my_acc/dataloader_idx_0: logging it again failed after an epoch."""
    pruner = FilterPruning(
        0.5, schedule=Schedule(first=1, last=1), monitor="my_acc/dataloader_idx_1"
    )
    trainer = make_trainer(max_epochs=3, callbacks=[pruner])
    trainer.fit(TwoLoaders(), loader(32), [loader(16, 1), loader(16, 2)])
    assert 0 <= trainer.callback_metrics["pruned/my_acc/dataloader_idx_1"] <= 1


def test_an_approximate_norm_and_zeros_until_the_end_exclude_each_other() -> None:
    with pytest.raises(InvalidArgumentError, match="set shrink to every"):
        FilterPruning(0.5, norm="approximate", shrink="end")
    with pytest.raises(InvalidArgumentError, match="norm must be one of exact, approximate"):
        FilterPruning(0.5, norm="fast")  # type: ignore[arg-type]


def test_the_stream_of_a_transformer_goes_where_its_norms_may_differ() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = nn.Sequential(nn.Linear(8, 16), layer, nn.Linear(16, 2)).eval()
    x = torch.randn(2, 5, 8)
    kept = {
        norm: {row.name: row.kept for row in FilterPruning(0.5, norm=norm).describe(net, x).layers}
        for norm in ("exact", "approximate")
    }
    assert (kept["exact"]["0"], kept["approximate"]["0"]) == (16, 8)
    assert kept["exact"]["1.linear1"] == kept["approximate"]["1.linear1"] == 16


class Headed(ForeignModule):
    """An attention whose number of heads is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 8
        self.start, self.qkv = nn.Linear(8, 8), nn.Linear(8, 48)
        self.proj, self.net = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x.squeeze(1))
        parts = self.qkv(x).view(len(x), 8, 3, self.heads, 2).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*parts.unbind(0))
        return self.net(self.proj(y.transpose(1, 2).flatten(2)).mean(1))


@pytest.mark.filterwarnings("ignore:.*the run ended before its schedule did")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
def test_a_resumed_fit_loses_further_heads(make_trainer: Any, tmp_path: Path) -> None:
    """Each validation set the number of heads back to that of the checkpoint."""

    def pruning() -> FilterPruning:
        return FilterPruning(0.5, schedule=Schedule(first=0, last=3))

    torch.manual_seed(0)
    start, whole, first, second = Headed().state_dict(), Headed(), Headed(), Headed()
    for module in (whole, first):
        module.load_state_dict(start)
    make_trainer(max_epochs=5, callbacks=[pruning()]).fit(whole, loader(32), loader(16, 1))
    trainer = make_trainer(max_epochs=5, max_steps=2, callbacks=[pruning()])
    trainer.fit(first, loader(32), loader(16, 1))
    trainer.save_checkpoint(tmp_path / "early.ckpt")
    assert 4 < first.heads < 8
    make_trainer(max_epochs=5, callbacks=[pruning()]).fit(
        second, loader(32), loader(16, 1), ckpt_path=str(tmp_path / "early.ckpt")
    )
    assert second.heads == whole.heads == 4
    for one, other in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_normalised_weights_cannot_be_zeros_until_the_end(make_trainer: Any) -> None:
    """A filter of zeros divided by its length is NaN, and the data were blamed."""

    class Normed(ForeignModule):
        def __init__(self) -> None:
            super().__init__()
            self.net[3] = nn.utils.parametrizations.weight_norm(self.net[3])

    trainer = make_trainer(max_epochs=3, callbacks=[FilterPruning(0.5, shrink="end")])
    with pytest.raises(InvalidArgumentError, match="set shrink to every"):
        trainer.fit(Normed(), loader(32), loader(16, 1))
