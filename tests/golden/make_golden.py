"""Write the golden files: what a version of lit-compress leaves behind, for later ones to read.

    PYTHONPATH=CHECKOUT:CHECKOUT/tests python make_golden.py COMMIT

Writes ``files/`` and ``manifest.json`` beside itself, and refuses where they are. They were made
once, at the commit that the manifest names; ``test_golden.py`` reads them at every later one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from conftest import ForeignModule, loader
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from safetensors.torch import save_file
from test_golden import (
    ARTEFACT,
    DESCRIBED,
    FILES,
    FITS,
    FOLDER,
    MODULES,
    callbacks_of,
    described,
    digest,
    probe,
    scan,
)

import lit_compress
from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, PostTrainingQuantization

PACKAGES = (
    "lightning",
    "torchvision",
    "torchmetrics",
    "torchao",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "safetensors",
    "jsonargparse",
    "numpy",
)
EPOCHS = 6
#: The epoch after which a checkpoint is taken: two of the four events are over.
STOPPED = 2
HALFWAY = {"first": 1, "last": 4, "shape": "linear"}

Recipe = dict[str, Any]
Given = list[list[Any]]

RECIPES: dict[str, Given] = {
    "filters": [["FilterPruning", {"target": 0.5, "schedule": HALFWAY}]],
    "filters_of_macs_taylor": [
        [
            "FilterPruning",
            {"target": 0.6, "of": "macs", "importance": "taylor", "schedule": HALFWAY},
        ]
    ],
    "filters_end": [["FilterPruning", {"target": 0.5, "schedule": HALFWAY, "shrink": "end"}]],
    "filters_rewind_init": [
        [
            "FilterPruning",
            {"target": 0.5, "schedule": HALFWAY, "scope": "global", "rewind": "init"},
        ]
    ],
    "filters_two_optimizers": [
        ["FilterPruning", {"target": 0.5, "schedule": HALFWAY, "recalibrate": 2}]
    ],
    "rules_mixed": [["RulePruning", {"rules": "rules/mixed.yaml", "schedule": HALFWAY}]],
    "rules_lines_never": [
        ["RulePruning", {"rules": "rules/lines.rule", "schedule": HALFWAY, "shrink": "never"}]
    ],
    "magnitude": [["MagnitudePruning", {"target": 0.8, "schedule": HALFWAY}]],
    "magnitude_rewind_epoch": [
        [
            "MagnitudePruning",
            {"target": 0.8, "schedule": HALFWAY, "scope": "local", "rewind": "epoch 1"},
        ]
    ],
    "overfitting_rules": [
        ["Overfitting", {"monitor": "my_acc", "threshold": 1.0}],
        [
            "RulePruning",
            {
                "rules": "default",
                "target": 0.3,
                "shrink": "never",
                "schedule": {"first": 4, "shape": "one_shot"},
            },
        ],
    ],
}

RULES = {
    "mixed.yaml": """# Filters of the convolutions, elements of the classifier.
- {pattern: "net.0", granularity: filter, importance: bn_scale, ratio: 0.5}
- {pattern: "net.3.weight", granularity: filter, ratio: [0.25, 0.5]}  # one a pruning event
- pattern: "net.7"
  granularity: element
  ratio: 0.5
""",
    "stages.yaml": '- {pattern: "net.0.*", skip: true}\n'
    '- {pattern: "regex:net[.]3([.]weight)?", granularity: element, importance: random, '
    "ratio: [0.2, 0.4]}\n"
    '- {pattern: "*", granularity: element}\n',
    "filters.yaml": """- {pattern: "net.0", ratio: 0.25}
- {pattern: "net.7", skip: true}
""",
    "lines.rule": """net.0.weight,0.25;0.5,l2norm,
net.1.weight,0.5,None,
net.3.weight,0.5,l1norm,
net.7.weight,0.3;0.6,abs,
""",
    "shufflenet.yaml": """- {pattern: "model.conv1.*", skip: true}
