"""Losses that pull the outputs and features of a network towards those of a teacher."""

from lit_compress.distillation.losses import Kind, feature_loss, output_loss, soft_loss

__all__ = ["Kind", "feature_loss", "output_loss", "soft_loss"]
