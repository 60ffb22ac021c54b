"""Files of an earlier version: its checkpoints load and resume, its artefact and configs are read.

``make_golden.py`` wrote them, once, at the commit that ``manifest.json`` names. They are never made
anew: a test that fails here says that users' files of that time no longer work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ForeignModule, ManualModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning, Overfitting, RulePruning
from lit_compress.cli import main
from lit_compress.modules import ShuffleNetV2
from lit_compress.pruning.layers import layer_name

# Lightning 2.6 calls what jsonargparse 5 will remove: lit_compress pins jsonargparse below 5.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FOLDER = Path(__file__).parent
FILES = FOLDER / "files"
ARTEFACT = FILES / "artefact"
CONFIGS = FILES / "configs"
CLI_CHECKPOINT = FILES / "checkpoints" / "command_line.ckpt"

#: The fits that were stopped half way.
FITS = (
    "filters",
    "filters_of_macs_taylor",
    "filters_end",
    "filters_rewind_init",
    "filters_two_optimizers",
    "rules_mixed",
    "rules_lines_never",
    "magnitude",
    "magnitude_rewind_epoch",
    "overfitting_rules",
)
DESCRIBED = ("mixed", "stages", "lines", "scan", "filters")
TEXT = {".yaml", ".json", ".csv", ".rule"}

CALLBACKS: dict[str, type[Callback]] = {
    "FilterPruning": FilterPruning,
    "MagnitudePruning": MagnitudePruning,
    "Overfitting": Overfitting,
    "RulePruning": RulePruning,
}
MODULES: dict[str, type[LightningModule]] = {
    "ForeignModule": ForeignModule,
    "ManualModule": ManualModule,
}
PRUNERS = (FilterPruning, MagnitudePruning, RulePruning)

MakeTrainer = Callable[..., Trainer]
State = Mapping[str, Tensor]


@cache
def manifest() -> dict[str, Any]:
    """Return what is known of the files."""
    content: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text("utf-8"))
    return content


def callbacks_of(recipe: Mapping[str, Any], files: Path = FILES) -> list[Callback]:
    """Return the callbacks of a fit, anew."""
    made: list[Callback] = []
    for name, given in recipe["callbacks"]:
        arguments = dict(given)
        if "schedule" in arguments:
            arguments["schedule"] = Schedule(**arguments["schedule"])
        if "rules" in arguments and arguments["rules"] != "default":
            arguments["rules"] = str(files / arguments["rules"])
        made.append(CALLBACKS[name](**arguments))
    return made


def digest(state: State) -> str:
    """Return the SHA-256 of the bytes of all tensors, by sorted names."""
    found = hashlib.sha256()
    for _, tensor in sorted(state.items()):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def probe() -> str:
    """Return a digest of a training without lit_compress: how this machine rounds."""
    states: dict[str, Tensor] = {}
    for first, second in ((8, 12), (6, 9), (4, 6), (3, 4)):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(second, 4),
        )
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
        for images, labels in [*loader(), *loader()]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
        states |= {f"{first}.{name}": tensor for name, tensor in net.state_dict().items()}
    return digest(states)


@cache
def rounds_alike() -> bool:
    """Tell whether this machine computes what the files' did, to the bit."""
    made = manifest()["made_with"]
    return bool(
        made["torch"] == torch.__version__
        and made["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
        and made["probe"] == probe()
    )


def assert_same(state: State, expected: State) -> None:
    """Compare weights: bit for bit where this machine rounds as the files' did."""
    assert {n: tuple(t.shape) for n, t in state.items()} == {
        n: tuple(t.shape) for n, t in expected.items()
    }
    exact = {"rtol": 0.0, "atol": 0.0} if rounds_alike() else {"rtol": 1e-3, "atol": 1e-4}
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, **exact, msg=lambda m, n=name: f"{n}: {m}")


def images() -> Tensor:
    """Return inputs that do not depend on how a machine draws random numbers."""
    with np.load(ARTEFACT / "replay.npz") as file:
        return torch.from_numpy(file["input_0"])


