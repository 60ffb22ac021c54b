"""What is written of a scan is what was found."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from conftest import ForeignModule
from lightning.pytorch import Trainer

from lit_compress.pruning.rules.files import read_rules
from lit_compress.sensitivity import figure
from lit_compress.sensitivity.options import ScanOptions
from lit_compress.sensitivity.result import Scan, draw_curves, write_rule_file
from lit_compress.sensitivity.table import Row
from lit_compress.sensitivity.targets import WHOLE, weight_targets

CHOSEN = {WHOLE: Fraction(0), "net.0": Fraction(3, 10), "net.3": Fraction(1, 2)}


@pytest.fixture
def found(tmp_path: Path) -> Scan:
    rows = tuple(
        Row(name, ratio, 1, 2, {"acc": 0.75})
        for name in CHOSEN
        for ratio in (Fraction(0), Fraction(1, 2))
    )
    drops = {WHOLE: 0.0, "net.0": 0.01, "net.3": 0.0}
    return Scan(rows, {"acc": 0.75}, CHOSEN, drops, "acc", tmp_path, "64 examples")


def test_it_prints_as_a_table(found: Scan, tmp_path: Path) -> None:
    assert str(found).splitlines() == [
        "layer       largest ratio    drop",
        "all layers              0  0.0000",
        "net.0                 0.3  0.0100",
        "net.3                 0.5  0.0000",
        "acc 0.7500 on 64 examples",
        f"rules: {tmp_path / 'rules.yaml'}",
    ]


def test_rules_have_the_drop_as_a_comment(found: Scan, tmp_path: Path) -> None:
    targets = weight_targets(ForeignModule(), "element", ["*"], [])
    write_rule_file(found, ScanOptions(tolerance=0.02), targets)
    text = (tmp_path / "rules.yaml").read_text("utf-8")
    assert "loses at most 0.02" in text
    assert "# acc loses 0.0100" in text
    ratios = {
        rule.pattern: rule.ratio for rule in read_rules(tmp_path / "rules.yaml") if rule.ratio
    }
    assert list(ratios.values()) == [Fraction(3, 10), Fraction(1, 2)]


def test_without_matplotlib_there_are_no_curves(
    found: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    monkeypatch.setattr(figure, "can_draw", lambda: False)
    with pytest.warns(UserWarning, match="no curves are drawn, because matplotlib"):
        draw_curves(trainer, ForeignModule(), found, 0.7)
    assert not list(tmp_path.iterdir())
