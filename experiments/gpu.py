"""Compare what the callbacks do on a GPU with what they do on the CPU, in at most 4 minutes.

    python experiments/gpu.py [--accelerator gpu] [--out gpu.json]

ShuffleNetV2 on scikit-learn's digits, so no data is needed:

- ``masks``, ``surgery``: a fit with a learning rate of 0, so both devices choose from the same
  weights: the masks of ``MagnitudePruning``, and the shapes and weights that ``FilterPruning``
  leaves in the middle of the fit, are equal to the last bit;
- ``training``, ``bf16-mixed``: half of the filters are removed in the middle of a real fit, and the
  rest is trained on; both end within ``WITHIN`` of the CPU's validation accuracy;
- ``int8``: the file that ``PostTrainingQuantization`` writes of the network that a GPU trained has
  its float network's accuracy, less at most ``INT8_LOSES``.

Prints a line for each, and exits with 1 if one does not hold. ``--accelerator cpu`` rehearses the
script without a GPU: it then compares the CPU with itself, and says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lit_compress import Schedule
from lit_compress.callbacks import FilterPruning, MagnitudePruning, PostTrainingQuantization
from lit_compress.datamodules import DigitsDataModule
from lit_compress.modules import ShuffleNetV2

#: Largest difference of the validation accuracies: two standard errors of 287 images at 95 %.
WITHIN = 0.026
#: Most that the accuracy of the int8 file may lie below that of its float network.
INT8_LOSES = 0.02
EPOCHS = 8


def fit(
    accelerator: str, callbacks: list[Callback], lr: float, epochs: int, precision: Any = "32-true"
) -> tuple[ShuffleNetV2, float]:
    """Train on the digits; return the module, on the CPU, and its validation accuracy."""
    seed_everything(0, verbose=False)
    module = ShuffleNetV2(
        in_channels=1,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=epochs),
    )
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DigitsDataModule(batch_size=64)
    trainer.fit(module, datamodule=data)
    reached = trainer.validate(module, datamodule=data, verbose=False)[0]["val_acc"]
    return module.cpu(), reached


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> str:
    """Return what differs between the parameters of two networks; nothing if all are equal."""
    others = dict(other.named_parameters())
    found = [
        f"{name} {tuple(weights.shape)} against {tuple(others[name].shape)}"
        for name, weights in one.named_parameters()
        if not torch.equal(weights, others[name])
    ]
    return f"{len(found)} differ, such as {found[0]}" if found else ""


def masks(accelerator: str) -> tuple[bool, str]:
    """Compare the weights that ``MagnitudePruning`` keeps."""
    pruned = []
    for where in (accelerator, "cpu"):
        callback = MagnitudePruning(0.5, Schedule(first=0, shape="one_shot"))
        pruned.append(fit(where, [callback], lr=0.0, epochs=2)[0])
    differ = same_weights(*pruned)
    zeros = sum(int((weights == 0).sum()) for weights in pruned[0].parameters())
    return not differ and zeros > 0, differ or f"equal, {zeros:,} zeros"


def surgery(accelerator: str) -> tuple[bool, str]:
    """Compare what ``FilterPruning`` leaves in the middle of a fit."""
    pruned = []
    for where in (accelerator, "cpu"):
        callback = FilterPruning(0.5, schedule=Schedule(first=0, shape="one_shot"))
        pruned.append(fit(where, [callback], lr=0.0, epochs=2)[0])
    differ = same_weights(*pruned)
    left = sum(weights.numel() for weights in pruned[0].parameters())
    return not differ, differ or f"equal, {left:,} parameters left"


def trained(accelerator: str, precision: Any) -> tuple[bool, str]:
    """Compare the accuracy of a network that was pruned in the middle of its training."""
    reached = []
    for where, kind in ((accelerator, precision), ("cpu", "32-true")):
        callback = FilterPruning(0.5, schedule=Schedule(first=0, last=2))
        reached.append(fit(where, [callback], 0.02, EPOCHS, kind)[1])
    return abs(reached[0] - reached[1]) <= WITHIN, "{:.4f} against {:.4f}".format(*reached)


def int8(accelerator: str) -> tuple[bool, str]:
    """Compare the accuracy of the int8 file with that of the float network it was made of."""
    with tempfile.TemporaryDirectory() as folder:
        callback = PostTrainingQuantization(monitor="val_acc", dirpath=f"{folder}/artifact")
        _, dense = fit(accelerator, [callback], 0.02, EPOCHS)
        card = json.loads((Path(folder) / "artifact" / "card.json").read_text("utf-8"))
    reached = next(each for each in card["variants"] if each["name"] == "int8")["metric"]["value"]
    return dense - reached <= INT8_LOSES, f"{reached:.4f}, float {dense:.4f}"


CHECKS: dict[str, Callable[[str], tuple[bool, str]]] = {
    "masks": masks,
    "surgery": surgery,
    "training": lambda accelerator: trained(accelerator, "32-true"),
    "bf16-mixed": lambda accelerator: trained(accelerator, "bf16-mixed"),
    "int8": int8,
}


def main() -> None:
    """Run all comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accelerator", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--out", type=Path, help="JSON file for what was found")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if given.accelerator == "gpu" and not torch.cuda.is_available():
        sys.exit("no GPU was found: rehearse with --accelerator cpu")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if given.accelerator == "gpu" else "cpu (rehearsal)"
    }
    print(found["device"], torch.__version__)
    for name, check in CHECKS.items():
        start = perf_counter()
        holds, text = check(given.accelerator)
        found[name] = {"holds": holds, "found": text}
        print(f"{name}: {text}, {'holds' if holds else 'FAILS'} ({perf_counter() - start:.0f} s)")
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(not all(found[name]["holds"] for name in CHECKS))


if __name__ == "__main__":
    main()
