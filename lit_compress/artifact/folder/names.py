"""Names of the networks in an artefact, which may be packed."""

from __future__ import annotations

from pathlib import Path

from lit_compress.artifact.card import Card
from lit_compress.errors import ArtifactError, InvalidArgumentError

MODEL = "model.onnx"
#: The float network, if the artefact has it.
FP32 = "model-fp32.onnx"
#: End of the name of a packed network, which an artefact has in the place of an ONNX file.
PACKED = ".packed"


def packed_name(name: str) -> str:
    """Return the name of the packed file of an ONNX file.

    Example:
        >>> packed_name("model.onnx")
        'model.packed'
    """
    return Path(name).with_suffix(PACKED).name


def model_file(path: str | Path, card: Card, weights: str = "int8") -> str:
    """Return the name of the file of a network in an artefact, which may be packed.

    Args:
        path: The artefact folder, for messages.
        card: Its card.
        weights: ``int8`` or ``fp32``.

    Raises:
        ArtifactError: If the artefact has no such file.
        InvalidArgumentError: If ``weights`` is something else.
    """
    names = {"int8": MODEL, "fp32": FP32}
    if weights not in names:
        raise InvalidArgumentError(f"weights must be 'int8' or 'fp32', got {weights!r}")
    if packed_name(names[weights]) in card.files and names[weights] not in card.files:
        return packed_name(names[weights])
    if names[weights] not in card.files:
        wanted = "quantisation writes one, add the PostTrainingQuantization callback"
        if weights == "fp32":
            wanted = "quantisation and a report writes one, add the CompressionReport callback"
        raise ArtifactError(f"{path} has no {names[weights]}: only a run with {wanted}")
    return names[weights]