- {pattern: "regex:model[.]stage[24][.].*", granularity: filter, ratio: 0.3}
- {pattern: "model.fc", granularity: element, ratio: 0.5}
""",
}

DESCRIPTIONS: dict[str, list[Any]] = {
    "mixed": ["RulePruning", {"rules": "rules/mixed.yaml"}],
    "stages": ["RulePruning", {"rules": "rules/stages.yaml", "target": 0.4}],
    "lines": ["RulePruning", {"rules": "rules/lines.rule"}],
    "scan": ["RulePruning", {"rules": "scan/rules.yaml"}],
    "filters": ["FilterPruning", {"target": 0.5, "rules": "rules/filters.yaml"}],
}

SCAN = {
    "granularity": "element",
    "levels": [0, 0.25, 0.5, 0.75, 1],
    "tolerance": 0.1,
    "monitor": "my_acc",
    "images": None,
    "curves": False,
}

COMMON: dict[str, Any] = {
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 3,
        "limit_train_batches": 3,
        "limit_val_batches": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {
            "class_path": "TensorBoardLogger",
            "init_args": {"save_dir": "runs", "name": "golden", "default_hp_metric": False},
        },
    },
    "model": {
        "class_path": "ShuffleNetV2",
        "init_args": {
            "in_channels": 1,
            "width": 0.5,
            "optimizer": {
                "class_path": "torch.optim.SGD",
                "init_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5.0e-4},
            },
            "lr_scheduler": {
                "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
                "init_args": {"T_max": 3},
            },
        },
    },
    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 32}},
}
EARLY = {"first": 1, "last": 1}
CALLBACKS: dict[str, list[dict[str, Any]]] = {
    "filters": [
        {
            "class_path": "FilterPruning",
            "init_args": {"target": 0.9, "schedule": EARLY, "monitor": "val_acc"},
        },
        {
            "class_path": "ModelCheckpoint",
            "init_args": {"filename": "{epoch}", "save_top_k": -1, "save_last": False},
        },
        {
            "class_path": "PostTrainingQuantization",
            "init_args": {"monitor": "val_acc", "calibration_batches": 2},
        },
        {"class_path": "CompressionReport"},
    ],
    "overfitting_rules": [
        {"class_path": "Overfitting", "init_args": {"monitor": "val_acc", "every": 2}},
        {
            "class_path": "RulePruning",
            "init_args": {
                "rules": "rules/shufflenet.yaml",
                "shrink": "never",
                "schedule": {"first": 1, "shape": "one_shot"},
            },
        },
    ],
    "magnitude": [
        {
            "class_path": "MagnitudePruning",
            "init_args": {"target": 0.5, "scope": "local", "schedule": {"first": 1}},
        },
        {
            "class_path": "PostTrainingQuantization",
            "init_args": {"monitor": "val_acc", "weights": "last", "skip": ["first", "last"]},
        },
    ],
}
#: The checkpoint of the command line is the one after this epoch of the first of these.
EPOCH = 1


class Keep(Callback):
    """Saves a checkpoint after one epoch, and leaves no trace in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == STOPPED:
            trainer.save_checkpoint(self.path)


def fit(
    recipe: Recipe, folder: Path, more: list[Callback], path: Path | None = None
) -> tuple[LightningModule, list[Any]]:
    """Run the fit of a recipe, from its start or from a checkpoint."""
    seed_everything(recipe["seed"], verbose=False)
    module = MODULES[recipe["module"]]()
    callbacks = callbacks_of(recipe)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=recipe["epochs"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, *more],
    )
    trainer.fit(module, loader(), loader(16, 1), ckpt_path=path)
    return module, callbacks


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def checkpoints(folder: Path) -> dict[str, Recipe]:
    """Write a checkpoint from the middle of each fit, and the weights it ends in."""
    made: dict[str, Recipe] = {}
    for name in FITS:
        recipe: Recipe = {
            "module": "ManualModule" if name == "filters_two_optimizers" else "ForeignModule",
            "callbacks": RECIPES[name],
            "seed": 0,
            "epochs": EPOCHS,
            "data": "loader() to train on, loader(16, 1) to validate on",
            "file": f"checkpoints/{name}.ckpt",
            "taken": f"after epoch {STOPPED}, counted from 0",
        }
        path = FILES / recipe["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        module, callbacks = fit(recipe, folder, [Keep(path)])
        state = module.state_dict()
        again, _ = fit(recipe, folder, [], path)
        if digest(again.state_dict()) != digest(state):
            raise SystemExit(f"{name}: a resumed fit ends in other weights")
        final = f"final/{name}.safetensors"
        (FILES / "final").mkdir(exist_ok=True)
        save_file({n: t.contiguous().clone() for n, t in state.items()}, FILES / final)
        saved = torch.load(path, weights_only=True)["state_dict"]
        (pruner,) = [c for c in callbacks if hasattr(c, "reached")]
        recipe["shapes"], recipe["digest"] = shapes(saved), digest(saved)
        recipe["final"] = {
            "file": final,
            "shapes": shapes(state),
            "digest": digest(state),
            "epochs": [entry["epoch"] for entry in pruner.history],
            "reached": pruner.reached,
        }
        made[name] = recipe
        print(f"{name}: reached {pruner.reached:.3f}, {shapes(state)['net.3.weight']}")
    return made


def artefact(folder: Path) -> Recipe:
    """Write the artefact of a pruned network."""
    seed_everything(0, verbose=False)
    module = ForeignModule()
    # ``reduced`` is exact on processors without VNNI too: the replay must pass on any.
    arguments = {"monitor": "my_acc", "weight_range": "reduced", "calibration_batches": 4}
    quantizing = PostTrainingQuantization(dirpath=str(ARTEFACT), **arguments)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FilterPruning(0.5, schedule=Schedule(**HALFWAY)), quantizing],
    )
    trainer.fit(module, loader(), loader(64, 1))
    path = ARTEFACT / "card.json"
    text, count = re.subn(r'("processor": )"[^"]*"', r'\1"x86-64"', path.read_text("utf-8"))
    assert count == 1
    path.write_text(text, "utf-8")
    net = lit_compress.load(ARTEFACT)
    return {
        "module": "ForeignModule",
        "callbacks": [
            ["FilterPruning", {"target": 0.5, "schedule": HALFWAY}],
            ["PostTrainingQuantization", arguments],
        ],
        "edited": "card.json: environment.processor is x86-64",
        "epochs": EPOCHS,
        "data": "loader() to train on, loader(64, 1) to validate on",
        "digest": digest(module.state_dict()),
        "shapes": shapes(module.state_dict()),
        "input_shape": list(net.input_shape),
        "pruned_by": [entry["callback"] for entry in net.card.pruning],
        "variants": {
            v.name: {
                "parameters": v.parameters,
                "nonzero": v.nonzero,
                "macs": v.macs,
                "bytes": v.bytes,
                v.metric.name: v.metric.value,
            }
            for v in net.card.variants
            if v.metric is not None
        },
    }