# --- checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FITS)
def test_a_checkpoint_loads_in_the_shapes_that_pruning_left(name: str) -> None:
    recipe = manifest()["checkpoints"][name]
    path = FILES / recipe["file"]
    module = lit_compress.load_from_checkpoint(MODULES[recipe["module"]], path)
    state = module.state_dict()
    assert {n: list(t.shape) for n, t in state.items()} == recipe["shapes"]
    assert digest(state) == recipe["digest"]
    assert torch.isfinite(module(images())).all()


@pytest.mark.parametrize("name", FITS)
def test_a_fit_resumes_from_a_checkpoint_and_ends_in_the_same_weights(
    name: str, make_trainer: MakeTrainer
) -> None:
    recipe = manifest()["checkpoints"][name]
    seed_everything(recipe["seed"], verbose=False)
    module = MODULES[recipe["module"]]()
    callbacks = callbacks_of(recipe)
    trainer = make_trainer(callbacks=callbacks, max_epochs=recipe["epochs"])
    trainer.fit(module, loader(), loader(16, 1), ckpt_path=FILES / recipe["file"])
    assert_same(module.state_dict(), load_file(FILES / recipe["final"]["file"]))
    if rounds_alike():
        assert digest(module.state_dict()) == recipe["final"]["digest"]
    (pruner,) = [c for c in callbacks if isinstance(c, PRUNERS)]
    assert [entry["epoch"] for entry in pruner.history] == recipe["final"]["epochs"]
    assert pruner.reached == pytest.approx(recipe["final"]["reached"])


def test_a_checkpoint_of_the_command_line_loads() -> None:
    recipe = manifest()["command_line_checkpoint"]
    module = lit_compress.load_from_checkpoint(ShuffleNetV2, CLI_CHECKPOINT)
    state = module.state_dict()
    assert {n: list(t.shape) for n, t in state.items()} == recipe["shapes"]
    assert digest(state) == recipe["digest"]
    started = ShuffleNetV2(in_channels=1, width=0.5, init_from=str(CLI_CHECKPOINT))
    assert digest(started.state_dict()) == recipe["digest"]


def test_the_command_line_resumes_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((CONFIGS / "filters.yaml").read_text("utf-8"))
    callbacks = config["trainer"]["callbacks"]
    pruning = [c for c in callbacks if c["class_path"].endswith("FilterPruning")]
    saving = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "kept", "filename": "a"}}
    config["trainer"] |= {"logger": False, "callbacks": [*pruning, saving]}
    Path("config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    assert main(["fit", "--config=config.yaml", f"--ckpt_path={CLI_CHECKPOINT}"]) == 0
    state = torch.load("kept/a.ckpt", weights_only=True)["state_dict"]
    assert {n: list(t.shape) for n, t in state.items()} == manifest()["command_line_checkpoint"][
        "shapes"
    ]


# --- artefact ----------------------------------------------------------------------------------


def test_an_artefact_is_checked_and_answers() -> None:
    net = lit_compress.load(ARTEFACT, check=True)
    expected = manifest()["artefact"]
    with np.load(ARTEFACT / "replay.npz") as file:
        inputs, outputs = file["input_0"], file["output"]
    assert np.mean(net(inputs).argmax(-1) == outputs.argmax(-1)) >= 0.9
    assert list(net.input_shape) == expected["input_shape"]
    for name, figures in expected["variants"].items():
        variant = net.card.variant(name)
        assert variant.metric is not None
        found = {
            "parameters": variant.parameters,
            "nonzero": variant.nonzero,
            "macs": variant.macs,
            "bytes": variant.bytes,
            variant.metric.name: variant.metric.value,
        }
        assert found == figures
    assert [entry["callback"] for entry in net.card.pruning] == expected["pruned_by"]


def test_an_artefact_is_restored_to_a_module_that_trains_on(make_trainer: MakeTrainer) -> None:
    module = lit_compress.restore(ARTEFACT, ForeignModule)
    expected = load_file(ARTEFACT / "model.safetensors")
    assert digest(module.state_dict()) == digest(expected) == manifest()["artefact"]["digest"]
    with np.load(ARTEFACT / "replay.npz") as file:
        outputs = torch.from_numpy(file["output"])
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(images()), outputs, rtol=1e-3, atol=1e-4)
    make_trainer(max_epochs=1).fit(module, loader(16), loader(16, 1))
    assert digest(module.state_dict()) != digest(expected)


# --- rules and scans ---------------------------------------------------------------------------


