"""The weights of a network: finite, alive, trained where they are said to be, and its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lit_compress.callbacks._pruning.base import PruningCallback
from lit_compress.callbacks._pruning.untrained import never_trained
from lit_compress.doctor.finding import Answer, error, fine, listed, warning
from lit_compress.pruning.layers import prunable_layers

#: Values of a batch norm that are likely mistakes: above, an ``eps`` changes what it computes, and
#: a ``momentum`` is that of a framework that counts it the other way round.
LARGEST_EPS, LARGEST_MOMENTUM = 0.1, 0.5
#: Share of the initial values in the statistics of a batch norm from which it is not settled.
HALF = 0.5
#: Modules whose output is zero where their input is negative.
RECTIFIERS = (nn.ReLU, nn.ReLU6)


def check_finite(module: nn.Module) -> Answer:
    """Look for NaN and infinity in parameters and buffers."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    floats = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    bad = [name for name, tensor in floats if not bool(tensor.isfinite().all())]
    if bad:
        remedy = "take an earlier checkpoint; the training has diverged (lower its learning rate)"
        return error(f"NaN or infinity in {listed(bad)}", remedy)
    return fine(f"{len(floats)} tensors, all finite")


def check_dead(module: LightningModule, batch: Tensor | None, trained: bool) -> list[Answer]:
    """Look for output channels whose weights are all zero, and for layers that give only zeros.

    A layer whose weights are all zero is one that begins so (a residual branch), unless the network
    is said to be trained.

    Args:
        module: A copy of the module in eval mode, on the CPU.
        batch: Inputs of the network, if they are known.
        trained: Whether the weights are said to be those of a trained network.
    """
    dead = []
    for name, layer, weight in _scaled(module):
        count = int((weight.flatten(1) == 0).all(1).sum())
        if count and (count < len(weight) or trained):
            dead.append(f"{name} ({count} of {len(weight)}{_kind(layer)})")
    found = []
    if dead:
        remedy = "prune them with FilterPruning, or take weights from before they died"
        found.append(warning(f"output channels with weights of zero: {listed(dead)}", remedy))
    if silent := ([] if batch is None else _silent(module, batch)):
        remedy = "take an earlier checkpoint, or train anew with a lower learning rate"
        text = f"layers that give zeros alone for a batch: {listed(silent)}"
        found.append(warning(text, remedy))
    return found or [fine("no layer has output channels of zeros, or gives zeros alone")]


def check_norms(module: nn.Module, trained: bool) -> list[Answer]:
    """Look for batch norms that were never run in training, or whose settings are unusual.

    Args:
        module: The module.
        trained: Whether the weights are said to be those of a trained network.
    """
    norms = {name: one for name, one in module.named_modules() if isinstance(one, _BatchNorm)}
    any_run = any(_was_run(norm) for norm in norms.values())
    initial = [n for n, norm in norms.items() if _is_suspicious(norm, trained, any_run)]
    found = []
    if initial:
        found.append(
            warning(
                f"running statistics still as they were made (mean 0, variance 1): "
                f"{listed(initial)}, {len(initial)} of {len(norms)} batch norms",
                "run the network in training mode on some batches, or load the buffers along with "
                "the weights",
            )
        )
    found += [answer for name, norm in norms.items() for answer in _unusual(name, norm)]
    return found or [fine(f"{len(norms)} batch norms")]


def unsettled(module: nn.Module) -> list[str]:
    """Return the batch norms whose statistics are mostly those that they were made with.

    In eval mode the outputs of such a network say nothing yet, and may even overflow.

    Args:
        module: The module.

    Example:
        >>> import torch
        >>> slow = nn.BatchNorm1d(2, momentum=0.001)
        >>> _ = slow(torch.rand(4, 2))
        >>> unsettled(nn.Sequential(slow))
        ['0']
    """
    norms = ((n, one) for n, one in module.named_modules() if isinstance(one, _BatchNorm))
    return [name for name, norm in norms if _left(norm) > HALF]