def command_line(folder: Path) -> tuple[Recipe, Recipe]:
    """Run the command line, and keep the configs that it saves and one checkpoint."""
    shutil.copytree(FILES / "rules", folder / "rules")
    (FILES / "configs").mkdir()
    recipes: Recipe = {}
    for name, callbacks in CALLBACKS.items():
        config = {**COMMON, "trainer": {**COMMON["trainer"], "callbacks": callbacks}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), "utf-8")
        words = ["fit", "--config", f"{name}.yaml"]
        shutil.rmtree(folder / "runs", ignore_errors=True)
        command = [sys.executable, "-W", "ignore", "-m", "lit_compress", *words]
        subprocess.run(command, cwd=folder, check=True)
        logs = folder / "runs" / "golden" / "version_0"
        text = (logs / "config.yaml").read_text("utf-8")
        assert str(folder) not in text
        (FILES / "configs" / f"{name}.yaml").write_text(text, "utf-8")
        recipes[name] = {"file": f"configs/{name}.yaml", "words": words, "config": config}
        if name == "filters":
            content = torch.load(logs / "checkpoints" / f"epoch={EPOCH}.ckpt", weights_only=True)
    left = [key for key in content["callbacks"] if "FilterPruning" not in key]
    for key in left:
        del content["callbacks"][key]
    path = FILES / "checkpoints" / "command_line.ckpt"
    torch.save(content, path)
    return recipes, {
        "file": "checkpoints/command_line.ckpt",
        "config": "configs/filters.yaml",
        "taken": f"after epoch {EPOCH}, counted from 0",
        "edited": f"without the states of {', '.join(k.partition('{')[0] for k in left)}: "
        "they hold paths",
        "shapes": shapes(content["state_dict"]),
        "digest": digest(content["state_dict"]),
    }


def main() -> None:
    if FILES.exists():
        raise SystemExit(f"{FILES} is there already")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    (FILES / "rules").mkdir(parents=True)
    for name, text in RULES.items():
        (FILES / "rules" / name).write_text(text, "utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest: Recipe = {
            "commit": sys.argv[1],
            "made_with": {
                "lit_compress": lit_compress.__version__,
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
                "torch": torch.__version__,
                **{package: version(package) for package in PACKAGES},
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "threads": 1,
                "probe": probe(),
            },
            "checkpoints": checkpoints(folder),
            "artefact": artefact(folder),
        }
        found = scan(FILES / "scan", SCAN)
        manifest["scan"] = {
            "arguments": SCAN,
            "data": "the artefact's network, its stored inputs and their classes",
            "chosen": {name: float(ratio) for name, ratio in found.chosen.items()},
        }
        manifest["rules"] = {
            name: {"callback": DESCRIPTIONS[name], "takes": described({"callback": given})}
            for name, given in DESCRIPTIONS.items()
        }
        assert tuple(DESCRIPTIONS) == DESCRIBED
        assert tuple(RECIPES) == FITS
        manifest["configs"], manifest["command_line_checkpoint"] = command_line(folder)
    manifest["files"] = {
        path.relative_to(FILES).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(FILES.rglob("*"))
        if path.is_file()
    }
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    total = sum(entry["bytes"] for entry in manifest["files"].values())
    print(f"{len(manifest['files'])} files, {total:,} bytes")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
