"""Checkpoints that are timed: whose class, which inputs, which mode."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lit_compress.benchmark.subjects.checkpoint import CheckpointSubject
from lit_compress.benchmark.work import Work
from lit_compress.errors import CheckpointError, InvalidArgumentError
from lit_compress.measure import cost

# jsonargparse 4.49 and later, of calls that Lightning 2.6 makes
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
GOLDEN = Path(__file__).parents[2] / "golden/files/checkpoints"


class Counting(LightningModule):
    """Says in which mode and with how many rows it was called."""

    seen: list[tuple[bool, int, bool]]

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(3, width)
        self.attention = nn.TransformerEncoderLayer(width, 2, 8, batch_first=True)
        self.example_input_array = torch.zeros(2, 5, 3)
        self.seen = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(self.layer(x))
        self.seen.append((self.training, len(x), out.requires_grad))
        return out


class Shapeless(Counting):
    """States no example input."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width)
        self.example_input_array = None


@pytest.fixture
def saved(
    tmp_path: Path, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> Callable[[type[LightningModule]], tuple[Path, str]]:
    """Save a module of a class, and return the checkpoint and the import path of the class."""
    home = types.ModuleType("users_code")
    monkeypatch.setitem(sys.modules, "users_code", home)

    def save(cls: type[LightningModule]) -> tuple[Path, str]:
        setattr(home, cls.__name__, cls)
        trainer = make_trainer()
        trainer.strategy.connect(cls(width=8))
        path = tmp_path / "last.ckpt"
        trainer.save_checkpoint(path, weights_only=True)
        return path, f"users_code.{cls.__name__}"

    return save


def test_a_module_runs_in_eval_mode_without_gradients(
    saved: Callable[..., tuple[Path, str]],
) -> None:
    path, name = saved(Counting)
    subject = CheckpointSubject(path, model=name)
    run = subject.runner("pytorch", 1, 7)
    run()
    assert subject._module.seen == [(False, 7, False)]
    assert [slot.shape for slot in subject.slots] == [(5, 3)]
    assert subject.runtimes(["onnxruntime"]) == ("pytorch",)


def test_attention_is_counted(saved: Callable[..., tuple[Path, str]]) -> None:
    """Products of the fused attention are none that PyTorch's counter knows."""
    path, name = saved(Counting)
    found = CheckpointSubject(path, model=name).work()
    width, tokens, hidden = 8, 5, 8
    layers = tokens * (3 * width + 4 * width**2 + 2 * width * hidden)
    assert found == Work(0, layers + 2 * tokens**2 * width)
    assert cost(Counting(8), torch.zeros(1, 5, 3)).macs == found.total


def test_a_shape_is_given_where_the_module_states_none(
    saved: Callable[..., tuple[Path, str]],
) -> None:
    path, name = saved(Shapeless)
    with pytest.raises(InvalidArgumentError, match="has no example_input_array"):
        CheckpointSubject(path, model=name)
    subject = CheckpointSubject(path, [(9, 3)], name)
    assert subject.slots[0].shape == (9, 3)
    assert subject.inputs_text(1) == "random numbers"
    with pytest.raises(InvalidArgumentError, match="does not run a batch of 2"):
        CheckpointSubject(path, [(9, 4)], name).runner("pytorch", 1, 2)()


def test_a_class_of_this_package_is_known() -> None:
    subject = CheckpointSubject(GOLDEN / "command_line.ckpt")
    assert subject.inputs_text(1) == "the module's example_input_array"
    assert subject.limit("pytorch", 1, "float32") > 1e6


def test_another_class_is_not_imported(saved: Callable[..., tuple[Path, str]]) -> None:
    path, _ = saved(Counting)
    with pytest.raises(CheckpointError, match=r"names no class: give .* --model"):
        CheckpointSubject(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["_class_path"] = "nowhere.Net"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"names the class nowhere\.Net"):
        CheckpointSubject(path)
    assert "nowhere" not in sys.modules


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere.Net", "cannot be imported"),
        ("Net", "cannot be imported"),
        ("pathlib.Path", "is not a LightningModule"),
        ("pathlib.Nothing", "cannot be imported"),
    ],
)
def test_classes_that_are_none(model: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        CheckpointSubject(GOLDEN / "command_line.ckpt", model=model)


def test_the_threads_are_those_of_pytorch(saved: Callable[..., tuple[Path, str]]) -> None:
    path, name = saved(Counting)
    with CheckpointSubject(path, model=name).with_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
