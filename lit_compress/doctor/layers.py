"""The layers of a network: which cannot lose channels, which cannot be int8, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from lightning.pytorch import LightningModule, Trainer

from lit_compress.artifact.variant import FloatWeight
from lit_compress.callbacks._pruning.channels import ChannelPruning
from lit_compress.callbacks._pruning.followers import find_followers
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.doctor.failures import split
from lit_compress.doctor.finding import Answer, fine, listed, warning
from lit_compress.doctor.weights import unsettled
from lit_compress.errors import CalibrationError, ChannelError
from lit_compress.evaluation.example_inputs import find_example_inputs
from lit_compress.evaluation.export_target import find_export_target
from lit_compress.evaluation.run_view.copies import clone
from lit_compress.pruning.channels.analysis import Norm, analyse
from lit_compress.pruning.channels.graph import ChannelGraph
from lit_compress.pruning.layers import layer_name, prunable_layers
from lit_compress.quantization.float_weights import CHOSEN
from lit_compress.report.table import LOW_INT8_SHARE

#: Why layers keep their channels in any network: no change of it would let them go.
OF_ANY = (
    "is an output of the network",
    "passes through a layer norm",
    "passes through a group norm",
    "is combined with a tensor of fixed size",
    "can only be removed together",
)
#: Share of the layers that may keep channels for other reasons without a warning: in torchvision's
#: Swin transformers it is 0.23.
USUAL = 0.25
#: Smallest share of the weights for which a layer without an int8 form is worth a warning.
LEAST = 0.01


def check_channels(
    trainer: Trainer, module: LightningModule, pruners: Sequence[ChannelPruning]
) -> Answer:
    """Say which layers cannot lose channels, and why.

    Args:
        trainer: The run at the start of its training.
        module: Its module.
        pruners: The callbacks that remove channels.
    """
    graphs = [_graph(trainer, module, one) for one in pruners or (None,)]
    kept: dict[str, str] = {}
    unusual: list[str] = []
    for graph in graphs:
        for part in graph.frozen:
            name = layer_name(part.tensor)
            kept.setdefault(name, str(part.reason))
            if not part.reason.why.startswith(OF_ANY):
                unusual.append(name)
    total = len(prunable_layers(module))
    channels = sum(len(graph.channels) for graph in graphs)
    text = f"{channels} channels can be removed; {len(kept)} of {total} layers keep some or all"
    text += f": {_by_reason(kept)}" if kept else ""
    blocked = dict.fromkeys(unusual)
    if pruners and blocked and len(blocked) > USUAL * total:
        named = listed([f"{name} {kept[name]}" for name in blocked])
        found = f"layers keep channels for the sake of the code: {named}"
        return warning(found, "change these lines of the forward, or exclude the layers")
    return fine(text)


def check_export(trainer: Trainer, module: LightningModule) -> Answer:
    """Capture the network as a graph, and say which of its weights could be int8.

    Args:
        trainer: The run at the start of its training.
        module: Its module.
    """
    from lit_compress.quantization.convert import Calibrated

    copy = clone(trainer, module)
    target = find_export_target(trainer, copy, None, 1)
    calibrated = Calibrated(
        target.captured(copy).eval(), target.inputs, target.inputs[0], names=target.signature.names
    )
    prefix = f"{target.inner}." if target.inner else ""
    return fine(f"the forward can be captured; {_share(calibrated.float_weights((), prefix))}")


def if_settled(module: LightningModule, check: Callable[[], Answer]) -> Answer:
    """Ask a question that no callback of the run depends on.

    Args:
        module: The module.
        check: Finds the answer. It may fail where values overflow, which means nothing as long as
            batch norms have the statistics that they were made with.
    """
    try:
        return check()
    except (CalibrationError, ChannelError) as raised:
        early = unsettled(module)
        if not early:
            raise
        why = split(str(raised))[0]
        return fine(f"not known yet ({why}): {listed(early)} have seen too few batches")


def check_int8(converters: Sequence[PostTrainingQuantization]) -> list[Answer]:
    """Say which weights stay float in the int8 files that a trial conversion wrote.

    Args:
        converters: The callbacks that tried it.
    """
    found: list[Answer] = []
    for converter in converters:
        weights = converter.tried or ()
        others = [weight for weight in weights if weight.reason != CHOSEN]
        large = [weight for weight in others if weight.share >= LEAST]
        if large or sum(weight.share for weight in others) > 1 - LOW_INT8_SHARE:
            names = [f"{w.name} ({w.share:.0%}: {w.reason})" for w in large or others]
            found.append(
                warning(
                    f"weights without an int8 form stay float: {listed(names)}",
                    "expect a larger file, or replace these layers",
                )
            )
        else:
            found.append(fine(_share(weights)))
    return found


def _graph(
    trainer: Trainer, module: LightningModule, pruner: ChannelPruning | None
) -> ChannelGraph:
    submodule = None if pruner is None else pruner.submodule
    norm: Norm = "exact" if pruner is None else pruner.arguments().get("norm", "exact")
    example = find_example_inputs(trainer, module, submodule)
    followers = find_followers(trainer, module)
    return analyse(module, example.inputs, example.submodule, followers, norm)


def _by_reason(kept: dict[str, str]) -> str:
    """Return the layers of each reason, the most frequent one first."""
    causes = {name: why.partition(" (")[0] for name, why in kept.items()}
    parts = []
    for why, _ in Counter(causes.values()).most_common():
        names = [name for name, cause in causes.items() if cause == why]
        parts.append(
            f"{names[0]} {kept[names[0]]}" if len(names) == 1 else f"{listed(names)}: {why}"
        )
    return "; ".join(parts)


def _share(weights: Sequence[FloatWeight]) -> str:
    share = 1 - sum(weight.share for weight in weights)
    names = [f"{weight.name} ({weight.reason})" for weight in weights]
    return f"{share:.0%} of the weights can be int8" + (f"; not {listed(names)}" if names else "")
