"""Measure the error that each layer alone causes."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule

from lit_compress.export.signature import Batch, as_tuple
from lit_compress.quantization.calibrate import Track, untracked
from lit_compress.quantization.layer_noise.errors import NotDifferentiableError
from lit_compress.quantization.layer_noise.gradients import noise_by_gradients
from lit_compress.quantization.layer_noise.result import LayerNoise
from lit_compress.quantization.layer_noise.runs import noise_by_runs
from lit_compress.quantization.layer_noise.sources import find_sources


def layer_noise(
    prepared: GraphModule,
    owners: Mapping[str, str],
    inputs: Batch,
    track: Track = untracked,
) -> tuple[LayerNoise, ...]:
    """Measure the error of the outputs if a single layer is quantised, for each layer of a graph.

    The errors of all layers are carried to the outputs at once, by gradients, so the time grows
    with the number of layers. A graph that has no gradients (its outputs are classes, say) is run
    again for each layer. The measured error includes the mean shift that bias correction removes
    from the converted graph. Large networks are measured with fewer inputs, so that it takes about
    a minute.

    Args:
        prepared: Graph with calibrated observers.
        owners: By name of a graph node, the name of its layer.
        inputs: Inputs to measure with.
        track: Shows how far it is. Default: nothing does.

    Returns:
        One entry per layer, input or float operation, in the order of the graph.
    """
    sources = find_sources(prepared, owners)
    tensors = as_tuple(inputs)
    try:
        sqnr = noise_by_gradients(prepared, sources, tensors, track)
    except NotDifferentiableError:
        sqnr = noise_by_runs(prepared, sources, tensors, track)
    measured = {name for name, _ in sqnr}
    names = dict.fromkeys(name for name in owners.values() if name in measured)
    return tuple(
        LayerNoise(name, sqnr.get((name, "weight")), sqnr.get((name, "activation")))
        for name in names
    )