def _left(norm: _BatchNorm) -> float:
    """Return the share that the initial values have in the statistics of a batch norm."""
    if norm.num_batches_tracked is None or norm.momentum is None:
        return 0.0
    return float((1 - norm.momentum) ** int(norm.num_batches_tracked))


def check_tied(module: nn.Module, pruners: Sequence[PruningCallback]) -> Answer:
    """Look for weights that several layers share, which pruning changes for all of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = [" = ".join(shared) for shared in names.values() if len(shared) > 1]
    if tied and pruners:
        return warning(
            f"{listed(tied)} share one tensor, and {type(pruners[0]).__name__} prunes it for all",
            "exclude these layers, if they should not be pruned alike",
        )
    return fine(f"tied: {listed(tied)}" if tied else "no weights are tied")


def check_frozen(
    trainer: Trainer, module: LightningModule, pruners: Sequence[PruningCallback]
) -> Answer:
    """Look for weights that are never trained, and so cannot make up for what is pruned."""
    layers = [f"{name}.weight" if name else "weight" for name in prunable_layers(module)]
    never = never_trained(trainer, module)  # buffers are among them
    frozen = [name for name, _ in module.named_parameters() if name in never]
    touched = [name for name in frozen if name in layers]
    if touched and pruners:
        return warning(
            f"{listed(touched)} are frozen (requires_grad is False): they are not trained after "
            "pruning, and channel pruning keeps their channels",
            f"train them, or exclude them from {type(pruners[0]).__name__}",
        )
    return fine(f"{len(frozen)} tensors are frozen: {listed(frozen)}" if frozen else "none")


def _scaled(module: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield the layers with a weight for each output channel, the channels first."""
    layers = prunable_layers(module)
    for name, layer in module.named_modules():
        weight = layer._parameters.get("weight")
        if weight is None or nn.parameter.is_lazy(weight) or not weight.numel():
            continue
        if isinstance(layer, _BatchNorm):
            yield name, layer, weight.detach()[:, None]
        elif name in layers:
            turned = "Transpose" in type(layer).__name__ and getattr(layer, "groups", 1) == 1
            yield name, layer, weight.detach().transpose(0, 1) if turned else weight.detach()


def _kind(layer: nn.Module) -> str:
    return " scales" if isinstance(layer, _BatchNorm) else " channels"


def _silent(module: LightningModule, batch: Tensor) -> list[str]:
    """Return the names of the rectifiers that give zeros alone for a batch."""
    given: dict[str, bool] = {}
    handles = []
    for name, layer in module.named_modules():
        if isinstance(layer, RECTIFIERS):

            def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                given[name] = given.get(name, True) and not bool(output.any())

            handles.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            module(batch.cpu())
    except Exception:  # another question asks whether the forward runs
        return []
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, silent in given.items() if silent]


def _is_initial(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        return False
    return bool((mean == 0).all()) and bool((variance == 1).all())


def _was_run(norm: _BatchNorm) -> bool:
    return norm.running_mean is not None and not _is_initial(norm)


def _is_suspicious(norm: _BatchNorm, trained: bool, any_run: bool) -> bool:
    """Tell whether a batch norm should have statistics by now, and has none."""
    if not _is_initial(norm):
        return False
    tracked = norm.num_batches_tracked is not None and bool(norm.num_batches_tracked > 0)
    if trained or tracked:
        return True
    if not norm.affine:
        return any_run
    # Weights that differ from each other, or shifts: it was trained, and its statistics are lost.
    return bool((norm.weight != norm.weight[0]).any()) or bool((norm.bias != 0).any())


def _unusual(name: str, norm: _BatchNorm) -> Iterator[Answer]:
    if not 0 < norm.eps <= LARGEST_EPS:
        yield warning(
            f"eps of {name} is {norm.eps:g}",
            "set it to 1e-5, torch's default: 0 divides by zero, and a large one changes values",
        )
    momentum = norm.momentum
    if norm.track_running_stats and momentum is not None and not 0 < momentum <= LARGEST_MOMENTUM:
        yield warning(
            f"momentum of {name} is {momentum:g}, the share of the new batch in its statistics",
            "set it to 0.1, torch's default (0.9 of other frameworks is 0.1 here)",
        )
