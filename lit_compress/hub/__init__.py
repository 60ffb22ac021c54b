"""Artefacts in the form of the Hugging Face Hub."""

from lit_compress.hub.load import from_pretrained
from lit_compress.hub.save import save_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
