"""The sums of a run: from a module's output back to its input, past the branches that are added."""

from __future__ import annotations

from dataclasses import dataclass

from lit_compress.pruning.blocks.flow import Flow, FlowCall, ModuleCall
from lit_compress.pruning.blocks.stand_in import ACTIVATIONS
from lit_compress.pruning.channels.tracing.labels import Reason

#: Sums of two tensors.
ADDS = frozenset({"add", "iadd", "radd"})
_PASSING = """
dropout alpha_dropout feature_alpha_dropout dropout1d dropout2d dropout3d contiguous clone
stochastic_depth identity detach
"""
_POSITIVE = "relu relu6 sigmoid softmax abs square exp softplus hardsigmoid"
_STILL_POSITIVE = """
max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool2d flatten
reshape view permute transpose sqrt
"""
#: Calls that give back their first argument, at least where a network is not trained.
PASSING = frozenset(_PASSING.split())
#: Activations that change nothing when they are applied again.
STEADY = frozenset({"relu", "relu6"})
#: Calls whose result is nowhere below zero.
POSITIVE = frozenset(_POSITIVE.split())
#: Calls whose result is nowhere below zero if their argument is not.
STILL_POSITIVE = PASSING | frozenset(_STILL_POSITIVE.split())
#: Calls that join branches without adding them.
JOINS = frozenset({"cat", "concat", "concatenate", "stack"})


@dataclass(frozen=True)
class Chain:
    """The way from the output of a module back to its input.

    Attributes:
        adds: The sums on it, as the number of the call and the position of its branch.
        activations: The activations on it, the last one first.
    """

    adds: tuple[tuple[int, int], ...]
    activations: tuple[str, ...]


def is_sum(call: FlowCall) -> bool:
    """Tell whether a call adds two tensors, with a factor of one."""
    factors = [value for value in call.options if isinstance(value, (int, float))]
    return call.name in ADDS and len(call.inputs) == 2 and all(value == 1 for value in factors)


def chain_of(flow: Flow, module: ModuleCall) -> Chain | Reason:
    """Return how the output of a module comes from its input by adding branches.

    Args:
        flow: The run.
        module: The call of the module.

    Returns:
        The way, or why there is none.
    """
    if module.given < 0:
        return Reason("takes no tensor as its first argument")
    if module.returns < 0:
        return Reason("returns something else than a tensor, or than a tuple that begins with one")
    if any(value >= 0 for value in module.made[1:]):
        return Reason("returns more than one tensor")
    if module.shapes[0] != module.shapes[1]:
        return Reason(
            f"changes the shape of its input from {module.shapes[0]} to {module.shapes[1]}"
        )
    adds: list[tuple[int, int]] = []
    activations: list[str] = []
    value = module.made[0]
    while value != module.given:
        number = flow.maker.get(value, -1)
        if number < module.start:
            return Reason("adds no branch to its input")
        call = flow.calls[number]
        if is_sum(call):
            streams = [at for at in (0, 1) if reaches(flow, call.inputs[at], module)]
            if len(streams) != 1:
                why = "adds branches, and none of them is its input as it is"
                return call.reason(why if not streams else "adds its input twice", module.name)
            adds.append((number, 1 - streams[0]))
            value = call.inputs[streams[0]]
        elif call.name in PASSING and call.inputs:
            value = call.inputs[0]
        elif (activation := _activation(call)) is not None:
            activations.append(activation)
            value = call.inputs[0]
        else:
            return call.reason("changes the sum of its input and its branch", module.name)
    if not adds:
        return Reason("adds no branch to its input")
    return Chain(tuple(adds), tuple(activations))


def reaches(flow: Flow, value: int, module: ModuleCall) -> bool:
    """Tell whether a value is the input of a module, but for branches that were added to it."""
    todo, seen = [value], set()
    while todo:
        value = todo.pop()
        if value == module.given:
            return True
        number = flow.maker.get(value, -1)
        if number < module.start or number in seen:
            continue
        seen.add(number)
        call = flow.calls[number]
        if is_sum(call):
            todo += call.inputs
        elif (call.name in PASSING or _activation(call) is not None) and call.inputs:
            todo.append(call.inputs[0])
    return False


def kind_of(flow: Flow, module: ModuleCall, chain: Chain) -> str | Reason:
    """Return what stands in the place of a module without its branches, or why nothing can."""
    names = set(chain.activations)
    if len(names) > 1 or (len(chain.activations) > 1 and not names <= STEADY):
        return Reason(f"applies several activations ({', '.join(chain.activations)}) to its sum")
    kind = next(iter(names), "identity")
    if kind == "relu" and is_positive(flow, module.given):
        kind = "identity"
    if kind == "relu6" and _is_after(flow, module.given, "relu6"):
        kind = "identity"
    return f"{kind}:{module.returns}" if module.returns else kind


def is_positive(flow: Flow, value: int) -> bool:
    """Tell whether a value is known to be nowhere below zero."""
    number = flow.maker.get(value)
    if number is None:
        return False
    call = flow.calls[number]
    if is_sum(call):
        return all(is_positive(flow, one) for one in call.inputs)
    if call.name in STILL_POSITIVE and call.inputs:
        return is_positive(flow, call.inputs[0])
    return call.name in POSITIVE or _activation(call) == "relu6"


def _is_after(flow: Flow, value: int, activation: str) -> bool:
    number = flow.maker.get(value)
    while number is not None and flow.calls[number].name in PASSING:
        number = flow.maker.get(flow.calls[number].inputs[0])
    return number is not None and _activation(flow.calls[number]) == activation


def _activation(call: FlowCall) -> str | None:
    """Return the name of an activation that a call applies to its only tensor."""
    if len(call.inputs) != 1:
        return None
    numbers = [v for v in call.options if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if call.name == "hardtanh":
        return "relu6" if numbers == [0.0, 6.0] else None
    given = [value for value in call.options if isinstance(value, str) and value != "none"]
    plain = not numbers and not given
    return call.name if call.name in ACTIVATIONS and plain else None
