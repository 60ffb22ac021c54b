"""Which way metrics go, by the names that people log."""

from __future__ import annotations

import pytest
import torchmetrics

from lit_compress.measure.metric_names import higher_is_better

LOWER = (
    "val_loss valloss valid/RMSE mae WordErrorRate perplexity val_mape val_wer val_ppl val_nll "
    "val_eer dice_loss cross_entropy valCrossEntropy negative_log_likelihood brier_score hd95 "
    "accuracy_error false_positive_rate val_loss/dataloader_idx_12 loss_acc"
)
HIGHER = (
    "val_acc testAcc f1 val/F1Score auroc roc_auc ROC-AUC iou mIoU mAP50 val_map val_r2 acc@1 "
    "val_acc_top1 top5 val_acc/dataloader_idx_0 neg_log_loss neg_mean_squared_error psnr MS_SSIM "
    "log_likelihood val_MulticlassJaccardIndex bleu4 val_precision@5"
)
UNKNOWN = "val_metric score interval terror r lr-Adam 1-iou one_minus_acc neg_recall x"


@pytest.mark.parametrize("name", LOWER.split())
def test_losses_are_told_by_their_names(name: str) -> None:
    assert higher_is_better(name) is False


@pytest.mark.parametrize("name", HIGHER.split())
def test_scores_are_told_by_their_names(name: str) -> None:
    assert higher_is_better(name) is True


@pytest.mark.parametrize("name", UNKNOWN.split())
def test_other_names_are_not_guessed(name: str) -> None:
    assert higher_is_better(name) is None


def test_names_of_torchmetrics_are_never_told_the_wrong_way() -> None:
    known = 0
    for name in torchmetrics.__all__:
        says = getattr(getattr(torchmetrics, name), "higher_is_better", None)
        told = higher_is_better(name)
        if isinstance(says, bool) and told is not None:
            assert told is says, name
            known += 1
    assert known > 30
