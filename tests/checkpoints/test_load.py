"""load_from_checkpoint: the user's class, whole or pruned, and nothing of the file executed."""

import copy
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lit_compress import load_from_checkpoint
from lit_compress.checkpoints.reading import read_checkpoint
from lit_compress.cli import main
from lit_compress.errors import CheckpointError
from lit_compress.modules import ImageClassifier, MobileNetV2, ShuffleNetV2
from lit_compress.pruning import analyse, apply, make_plan
from lit_compress.pruning.channels.resize import UnprunedShapes

IMAGES = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(LightningModule):
    def __init__(self, width: int = 8, classes: int = 2, act: str = "relu") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, width, 3), nn.InstanceNorm2d(width), nn.ReLU(), nn.Conv2d(width, 6, 3)),
            *(nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, classes)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Sub(Net):
    """Another output; its checkpoint is no checkpoint of Net."""

    def __init__(self, width: int = 8, classes: int = 2, act: str = "relu") -> None:
        super().__init__(width, classes, act)
        self.more = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.more(super().forward(x))


class Renaming(Net):
    """Its checkpoints hold older names, which its own load_state_dict translates."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        return {f"old.{name}": tensor for name, tensor in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        named = {name.removeprefix("old."): tensor for name, tensor in state_dict.items()}
        return super().load_state_dict(named, *args, **kwargs)


class Hooked(Net):
    """Its on_load_checkpoint translates names, and reads a value of its own."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {f"old.{name}": tensor for name, tensor in state.items()}
        checkpoint["mine"] = 3

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {n.removeprefix("old."): t for n, t in state.items()}
        self.mine = checkpoint["mine"]


def checkpoint(module: LightningModule) -> dict[str, Any]:
    """Return what Lightning keeps of a module."""
    content = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "hparams_name": "kwargs",
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 1,
        "callbacks": {},
    }
    module.on_save_checkpoint(content)
    return content


