"""When to compress: callbacks for any LightningModule and any Trainer."""

from lit_compress.callbacks.block_pruning import BlockPruning
from lit_compress.callbacks.compress import Compress
from lit_compress.callbacks.filter_pruning import FilterPruning
from lit_compress.callbacks.knowledge_distillation import KnowledgeDistillation
from lit_compress.callbacks.magnitude_pruning import MagnitudePruning
from lit_compress.callbacks.overfitting import Overfitting
from lit_compress.callbacks.post_training_quantization import PostTrainingQuantization
from lit_compress.callbacks.quantization_aware_training import QuantizationAwareTraining
from lit_compress.callbacks.report import CompressionReport
from lit_compress.callbacks.rule_pruning import RulePruning

__all__ = [
    "BlockPruning",
    "Compress",
    "CompressionReport",
    "FilterPruning",
    "KnowledgeDistillation",
    "MagnitudePruning",
    "Overfitting",
    "PostTrainingQuantization",
    "QuantizationAwareTraining",
    "RulePruning",
]


def __dir__() -> list[str]:
    return __all__
