"""RulePruning: elements here, filters there, on one schedule, as a file says."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import CompressionReport, MagnitudePruning, RulePruning
from lit_compress.errors import CheckpointError, InvalidArgumentError, PatternError, RuleError
from lit_compress.pruning import prunable_weights

MakeTrainer = Callable[..., Trainer]
ONCE = Schedule(shape="one_shot")
THRICE = Schedule(first=1, last=3)
MIXED = """\
- {pattern: net.0, granularity: filter, ratio: 0.5}
- {pattern: net.3, granularity: element, ratio: [0.2, 0.4, 0.6]}
- {pattern: net.7, ratio: 0.25}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, name: str = "rules.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


class Zeros(Callback):
    """Notes, after every step, how many weights of each layer are zero, and its shape."""

    def __init__(self) -> None:
        self.steps: list[dict[str, tuple[tuple[int, ...], int]]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        weights = prunable_weights(pl_module)
        self.steps.append({n: (tuple(w.shape), int((w == 0).sum())) for n, w in weights.items()})


def fit(
    make_trainer: MakeTrainer, module: LightningModule, *callbacks: Callback, **more: Any
) -> None:
    trainer = make_trainer(**({"max_epochs": 5, "callbacks": list(callbacks)} | more))
    trainer.fit(module, loader(), loader(32, 1))


def test_filters_leave_and_elements_are_zero_in_one_event(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    spy, pruning = Zeros(), RulePruning(rules(MIXED), schedule=THRICE)
    fit(make_trainer, foreign, pruning, spy)
    by_epoch = spy.steps[3::4]
    assert [row["net.0.weight"][0][0] for row in by_epoch] == [8, 5, 4, 4, 4]
    assert [row["net.3.weight"][0] for row in by_epoch][-1] == (12, 4, 3, 3)
    sizes = [8 * 108, 5 * 108, 4 * 108, 4 * 108, 4 * 108]
    shares = [0, 0.2, 0.4, 0.6, 0.6]
    expected = [ceil(round(n * s, 6)) for n, s in zip(sizes, shares, strict=True)]
    assert [row["net.3.weight"][1] for row in by_epoch] == expected
    assert by_epoch[-1]["net.7.weight"] == ((4, 12), 12)
    assert all(spy.steps[i] == spy.steps[4 * (i // 4)] for i in range(len(spy.steps)))
    left = 4 * 9 + (432 - 260) + 36
    assert pruning.reached == pruning.goal == pytest.approx(1 - left / (72 + 864 + 48))


def test_what_is_foretold_is_what_is_left(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    pruning = RulePruning(rules(MIXED), schedule=THRICE)
    before = copy.deepcopy(foreign.state_dict())
    preview = pruning.describe(foreign, torch.zeros(2, 1, 8, 8))
    assert all(torch.equal(t, before[n]) for n, t in foreign.state_dict().items())
    fit(make_trainer, foreign, pruning)
    left = {n: int((w != 0).sum()) for n, w in prunable_weights(foreign).items()}
    assert {w.name: w.left for w in preview.weights} == left
    assert preview.share == pytest.approx(pruning.reached)
    assert "rules.yaml:2" in str(preview)


def test_held_and_removed_at_the_end_is_the_same_network(
    make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    found = []
    for shrink in ("every", "end"):
        seed_everything(0, verbose=False)
        module = ForeignModule().double()
        pruning = RulePruning(rules(MIXED), schedule=THRICE, shrink=shrink)  # type: ignore[arg-type]
        fit(make_trainer, module, pruning, precision="64-true")
        found.append(module.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 0.07, 0.3, 0.5, 0.55, 0.9])
def test_the_default_rules_are_those_of_the_original_code(
    ratio: float, foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    """k = ceil(n s) filters by Euclidean norm, elements of linear layers by magnitude."""
    weights = {n: w.detach().clone() for n, w in prunable_weights(foreign).items()}
    foreign.lr = 0.0
    pruning = RulePruning(target=ratio, schedule=ONCE, shrink="never")
    fit(make_trainer, foreign, pruning, max_epochs=2)
    for name, weight in prunable_weights(foreign).items():
        rows = weights[name] if weight.dim() > 2 else weights[name].reshape(-1, 1)
        norms = rows.flatten(1).double().square().sum(1)
        selected = norms.argsort(stable=True)[: ceil(round(len(rows) * ratio, 9))]
        expected = rows.clone().index_fill(0, selected, 0).view(weight.shape)
        assert torch.equal(weight, expected), name


def test_the_same_ratio_every_round_keeps_the_mask(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    """The original prunes again each round at the same ratio, and drops the same weights."""
    line = "net.3.weight,0.5;0.5,abs,\n"
    pruning = RulePruning(rules(line, "o.rule"), schedule=Schedule(0, 3), shrink="never")
    masks: list[torch.Tensor] = []

    class Spy(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            masks.append(pruning.masks["net.3.weight"])

    fit(make_trainer, foreign, pruning, Spy())
    assert int((~masks[0]).sum()) == 432
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_lines_name_layers_of_a_network_that_is_wrapped_by_now(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    path = rules("0.weight,0.5;0.5,l2norm,\n7.weight,0.25,abs,\n", "original.rule")
    fit(make_trainer, foreign, RulePruning(path, schedule=ONCE, shrink="never"))
    assert int((foreign.net[0].weight.flatten(1) == 0).all(1).sum()) == 4
    assert int((foreign.net[7].weight == 0).sum()) == 12
    assert foreign.net[3].weight.all()  # no line names it


def test_global_ranks_the_layers_of_a_rule_together(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    foreign.lr = 0.0
    before = {n: w.detach().clone() for n, w in prunable_weights(foreign).items()}
    path = rules("- {pattern: 'net.[37]', granularity: element, ratio: 0.5}\n")
    fit(make_trainer, foreign, RulePruning(path, schedule=ONCE, scope="global"))
    joined = torch.cat([before[n].flatten() for n in ("net.3.weight", "net.7.weight")])
    limit = joined.abs().sort().values[456]
    for name in ("net.3.weight", "net.7.weight"):
        assert torch.equal(prunable_weights(foreign)[name] == 0, before[name].abs() < limit)
    assert foreign.net[0].weight.all()


def test_global_filters(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    fit(make_trainer, foreign, RulePruning(target=0.5, schedule=ONCE, scope="global"))
    assert len(foreign.net[0].weight) + len(foreign.net[3].weight) == 10


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
    ],
)
def test_other_ways_to_train_revive_nothing(
    options: Any, foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    spy = Zeros()
    fit(make_trainer, foreign, RulePruning(rules(MIXED), schedule=THRICE), spy, **options)
    assert all(spy.steps[i] == spy.steps[4 * (i // 4)] for i in range(len(spy.steps)))
    assert spy.steps[-1]["net.3.weight"][1] == 260


def test_manual_optimization_revives_nothing(
    make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    spy = Zeros()
    fit(make_trainer, ManualModule(), RulePruning(rules(MIXED), schedule=THRICE), spy)
    assert all(spy.steps[i] == spy.steps[4 * (i // 4)] for i in range(len(spy.steps)))
    assert spy.steps[-1]["net.7.weight"] == ((4, 12), 12)


def run(folder: Path, path: str, ckpt: Path | None = None, **options: Any) -> ForeignModule:
    seed_everything(1, verbose=False)
    module = ForeignModule()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=6,
        callbacks=[
            RulePruning(path, schedule=THRICE, **options),
            ModelCheckpoint(folder / "kept", "{epoch}", save_top_k=-1, save_last=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), loader(32, 1), ckpt_path=ckpt)
    return module


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")  # five runs, one folder
@pytest.mark.parametrize("shrink", ["every", "end", "never"])
def test_resuming_from_any_epoch_is_bit_identical(
    shrink: str, tmp_path: Path, rules: Callable[..., str]
) -> None:
    path = rules(MIXED)
    whole = run(tmp_path, path, shrink=shrink)
    for epoch in range(5):
        resumed = run(
            tmp_path / "again", path, tmp_path / "kept" / f"epoch={epoch}.ckpt", shrink=shrink
        )
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (epoch, name)


def test_a_checkpoint_loads_in_its_shapes_with_its_zeros(
    tmp_path: Path, rules: Callable[..., str]
) -> None:
    whole = run(tmp_path, rules(MIXED))
    loaded = lit_compress.load_from_checkpoint(ForeignModule, tmp_path / "kept" / "epoch=5.ckpt")
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in whole.state_dict().items())
    assert int((loaded.net[3].weight == 0).sum()) == 260


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # meant: another folder
def test_masks_of_another_network_are_refused(tmp_path: Path, rules: Callable[..., str]) -> None:
    path = rules(MIXED)
    run(tmp_path, path)
    checkpoint = tmp_path / "kept" / "epoch=4.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("RulePruning"))
    masks = content["callbacks"][key]["masks"]
    masks["net.9.weight"] = masks.pop("net.7.weight")
    torch.save(content, checkpoint)
    with pytest.raises(CheckpointError, match=r"masks are of another network \('net.9.weight'\)"):
        run(tmp_path / "again", path, checkpoint)


def test_the_card_says_what_was_reached(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str], tmp_path: Path
) -> None:
    report = CompressionReport(monitor="my_acc", dirpath=str(tmp_path / "out"))
    fit(make_trainer, foreign, RulePruning(rules(MIXED), schedule=THRICE), report)
    (pruning,) = json.loads((tmp_path / "out" / "card.json").read_text())["pruning"]
    assert pruning["callback"] == "RulePruning"
    assert pruning["reached"] == pruning["target"] == pytest.approx(740 / 984)


def test_which_of_two_rules_counts_is_said(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path = rules("- {pattern: net.7, ratio: 0.5}\n- {pattern: 'net.*', ratio: 0.25}\n")
    with caplog.at_level("INFO"):
        fit(make_trainer, foreign, RulePruning(path, schedule=ONCE))
    assert f"net.7.weight: {path}:1 over {path}:2" in caplog.text
    assert int((foreign.net[7].weight == 0).sum()) == 18  # half of 4 x 9


def test_a_rule_for_filters_that_cannot_go_is_said(
    make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    path = rules(
        "- {pattern: net.7, granularity: neuron, ratio: 0.5}\n- {pattern: net.0, ratio: 0.5}\n"
    )
    with pytest.warns(
        UserWarning, match=r"can be removed: net\.7\.weight \(.*rules\.yaml:1: is an out"
    ):
        fit(make_trainer, ForeignModule(), RulePruning(path, schedule=ONCE))


def test_rules_for_elements_alone_need_no_example_and_keep_the_shape(
    make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    class Odd(ForeignModule):
        """Its validation never calls its forward, so that no channels could be followed."""

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("my_acc", 0.5)

    module = Odd()
    path = rules("- {pattern: '*', granularity: element, ratio: 0.5}\n")
    fit(make_trainer, module, RulePruning(path, schedule=ONCE))
    assert [int((w == 0).sum()) * 2 for w in prunable_weights(module).values()] == [72, 864, 48]


BAD: dict[str, tuple[Callable[[], RulePruning], type[Exception], str]] = {
    "nothing": (lambda: RulePruning(), InvalidArgumentError, "a target for the default rules"),
    "missing": (lambda: RulePruning("none.yaml"), RuleError, "there is no rule file"),
    "target": (lambda: RulePruning(target=1.0), InvalidArgumentError, r"in \[0, 1\)"),
    "scope": (lambda: RulePruning(target=0.5, scope="x"), InvalidArgumentError, "scope must be"),  # type: ignore[arg-type]
    "shrink": (lambda: RulePruning(target=0.5, shrink="x"), InvalidArgumentError, "shrink must be"),  # type: ignore[arg-type]
    "both": (
        lambda: RulePruning(target=0.5, rewind="init", reinitialize="linear"),
        InvalidArgumentError,
        "give only one",
    ),
    "draw": (
        lambda: RulePruning(target=0.5, reinitialize="all"),  # type: ignore[arg-type]
        InvalidArgumentError,
        "reinitialize must be",
    ),
    "count": (lambda: RulePruning(target=0.5, round_to=0), InvalidArgumentError, "round_to must"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name: str) -> None:
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()


BAD_RULES = {
    "- {pattern: 'nte.*', ratio: 0.5}": r"rules\.yaml:1: the pattern 'nte\.\*' matches no",
    "- {pattern: net.0, ratio: 0.5}\n- {pattern: net.7, granularity: filter, ratio: 0.5}": (
        r"rules\.yaml:2: net\.7\.weight is the weight of a linear layer \(2 dimensions\)"
    ),
    "- {pattern: net.0, granularity: neuron, ratio: 0.5}": r"rules\.yaml:1: .* has no neurons",
    "- {pattern: net.0, ratio: [0.1, 0.2, 0.3, 0.4]}": "4 ratios.* only 3 pruning steps",
    "- {pattern: net.0, granularity: filter, importance: taylor, ratio: 0.5}": (
        "importance Taylor needs the gradients"
    ),
    "- {pattern: net.3, granularity: filter, importance: bn_scale, ratio: 0.5}": (
        r"rules\.yaml:1: importance bn_scale ranks by the norm .* and no norm follows net\.3"
    ),
    "- {pattern: net.7, importance: fpgm, ratio: 0.5}": "does not rank the elements of net.7",
}


@pytest.mark.parametrize("text", BAD_RULES)
def test_bad_rules_are_named_by_file_and_line_before_training(
    text: str, foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    before = copy.deepcopy(foreign.state_dict())
    schedule = Schedule(0, 2) if "taylor" in text else THRICE
    with pytest.raises((RuleError, InvalidArgumentError), match=BAD_RULES[text]):
        fit(make_trainer, foreign, RulePruning(rules(text), schedule=schedule))
    assert all(torch.equal(value, before[name]) for name, value in foreign.state_dict().items())


def test_one_importance_a_rule(make_trainer: MakeTrainer, rules: Callable[..., str]) -> None:
    text = (
        "- {pattern: net.0, importance: bn_scale, ratio: 0.5}\n"
        "- {pattern: net.3, importance: taylor, ratio: 0.5}\n"
    )
    module = ForeignModule()
    with torch.no_grad():
        module.net[1].weight[:4] = 5.0  # these four stay
    first = module.net[0].weight.detach().clone()
    module.lr = 1e-4
    fit(make_trainer, module, RulePruning(rules(text), schedule=Schedule(1, shape="one_shot")))
    assert len(module.net[3].weight) == 6
    torch.testing.assert_close(module.net[0].weight, first[:4], rtol=0, atol=0.05)


def test_beside_another_pruning_it_is_refused(
    foreign: ForeignModule, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot run together with MagnitudePruning"):
        fit(make_trainer, foreign, RulePruning(target=0.5), MagnitudePruning(0.5))


def test_nan_weights_are_refused_by_name(foreign: ForeignModule, make_trainer: MakeTrainer) -> None:
    with torch.no_grad():
        foreign.net[3].weight[0] = float("nan")
    for shrink in ("every", "never"):
        pruning = RulePruning(target=0.5, schedule=ONCE, shrink=shrink)  # type: ignore[arg-type]
        with pytest.raises(PatternError, match=r"net\.3\.weight holds NaN"):
            fit(make_trainer, foreign, pruning)


def test_fast_dev_run_prunes_at_once(
    foreign: ForeignModule, make_trainer: MakeTrainer, rules: Callable[..., str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(make_trainer, foreign, RulePruning(rules(MIXED), schedule=THRICE), fast_dev_run=True)
    assert len(foreign.net[0].weight) == 4
