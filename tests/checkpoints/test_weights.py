"""Starting weights: taken whole or not at all, and no code of a file is run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_compress.checkpoints.weights import load_weights
from lit_compress.errors import CheckpointError
from lit_compress.modules import ImageClassifier
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.resize import ORIGINAL, UnprunedShapes


def network(seed: int, hidden: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, hidden, 3), nn.BatchNorm2d(hidden), nn.Flatten(), nn.Linear(hidden * 4, 3)
    )


def classifier(seed: int, **options: Any) -> ImageClassifier:
    return ImageClassifier(network(seed), in_channels=1, num_classes=3, image_size=4, **options)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("kind", ["ckpt", "pt", "safetensors"])
def test_weights_are_taken_from(
    kind: str, tmp_path: Path, make_trainer: Callable[..., Trainer]
) -> None:
    source, path = classifier(1), tmp_path / f"weights.{kind}"
    trainer = make_trainer(max_steps=2)
    images, labels = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    trainer.fit(source, DataLoader(TensorDataset(images, labels), batch_size=4))
    if kind == "ckpt":
        trainer.save_checkpoint(path)
    elif kind == "pt":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    for made in (classifier(2, init_from=str(path)), classifier(3)):
        load_weights(made, path)
        assert same(state(made), state(source))
    assert not same(state(classifier(2)), state(source))


def test_channels_last_weights_keep_their_order(tmp_path: Path) -> None:
    save_file(classifier(1).state_dict(), tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    made = classifier(2, channels_last=True, init_from=path)
    assert same(state(made), state(classifier(1)))
    wide = nn.Sequential(nn.Conv2d(2, 4, 3))
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    other = nn.Sequential(nn.Conv2d(2, 4, 3)).to(memory_format=torch.channels_last)
    load_weights(other, tmp_path / "wide.pt")
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(other[0].weight, wide[0].weight)


def test_weights_of_the_bare_network_are_taken(tmp_path: Path) -> None:
    torch.save(network(1).state_dict(), tmp_path / "net.pt")
    made = classifier(2, init_from=str(tmp_path / "net.pt"))
    assert same(state(made.model), state(network(1)))


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("model.3.bias"), r"1 missing, such as model\.3\.bias"),
        (lambda w: {**w, "model.9.bias": w["model.3.bias"]}, r"1 too many, such as model\.9\.bias"),
        (
            lambda w: {**w, "model.3.weight": torch.zeros(5, 16)},
            r"model\.3\.weight is \(5, 16\) there and \(3, 16\) here, 1 such",
        ),
        (lambda w: {"a": torch.zeros(1)}, r"9 missing, .*1 too many, such as a"),
        (lambda w: {}, r"9 missing, such as model\.0\.bias"),
        (lambda w: state(network(1, hidden=5)), r"\(5, 1, 3, 3\) there and \(4, 1, 3, 3\) here"),
    ],
    ids=["missing", "surplus", "shape", "foreign", "empty", "wider"],
)
@pytest.mark.parametrize("kind", ["ckpt", "pt", "safetensors"])
def test_weights_of_another_architecture_are_refused_untouched(
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
    kind: str,
) -> None:
    module, path = classifier(2), tmp_path / f"w.{kind}"
    before, weights = state(module), change(state(classifier(1)))
    if kind == "safetensors":
        save_file({name: tensor.clone() for name, tensor in weights.items()}, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if kind == "ckpt" else weights, path)
    with pytest.raises(CheckpointError, match=f"not those of ImageClassifier .*{message}"):
        load_weights(module, path)
    assert same(state(module), before)


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["w.ckpt", "w.pt", "w.safetensors", "w"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, name: str, packed: bool) -> None:
    mark, path, module = tmp_path / "ran", tmp_path / name, classifier(2)
    content = {"state_dict": classifier(1).state_dict(), "callbacks": Code(mark)}
    if packed:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    before = state(module)
    with pytest.raises(CheckpointError, match=r"init_from: .*/w"):
        load_weights(module, path)
    assert not mark.exists()
    assert same(state(module), before)


def test_code_is_given_as_the_reason(tmp_path: Path) -> None:
    torch.save({"a": Code(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"contains more than weights .*weights_only=True"):
        load_weights(classifier(2), tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_damaged_file(tmp_path: Path, kind: str, keep: float) -> None:
    path, module = tmp_path / f"w.{kind}", classifier(2)
    if kind == "ckpt":
        torch.save({"state_dict": state(module)}, path)
    else:
        save_file(state(module), path)
    data, before = path.read_bytes(), state(module)
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=rf"init_from: {path} (cannot be read \(.|.*damaged)"):
        load_weights(module, path)
    assert same(state(module), before)


@pytest.mark.parametrize("name", ["nowhere.ckpt", "folder", "nowhere.safetensors"])
def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=f"there is no file {tmp_path}/{name}"):
        classifier(2, init_from=name)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"state_dict": {"a": 1}},
        {"state_dict": [1, 2]},
        {"epoch": 3, "model": {"a": torch.zeros(1)}},
        None,
    ],
)
def test_a_file_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"w\.pt has no state_dict of tensors"):
        load_weights(classifier(2), tmp_path / "w.pt")


def pruned(seed: int) -> tuple[ImageClassifier, UnprunedShapes]:
    """A classifier that lost a channel, and the record of what it was."""
    module = classifier(seed).eval()
    graph = analyse(module, torch.randn(2, 1, 4, 4))
    selected = frozenset([graph.groups[0].channels[1]])
    apply(make_plan(graph, selected), module)
    return module, UnprunedShapes.of(graph, selected)


def write(path: Path, module: nn.Module, record: Any) -> Path:
    """Keep a network and its record as FilterPruning's checkpoints and artefacts do."""
    if path.suffix == ".safetensors":
        save_file(state(module), path, {ORIGINAL: json.dumps(record)})
    else:
        states = {"FilterPruning": {"original": record}}
        torch.save({"state_dict": state(module), "callbacks": states}, path)
    return path


