"""Print what a training step costs with distillation and with fake quantisation.

Steps of copies of one network are timed in turn: forward, loss, backward and optimizer. A ratio is
the median over the rounds of a step's time divided by that of the plain step in the same round,
with its 95 % interval (bootstrap). torchao's own quantization-aware training (``prepare_qat_pt2e``
with its quantizer for X86) is timed next to ours::

    python benchmarks/training_cost.py
"""

from __future__ import annotations

import argparse
import copy
import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_compress.distillation.losses import soft_loss
from lit_compress.measure import compare
from lit_compress.modules import MobileNetV2, ShuffleNetV2
from lit_compress.quantization import Calibrated

NETWORKS = {"ShuffleNetV2": ShuffleNetV2, "MobileNetV2": MobileNetV2}
Forward = Callable[[Tensor], Tensor]


def stepper(
    network: nn.Module, images: Tensor, labels: Tensor, forward: Forward, teacher: nn.Module | None
) -> Callable[[], object]:
    """Return a training step of a network."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        outputs = forward(images)
        loss = nn.functional.cross_entropy(outputs, labels)
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(images)
            loss = loss + soft_loss(outputs, taught)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def ours(network: nn.Module, images: Tensor, batched: bool) -> Forward:
    """Return the forward with fake quantisation."""
    graph = Calibrated(network, [images], images, correct=False).trainable()
    live = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return lambda x: graph(live, [x], network, batched=batched)[0]


def torchao(network: nn.Module, images: Tensor) -> tuple[nn.Module, Forward]:
    """Return a network that torchao prepared, and its forward."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    exported = torch.export.export(network.train(), (images,)).module()
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(exported, quantizer)
    allow_exported_model_train_eval(prepared)
    prepared.train()
    return prepared, prepared


def main() -> None:
    """Print the ratios of each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    words = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(words.threads)
    for name, kind in NETWORKS.items():
        torch.manual_seed(0)
        images = torch.randn(words.batch, 1, 32, 32).to(memory_format=torch.channels_last)
        labels = torch.arange(words.batch) % 10
        dense = kind(in_channels=1).model.to(memory_format=torch.channels_last).train()
        with torch.no_grad():
            for _ in range(10):
                dense(images)
        copies = {key: copy.deepcopy(dense) for key in ("plain", "distilled", "norms", "folded")}
        teacher = copy.deepcopy(dense).eval()
        made, forward = torchao(copy.deepcopy(dense), images)
        runners = {
            key: stepper(net, images, labels, run, teacher if key == "distilled" else None)
            for key, net, run in (
                ("plain", copies["plain"], copies["plain"]),
                ("distilled", copies["distilled"], copies["distilled"]),
                ("norms", copies["norms"], ours(copies["norms"], images, batched=True)),
                ("folded", copies["folded"], ours(copies["folded"], images, batched=False)),
                ("torchao", made, forward),
            )
        }
        copies["norms"].train()
        baselines = {key: ("plain",) for key in runners if key != "plain"}
        found = compare(
            runners,
            baselines=baselines,
            batch=words.batch,
            threads=words.threads,
            rounds=words.rounds,
            confidence=0.95,
        )
        print(f"{name}, 32 px, batch {words.batch}, {words.threads} thread: "
              f"{found['plain'].seconds * 1e3:.1f} ms a plain step")  # fmt: skip
        texts = {
            "distilled": "distillation, teacher of the same size",
            "norms": "fake quantisation, norms with the statistics of the batch",
            "folded": "fake quantisation, norms folded",
            "torchao": "fake quantisation of torchao",
        }
        for key, text in texts.items():
            speedup = found[key].speedups[0]
            low, high = (1 / bound for bound in reversed(speedup.interval))
            print(f"  {1 / speedup.ratio:.2f}x ({low:.2f} to {high:.2f})  {text}")


if __name__ == "__main__":
    main()