def described(recipe: Mapping[str, Any], files: Path = FILES) -> dict[str, Any]:
    """Return how much a rule file takes from each weight or layer."""
    callback = callbacks_of({"callbacks": [recipe["callback"]]}, files)[0]
    seed_everything(0, verbose=False)
    preview = callback.describe(ForeignModule(), torch.zeros(2, 1, 8, 8))
    if isinstance(callback, RulePruning):
        return {"weights": {w.name: [w.granularity, w.size, w.left] for w in preview.weights}}
    return {"layers": {layer.name: [layer.filters, layer.kept] for layer in preview.layers}}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_rule_file_takes_what_it_took(name: str) -> None:
    recipe = manifest()["rules"][name]
    assert described(recipe) == recipe["takes"]


def test_a_scan_goes_on_from_its_rows(tmp_path: Path) -> None:
    recipe = manifest()["scan"]
    shutil.copytree(FILES / "scan", tmp_path / "scan")
    (tmp_path / "scan" / "rules.yaml").unlink()
    table = tmp_path / "scan" / "scan.csv"
    lines = table.read_text("utf-8").splitlines()
    # No run gives this loss: it stays only if the row is taken as it is.
    place = next(i for i, line in enumerate(lines) if line.startswith("net.0.weight,0.5,"))
    cells = lines[place].split(",")
    cells[lines[0].split(",").index("my_loss")] = "123.0"
    lines[place] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n", "utf-8")
    found = scan(tmp_path / "scan", recipe["arguments"])
    chosen = {layer_name(name): ratio for name, ratio in recipe["chosen"].items()}
    assert {name: float(ratio) for name, ratio in found.chosen.items()} == chosen
    assert [row.scores["my_loss"] for row in found.rows].count(123.0) == 1
    made, expected = (f / "scan" / "rules.yaml" for f in (tmp_path, FILES))
    rules = yaml.safe_load(expected.read_text("utf-8"))
    named = [{**rule, "pattern": layer_name(rule["pattern"])} for rule in rules]  # as shown today
    assert yaml.safe_load(made.read_text("utf-8")) == named


def scan(folder: Path, arguments: Mapping[str, Any]) -> Any:
    """Scan the artefact's network on its stored inputs."""
    module = lit_compress.restore(ARTEFACT, ForeignModule)
    with np.load(ARTEFACT / "replay.npz") as file:
        labels = torch.from_numpy(file["output"].argmax(-1))
    data = DataLoader(TensorDataset(images(), labels), batch_size=16)
    return lit_compress.scan(module, data, progress=False, dirpath=str(folder), **arguments)


# --- configs -----------------------------------------------------------------------------------


def assert_holds(found: Any, saved: Any, path: str = "") -> None:
    """Make sure that all that was saved is still there; more may be, and classes may move."""
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            assert key in found, f"{path}.{key}"
            assert_holds(found[key], value, f"{path}.{key}")
    elif isinstance(saved, Sequence) and not isinstance(saved, str):
        assert len(found) == len(saved), path
        for index, (one, other) in enumerate(zip(found, saved, strict=True)):
            assert_holds(one, other, f"{path}[{index}]")
    elif path.endswith(".class_path"):
        assert found.rpartition(".")[2] == saved.rpartition(".")[2], path
    else:
        assert found == saved, path


@pytest.mark.parametrize("name", ["filters", "overfitting_rules", "magnitude"])
def test_a_saved_config_is_parsed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = CONFIGS / f"{name}.yaml"
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={path}", "--print_config"])
    assert stop.value.code == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert_holds(found, yaml.safe_load(path.read_text("utf-8")))


def test_a_saved_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FILES / "rules", "rules")
    assert main(["fit", f"--config={CONFIGS / 'overfitting_rules.yaml'}"]) == 0
    assert list(Path("runs").rglob("config.yaml"))


# --- the files themselves ----------------------------------------------------------------------


def test_no_file_was_made_anew() -> None:
    found = {}
    for path in sorted(FILES.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix in TEXT:
                content = content.replace(b"\r\n", b"\n")
            found[path.relative_to(FILES).as_posix()] = hashlib.sha256(content).hexdigest()
    assert found == {name: entry["sha256"] for name, entry in manifest()["files"].items()}