def save(path: Path, module: LightningModule, pruned: bool = True, **more: Any) -> Path:
    """Write a checkpoint, of a network that lost a third of its channels."""
    if pruned:
        graph = analyse(module, IMAGES)
        selected = frozenset(n for g in graph.groups for n in g.channels[: len(g.channels) // 3])
        apply(make_plan(graph, selected), module)
        record = UnprunedShapes.of(graph, selected).to_dict()
        more = {"callbacks": {"FilterPruning": {"original": record}}, **more}
    torch.save({**checkpoint(module), **more}, path)
    return path


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("kind", [Net, Sub, Renaming, Hooked])
def test_the_class_loads_its_own_checkpoints(kind: type[Net], pruned: bool, tmp_path: Path) -> None:
    before = dict(vars(kind))
    module = kind(width=9, act="gelu").eval()
    loaded = load_from_checkpoint(kind, save(tmp_path / "a.ckpt", module, pruned)).eval()
    assert type(loaded) is kind
    assert loaded.net[0].out_channels == loaded.net[1].num_features == (6 if pruned else 9)
    assert dict(loaded.hparams) == {"width": 9, "classes": 2, "act": "gelu"}
    assert torch.equal(loaded(IMAGES), module(IMAGES))
    assert not loaded._load_state_dict_pre_hooks
    assert getattr(loaded, "mine", 3) == 3
    assert dict(vars(kind)) == before


def test_arguments_go_before_hyperparameters(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", Net())
    assert load_from_checkpoint(Net, path, act="gelu").hparams.act == "gelu"
    with pytest.raises(CheckpointError, match=r"whose net\.0\.weight is \(8, 1, 3, 3\)"):
        load_from_checkpoint(Net, path, width=9)
    with pytest.raises(CheckpointError, match=r"whose net\.0\.weight is \(8, 1, 3, 3\)"):
        load_from_checkpoint(Net, path, width=6)  # that of the pruned network


def test_names_that_are_missing_may_be_let_pass(tmp_path: Path) -> None:
    module = Net()
    path = save(tmp_path / "a.ckpt", module)
    content = torch.load(path)
    del content["state_dict"]["net.7.bias"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r'not those of Net: Missing key.*"net\.7\.bias"'):
        load_from_checkpoint(Net, path)
    with pytest.warns(UserWarning, match="not in the checkpoint"):
        loaded = load_from_checkpoint(Net, path, strict=False)
    assert torch.equal(loaded.net[0].weight, module.net[0].weight)


@pytest.mark.parametrize("pruned", [False, True])
def test_checkpoints_of_another_architecture_are_refused_and_the_class_is_as_before(
    pruned: bool, tmp_path: Path
) -> None:
    before = [dict(vars(kind)) for kind in (Net, Sub, Renaming)]
    base, sub = save(tmp_path / "a.ckpt", Net(), pruned), save(tmp_path / "b.ckpt", Sub(), pruned)
    with pytest.raises(CheckpointError, match="not those of Sub: Missing key"):
        load_from_checkpoint(Sub, base)
    with pytest.raises(
        CheckpointError, match=r"not those of Net: Unexpected key|more\.weight .* is missing"
    ):
        load_from_checkpoint(Net, sub)
    with pytest.raises(CheckpointError, match=r"not those of|here it is"):
        load_from_checkpoint(Net, base, classes=3)
    assert [dict(vars(kind)) for kind in (Net, Sub, Renaming)] == before


def test_an_error_of_the_class_itself_names_the_file(tmp_path: Path) -> None:
    class Failing(Net):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            raise RuntimeError("no disk")

    before = dict(vars(Failing))
    with pytest.raises(CheckpointError, match=r"Failing cannot be built from .*a\.ckpt") as caught:
        load_from_checkpoint(Failing, save(tmp_path / "a.ckpt", Net()))
    assert str(caught.value.__cause__) == "no disk"
    assert dict(vars(Failing)) == before


def test_weights_without_a_record_load_whole_or_not_at_all(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", Net(), callbacks={})
    with pytest.raises(CheckpointError, match="not those of Net: size mismatch"):
        load_from_checkpoint(Net, path)


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("packed", [True, False])
def test_code_in_a_file_is_refused_and_not_run(packed: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "a.ckpt", tmp_path / "ran"
    content = {**checkpoint(Net()), "extra": Code(mark)}
    if packed:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(
        CheckpointError, match=r"a\.ckpt (contains more than weights|cannot be read)"
    ):
        load_from_checkpoint(Net, path)
    assert not mark.exists()


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_cut_file_is_refused(keep: float, tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", Net())
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=r"a\.ckpt (cannot be read \(.|.*damaged)"):
        load_from_checkpoint(Net, path)


@pytest.mark.parametrize("content", [[], {"state_dict": 3}, {"epoch": 1}, torch.zeros(2)])
def test_a_file_that_is_no_checkpoint_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a Lightning checkpoint: it has no state_dict"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"there is no checkpoint {tmp_path}"):
        load_from_checkpoint(Net, tmp_path)


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a small fit by the command line that lost filters."""
    folder = tmp_path_factory.mktemp("cli")
    torch.set_num_threads(1)  # before any fixture of a test does
    pruning = {"target": 0.5, "schedule": {"shape": "one_shot"}}
    config = {
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "limit_train_batches": 2,
            "limit_val_batches": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "default_root_dir": str(folder),
            "callbacks": [
                {"class_path": "FilterPruning", "init_args": pruning},
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(folder / "kept"), "filename": "last"},
                },
            ],
        },
        "model": {
            "class_path": "ShuffleNetV2",
            "init_args": {
                "in_channels": 1,
                "width": 0.5,
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            },
        },
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 16}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", str(folder / "config.yaml")])
    return folder / "kept" / "last.ckpt"


CLI = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@CLI
@pytest.mark.parametrize("kind", [ShuffleNetV2, ImageClassifier, LightningModule])
def test_checkpoints_of_the_command_line_load(kind: type[LightningModule], fitted: Path) -> None:
    loaded = load_from_checkpoint(kind, fitted)
    assert type(loaded) is ShuffleNetV2  # also where a base was asked for
    state = torch.load(fitted, weights_only=True)["state_dict"]
    whole = sum(tensor.numel() for tensor in ShuffleNetV2(in_channels=1, width=0.5).parameters())
    assert sum(tensor.numel() for tensor in loaded.parameters()) < 0.5 * whole
    assert all(torch.equal(state[name], tensor) for name, tensor in loaded.state_dict().items())
    assert "load_state_dict" not in vars(ShuffleNetV2)
    assert "load_state_dict" in vars(nn.Module)


def altered(fitted: Path, path: Path, **hyperparameters: Any) -> Path:
    content = torch.load(fitted, weights_only=True)
    content["hyper_parameters"] |= hyperparameters
    torch.save(content, path)
    return path


@CLI
def test_a_checkpoint_of_another_class_is_refused(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"is of .*ShuffleNetV2, which is not an imported subclass of Mobile"
    ):
        load_from_checkpoint(MobileNetV2, fitted)
    path = altered(fitted, tmp_path / "a.ckpt", _class_path="this.Net")
    with pytest.raises(
        CheckpointError, match=r"is of this\.Net, which is not an imported subclass of"
    ):
        load_from_checkpoint(LightningModule, path)


@CLI
def test_nothing_that_a_checkpoint_names_is_imported(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.chdir(tmp_path)
        for changes in ({"_instantiator": "evil.build"}, {"_class_path": "evil.Net"}):
            path = altered(fitted, tmp_path / "a.ckpt", **changes)
            with pytest.raises(CheckpointError, match=r"evil\."):
                load_from_checkpoint(ImageClassifier, path)
    assert not (tmp_path / "ran").exists()


def test_hyperparameters_that_are_no_mapping_are_left_to_the_class(tmp_path: Path) -> None:
    module = Net()
    path = save(tmp_path / "a.ckpt", module)
    content = copy.deepcopy(torch.load(path))
    del content["hyper_parameters"], content["hparams_name"]
    torch.save(content, path)
    assert load_from_checkpoint(Net, path).net[0].out_channels == module.net[0].out_channels


# --- objects -------------------------------------------------------------------------------------


NET = pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module`:UserWarning")


class Template(LightningModule):
    """Objects are arguments of the constructor, as in the public templates."""

    def __init__(self, net: nn.Module, optimizer: Any, act: Any = None, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net


def template() -> Template:
    torch.manual_seed(1)
    return Template(nn.Linear(4, 2), partial(torch.optim.SGD, lr=0.1), width=7)


def same(module: nn.Module, other: nn.Module) -> bool:
    own = other.state_dict()
    return all(torch.equal(tensor, own[name]) for name, tensor in module.state_dict().items())


@NET
def test_objects_of_a_checkpoint_are_given_as_arguments(tmp_path: Path) -> None:
    """torch's "Weights only load failed" was all that a user of a public template saw."""
    module, path = template(), tmp_path / "a.ckpt"
    torch.save(checkpoint(module), path)
    with pytest.raises(
        CheckpointError,
        match=r"net \(torch.*Linear\), optimizer \(functools.partial\)\. Give them.*weights_only=F",
    ):
        load_from_checkpoint(Template, path)
    with pytest.raises(CheckpointError, match=r"objects.*: optimizer \(functools.partial\)\. "):
        load_from_checkpoint(Template, path, net=nn.Linear(4, 2))
    loaded = load_from_checkpoint(Template, path, net=nn.Linear(4, 2), optimizer=torch.optim.Adam)
    assert same(loaded, module)
    assert (loaded.hparams.width, loaded.hparams.optimizer) == (7, torch.optim.Adam)


@NET
def test_a_trusted_file_is_loaded_with_its_objects(tmp_path: Path) -> None:
    module, path = template(), tmp_path / "a.ckpt"
    torch.save(checkpoint(module), path)
    loaded = load_from_checkpoint(Template, path, weights_only=False)
    assert same(loaded, module)
    assert loaded.hparams.optimizer.keywords == {"lr": 0.1}


class Reading(Template):
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.mine = checkpoint["mine"]


@NET
def test_objects_that_a_hook_may_read_are_not_left_out_in_silence(tmp_path: Path) -> None:
    module, path = template(), tmp_path / "a.ckpt"
    given = {"net": nn.Linear(4, 2), "optimizer": None}
    torch.save({**checkpoint(module), "mine": [partial(print)], "lr_schedulers": [module]}, path)
    assert same(load_from_checkpoint(Template, path, **given), module)
    with pytest.raises(CheckpointError, match="'mine', which on_load_checkpoint of Reading may"):
        load_from_checkpoint(Reading, path, **given)
    content = checkpoint(module)
    content["state_dict"]["extra"] = partial(print)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="extra of the state_dict is an object"):
        load_from_checkpoint(Template, path, **given)


@CLI
@pytest.mark.parametrize(
    "value",
    [
        {"class_path": "evil_optimizer.Opt"},
        "evil_optimizer.Opt",
        "{class_path: evil_optimizer.Opt}",
        {"class_path": "torch.optim.SGD", "init_args": {"lr": "evil_optimizer.Opt"}},
    ],
)
def test_no_hyperparameter_is_imported(value: Any, fitted: Path, tmp_path: Path) -> None:
    """An optimizer's class path in a file imported the module that it names."""
    (tmp_path / "evil_optimizer.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.chdir(tmp_path)
        path = altered(fitted, tmp_path / "a.ckpt", optimizer=value)
        with pytest.raises(CheckpointError, match=r"names evil_optimizer.Opt, .* import evil_opt"):
            load_from_checkpoint(ShuffleNetV2, path)
        assert (
            main(
                ["test", f"--config={fitted.parent.parent / 'config.yaml'}", f"--ckpt_path={path}"]
            )
            == 2
        )
        assert not (tmp_path / "ran").exists()
        sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.5}}
        assert isinstance(load_from_checkpoint(ShuffleNetV2, path, optimizer=sgd), ShuffleNetV2)
    assert not (tmp_path / "ran").exists()


@CLI
def test_the_command_line_names_a_checkpoint_with_objects(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = altered(fitted, tmp_path / "a.ckpt", optimizer=partial(torch.optim.SGD, lr=0.1))
    config = fitted.parent.parent / "config.yaml"
    assert main(["test", f"--config={config}", f"--ckpt_path={path}"]) == 2
    assert "a.ckpt holds objects, which the command line does not make" in capsys.readouterr().err
