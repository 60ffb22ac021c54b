"""Whole scans: every row that of a naive loop, files that are used again, and what is refused."""

from __future__ import annotations

import copy
import csv
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ForeignModule, loader
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from lit_compress import scan
from lit_compress.callbacks import RulePruning
from lit_compress.errors import InvalidArgumentError, PatternError, ScanError
from lit_compress.pruning import apply, make_plan
from lit_compress.pruning.channels.analysis import analyse
from lit_compress.pruning.rules.files import read_rules
from lit_compress.sensitivity import figure
from lit_compress.sensitivity.result import Scan
from lit_compress.sensitivity.targets import WHOLE
from lit_compress.sensitivity.trials import TrialRunner
from lit_compress.trainer import Trainer as OurTrainer

LEVELS = [0, 0.3, 0.5, 0.9, 1]


@pytest.fixture
def trained(foreign: ForeignModule) -> ForeignModule:
    """A network that has learned something, so that pruning it costs something."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(foreign.parameters(), 0.02)
    for _ in range(12):
        for batch in loader(128, batch_size=32):
            optimizer.zero_grad()
            foreign.training_step(batch, 0).backward()
            optimizer.step()
    return foreign


def run(module: LightningModule, data: Any, folder: Path, **options: Any) -> Scan:
    return scan(module, data, progress=False, dirpath=str(folder), **{"levels": LEVELS} | options)


def validated(module: LightningModule, data: Any) -> dict[str, float]:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(module, data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def naive(weight: Tensor, share: Fraction, filters: bool) -> None:
    """Set the smallest elements, or filters, to zero."""
    units = weight.view(len(weight), -1) if filters else weight.view(-1, 1)
    order = units.norm(dim=1).argsort(stable=True)
    units[order[: math.ceil(len(units) * share)]] = 0


@pytest.mark.parametrize("granularity", ["element", "original"])
def test_every_row_is_that_of_a_naive_loop(
    trained: ForeignModule, tmp_path: Path, granularity: str
) -> None:
    data = loader(64, seed=1)
    found = run(trained, data, tmp_path, granularity=granularity, images=None)
    rows = {(row.layer, row.ratio): row for row in found.rows}
    names = ["net.0", "net.3", "net.7"]
    assert len(rows) == (len(names) + 1) * len(LEVELS) == len(found.rows)
    baseline = validated(copy.deepcopy(trained), data)
    assert found.baseline == baseline
    for layer in (WHOLE, *names):
        assert rows[layer, Fraction(0)].scores == baseline
        for level in LEVELS[1:]:
            share = Fraction(str(level))
            twin = copy.deepcopy(trained)
            with torch.no_grad():
                for name in names if layer == WHOLE else [layer]:
                    weight = twin.get_parameter(f"{name}.weight")
                    naive(weight, share, granularity == "original" and weight.dim() > 2)
            assert rows[layer, share].scores == validated(twin, data), (layer, level)


def test_filters_are_scored_as_if_they_were_removed(trained: ForeignModule, tmp_path: Path) -> None:
    data = loader(64, seed=1)
    found = run(trained, data, tmp_path, granularity="filter", images=None)
    assert {row.layer for row in found.rows} == {WHOLE, "net.0", "net.3"}
    row = next(r for r in found.rows if (r.layer, r.ratio) == ("net.3", Fraction(1, 2)))
    assert (row.pruned, row.of) == (6, 12)
    twin = copy.deepcopy(trained).eval()
    graph = analyse(twin, next(iter(data))[0][:2])
    (group,) = [g for g in graph.groups if ("net.3.weight", 0) in g.keys]
    norms = twin.net[3].weight.detach().flatten(1).norm(dim=1).argsort(stable=True)
    apply(make_plan(graph, [group.channels[int(number)] for number in norms[:6]]), twin)
    assert twin.net[3].out_channels == 6
    scores = validated(twin, data)
    assert row.scores == pytest.approx(scores, rel=1e-5)


@pytest.mark.parametrize(("images", "tolerance", "told"), [(16, 0.01, True), (16, 0.1, False)])
def test_too_few_examples_for_the_tolerance_are_told(
    trained: ForeignModule,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    images: int,
    tolerance: float,
    told: bool,
) -> None:
    """A scan on a handful of examples pruned nothing, and nothing said why."""
    options = {"images": images, "tolerance": tolerance, "levels": [0.5], "curves": False}
    run(trained, loader(64, seed=1), tmp_path, **options)
    assert ("measure on at least 100 examples" in caplog.text) is told


def test_the_module_is_left_as_it_is(trained: ForeignModule, tmp_path: Path) -> None:
    trained.train()
    trained.net[3].eval()
    before = copy.deepcopy(trained.state_dict())
    modes = [child.training for child in trained.modules()]
    grads = [parameter.requires_grad for parameter in trained.parameters()]
    tensors = [id(parameter) for parameter in trained.parameters()]
    data = loader(64)
    state = torch.get_rng_state()
    for granularity in ("element", "filter", "original"):
        run(trained, data, tmp_path / granularity, granularity=granularity, images=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in before.items())
    assert [child.training for child in trained.modules()] == modes
    assert [parameter.requires_grad for parameter in trained.parameters()] == grads
    assert [id(parameter) for parameter in trained.parameters()] == tensors
    loss = trained.training_step(next(iter(data)), 0)
    loss.backward()


@pytest.mark.parametrize("tolerance", [0, 0.1])
def test_few_trials_choose_what_the_curves_choose(
    trained: ForeignModule, tmp_path: Path, tolerance: float
) -> None:
    levels = [step / 10 for step in range(10)]
    options: dict[str, Any] = {"levels": levels, "tolerance": tolerance, "monitor": "my_acc"}
    data = loader(64, seed=1)
    whole = run(trained, data, tmp_path / "all", **options)
    few = run(trained, data, tmp_path / "few", curves=False, **options)
    assert len(few.rows) < len(whole.rows) / 2
    rows = {(row.layer, row.ratio): row for row in whole.rows}
    assert all(rows[row.layer, row.ratio] == row for row in few.rows)
    for layer, chosen in whole.chosen.items():
        drops = [
            round(whole.baseline["my_acc"] - rows[layer, Fraction(str(v))].scores["my_acc"], 6)
            for v in levels
        ]
        within = [drop <= tolerance for drop in drops]
        if within == sorted(within, reverse=True):  # drops only rise
            assert few.chosen[layer] == chosen
        assert chosen == Fraction(str(levels[[*within, False].index(False) - 1]))
    assert not list((tmp_path / "few").glob("*.png"))


def test_rules_are_written_for_rule_pruning(trained: ForeignModule, tmp_path: Path) -> None:
    found = run(trained, loader(), tmp_path, tolerance=0.05, granularity="original")
    rules = read_rules(tmp_path / "rules.yaml")
    assert {rule.pattern: rule.ratio or 0 for rule in rules} == {
        name: ratio for name, ratio in found.chosen.items() if name != WHOLE
    }
    assert all(rule.ratio is None or rule.ratio < 1 for rule in rules)
    text = (tmp_path / "rules.yaml").read_text()
    assert f"while {found.monitor} loses at most 0.05" in text
    RulePruning(rules=str(tmp_path / "rules.yaml"), shrink="never").describe(trained)
    assert str(tmp_path / "rules.yaml") in str(found)
    assert "all layers" in str(found)


def test_files_and_tensorboard_figure(trained: ForeignModule, tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), "tb", default_hp_metric=False)
    trainer = OurTrainer(
        accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.scan(trained, loader(), levels=(0, 0.5), dirpath=str(tmp_path / "scan"))
    names = {path.name for path in (tmp_path / "scan").iterdir()}
    assert names == {"scan.csv", "scan.json", "scan.png", "scan.svg", "rules.yaml"}
    logger.finalize("success")
    events = b"".join(path.read_bytes() for path in tmp_path.rglob("events.out*"))
    assert b"compress/sensitivity" in events


def test_without_matplotlib_the_rest_is_written(
    foreign: ForeignModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure, "can_draw", lambda: False)
    with pytest.warns(UserWarning, match=r"no curves are drawn, because matplotlib .*plots"):
        run(foreign, loader(), tmp_path, levels=[0, 0.5])
    assert {path.name for path in tmp_path.iterdir()} == {"scan.csv", "scan.json", "rules.yaml"}


@pytest.mark.parametrize("curves", [True, False])
def test_a_scan_that_was_stopped_goes_on_where_it_was(
    trained: ForeignModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curves: bool
) -> None:
    data = loader(64, seed=1)
    whole = run(trained, data, tmp_path / "whole", curves=curves)
    real, tried = TrialRunner.scores, []

    def stopped(self: TrialRunner, values: dict[str, Tensor]) -> dict[str, float]:
        tried.append(1)
        if len(tried) == 6:
            raise KeyboardInterrupt
        return real(self, values)

    monkeypatch.setattr(TrialRunner, "scores", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(trained, data, tmp_path / "parts", curves=curves)
    with (tmp_path / "parts" / "scan.csv").open() as file:
        before = list(csv.reader(file))
    assert 5 <= len(before) - 1 < len(whole.rows)
    rest = run(trained, data, tmp_path / "parts", curves=curves)
    trials = len([row for row in whole.rows if row.ratio])
    assert len(tried) == trials + 1  # one was stopped, none made twice
    for name in ("scan.csv", "rules.yaml"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert rest.chosen == whole.chosen
    run(trained, data, tmp_path / "parts", curves=curves)
    assert len(tried) == trials + 1


def test_a_folder_of_other_weights_is_refused(foreign: ForeignModule, tmp_path: Path) -> None:
    run(foreign, loader(), tmp_path, levels=[0, 0.5])
    kept = (tmp_path / "scan.csv").read_bytes()
    with torch.no_grad():
        foreign.net[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(
        ScanError, match=r"a scan with other settings \(weights was .*: give another dirp"
    ):
        run(foreign, loader(), tmp_path, levels=[0, 0.5])
    assert (tmp_path / "scan.csv").read_bytes() == kept
    with pytest.raises(ScanError, match=r"other settings \(granularity was element, now original"):
        run(foreign, loader(), tmp_path, granularity="original")


class Silent(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


class Odd(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("value", self(batch[0]).mean())


class Diverged(ForeignModule):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("my_acc", self(batch[0]).mean() * float("nan"))


class Unmeasured(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("case", "options", "kind", "message"),
    [
        (
            ForeignModule,
            {"monitor": "acc"},
            InvalidArgumentError,
            "'acc' is not logged by the valid.*my_acc, my_loss",
        ),
        (
            ForeignModule,
            {"include": ["nets.*"]},
            PatternError,
            r"include: the pattern 'nets\.\*' matches no",
        ),
        (
            ForeignModule,
            {"include": ["x"], "granularity": "filter"},
            PatternError,
            "'x' matches no",
        ),
        (
            ForeignModule,
            {"levels": [0.5, 1.5]},
            InvalidArgumentError,
            r"numbers in \[0, 1\], got 1\.5",
        ),
        (
            ForeignModule,
            {"include": "net.0"},
            InvalidArgumentError,
            r"include must be a list of patterns",
        ),
        (Silent, {}, InvalidArgumentError, "give a monitor: .*it logs nothing"),
        (Odd, {}, InvalidArgumentError, r"give a monitor: .*\(value\)"),
        (Diverged, {}, ScanError, "my_acc is NaN before anything is pruned"),
        (Unmeasured, {}, ScanError, "measures with validation_step, but Unmeasured has none"),
    ],
)
def test_what_cannot_be_scanned_is_told(
    tmp_path: Path, case: type, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run(case(), loader(), tmp_path / "scan", **options)
    assert not list(tmp_path.glob("scan/*"))


def test_nan_in_the_weights_is_told(foreign: ForeignModule, tmp_path: Path) -> None:
    foreign.net[3].bias.data[0] = float("nan")
    with pytest.raises(PatternError, match=r"net\.3\.bias holds NaN"):
        run(foreign, loader(), tmp_path)


@pytest.mark.filterwarnings("ignore:Total length of:UserWarning")  # Lightning's, of no batch
@pytest.mark.parametrize("data", [None, loader(0)])
def test_no_validation_data_is_told(foreign: ForeignModule, tmp_path: Path, data: Any) -> None:
    with pytest.raises(ScanError, match="there is no validation data to scan on"):
        run(foreign, data, tmp_path)


def test_of_several_loaders_the_first_is_used(tmp_path: Path) -> None:
    class Several(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, batch_idx)

    torch.manual_seed(0)
    module = Several()
    with pytest.warns(UserWarning, match="of 2 validation loaders, only the first is used"):
        two = run(module, [loader(32), loader(64)], tmp_path / "two", levels=[0.5])
    one = run(module, loader(32), tmp_path / "one", levels=[0.5])
    assert two.rows == one.rows