@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
def test_weights_of_a_pruned_network_come_in_their_shapes(tmp_path: Path, name: str) -> None:
    source, original = pruned(1)
    path = write(tmp_path / name, source, original.to_dict())
    for made in (classifier(2, init_from=str(path)), classifier(3)):
        load_weights(made, path)
        assert same(state(made), state(source))
        assert made.model[0].out_channels == made.model[1].num_features == 3
        assert made.model[3].in_features == 12
        images = torch.randn(2, 1, 4, 4)
        assert torch.equal(made.eval()(images), source(images))


@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
def test_pruned_weights_of_another_architecture_are_refused_untouched(
    tmp_path: Path, name: str
) -> None:
    source, original = pruned(1)
    path = write(tmp_path / name, source, original.to_dict())
    wider = ImageClassifier(network(2, hidden=5), in_channels=1, num_classes=3, image_size=4)
    other = ImageClassifier(
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), in_channels=1, num_classes=3, image_size=4
    )
    for module, message in (
        (wider, r"pruned from a network whose model\.0\.weight is \(4, 1, 3, 3\)"),
        (other, "the weights of .* are not those of ImageClassifier"),
    ):
        before = state(module)
        with pytest.raises(CheckpointError, match=message):
            load_weights(module, path)
        assert same(state(module), before)


@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
def test_pruned_weights_without_a_record_are_refused(tmp_path: Path, name: str) -> None:
    source, _ = pruned(1)
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state(source), path)
    else:
        torch.save({"state_dict": state(source)}, path)
    with pytest.raises(CheckpointError, match=r"\(3, 1, 3, 3\) there and \(4, 1, 3, 3\) here"):
        load_weights(classifier(2), path)


@pytest.mark.parametrize("name", ["w.ckpt", "w.safetensors"])
@pytest.mark.parametrize("record", [{}, [], {"shapes": {"a": ["x"]}, "norms": {}}, "text"])
def test_a_damaged_record_is_refused_untouched(tmp_path: Path, name: str, record: Any) -> None:
    source, module = pruned(1)[0], classifier(2)
    path, before = write(tmp_path / name, source, record), state(module)
    with pytest.raises(CheckpointError, match=rf"init_from: {path}.*damaged"):
        load_weights(module, path)
    assert same(state(module), before)
