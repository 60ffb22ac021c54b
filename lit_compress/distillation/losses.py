"""Losses between a network and its teacher, as plain functions of their outputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_compress.errors import InvalidArgumentError

#: What outputs mean: scores of classes, a logit for each label, or plain numbers.
Kind = Literal["classes", "labels", "values"]


def soft_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0, axis: int = 1) -> Tensor:
    """Return the Kullback-Leibler divergence of softened classes, times the squared temperature.

    Hinton et al. 2015 (arXiv 1503.02531): the softmax of the scores divided by the temperature
    shows how alike the teacher finds the classes. The factor keeps the size of the gradient.

    Args:
        student: Scores of shape (batch, classes), or (batch, classes, ...) for a class at each
            position; gradients flow back to them.
        teacher: Scores of the same shape.
        temperature: Above 0; higher shows more of the small scores.
        axis: Axis of the classes.

    Returns:
        The mean over the batch and the positions, a single number.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[2.0, 0.0, -1.0]])
        >>> soft_loss(scores, scores).item()
        0.0
        >>> round(soft_loss(scores, scores.flip(1)).item(), 3)
        3.046
    """
    ours = F.log_softmax(student.float() / temperature, axis)
    theirs = F.log_softmax(teacher.float() / temperature, axis)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(axis)
    return divergence.mean() * temperature**2


def output_loss(
    kind: Kind, student: Tensor, teacher: Tensor, temperature: float = 4.0, axis: int = 1
) -> Tensor:
    """Return how far outputs are from those of the teacher.

    Args:
        kind: ``classes`` takes :func:`soft_loss`; ``labels`` the cross-entropy of each logit with
            the teacher's share, both softened; ``values`` the squared error, as a share of the
            variance of the teacher's outputs.
        student: Outputs of the network.
        teacher: Outputs of the teacher, of the same shape.
        temperature: For ``classes`` and ``labels``.
        axis: Axis of the classes.

    Example:
        >>> import torch
        >>> values = torch.tensor([[1.0], [3.0]])
        >>> output_loss("values", values + 1, values).item()
        1.0
    """
    if kind == "classes":
        return soft_loss(student, teacher, temperature, axis)
    if kind == "labels":
        soft = torch.sigmoid(teacher.float() / temperature)
        ours = student.float() / temperature
        most = F.binary_cross_entropy_with_logits(ours, soft)
        # The entropy of the teacher is taken off, so that equal outputs give 0.
        least = F.binary_cross_entropy(soft, soft)
        return (most - least) * temperature**2
    return _relative_error(student.float(), teacher.float())


def feature_loss(student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the squared error of a layer's outputs, as a share of the variance of the teacher's.

    Romero et al. 2015 (arXiv 1412.6550) match features of a middle layer. Here both networks have
    the layer, and no further weights are trained for it.

    Args:
        student: Outputs of the layer of the network.
        teacher: Outputs of the same layer of the teacher.
        kept: Indices of the channels that the pruned layer still has, along the axis in which the
            teacher's outputs are larger. None if it has all.

    Raises:
        InvalidArgumentError: If the outputs have other shapes than these channels explain.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 2.0, 5.0], [3.0, 4.0, 1.0]])
        >>> feature_loss(features[:, :2], features, torch.tensor([0, 1])).item()
        0.0
    """
    whole = teacher.shape
    if kept is not None and teacher.dim() == student.dim():
        pairs = enumerate(zip(student.shape, teacher.shape, strict=True))
        axes = [axis for axis, (ours, theirs) in pairs if ours == len(kept) < theirs]
        if axes and int(kept.max()) < teacher.shape[axes[0]]:
            teacher = teacher.index_select(axes[0], kept.to(teacher.device))
    if teacher.shape != student.shape:
        raise InvalidArgumentError(
            f"features: the teacher's outputs of a layer have the shape {tuple(whole)}, and the "
            f"network's {tuple(student.shape)}, which pruning in this run does not explain: name "
            "layers with a weight, and take a teacher that is not pruned"
        )
    return _relative_error(student.float(), teacher.float())


def _relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    scale = teacher.var(correction=0) if teacher.numel() > 1 else teacher.square().mean()
    return F.mse_loss(student, teacher) / scale.clamp(min=torch.finfo(teacher.dtype).tiny)
