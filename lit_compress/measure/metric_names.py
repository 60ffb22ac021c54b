"""Tell by the name of a metric whether more of it is better."""

from __future__ import annotations

import re
from itertools import pairwise

_DECISIVE = "loss losses err error errors false miss"
_LOWER = """
    mse rmse msle rmsle mae mape smape wmape mase medae nll nlpd ce bce xent crossentropy logloss
    kl kld divergence ppl perplexity perplex bpc bpd bpb wer cer mer ter eer der fid kid lpips
    niqe brier ece hausdorff hd assd emd chamfer epe rmsd crps pinball deviance distance dist
    fpr fnr far frr regret residual
"""
_HIGHER = """
    acc accuracy top f fbeta fscore dice iou miou jaccard auc auroc rocauc auprc aupr prauc ap
    map mar precision recall sensitivity specificity tpr tnr npv ppv mcc matthews kappa r psnr
    ssim msssim bleu sacrebleu rouge rougel meteor cider chrf pearson spearman kendall corr
    correlation concordance cindex ccc ndcg mrr hit hits snr sdr sisdr sisnr pesq stoi likelihood
    loglikelihood elbo reward return sharpe similarity agreement purity nmi ari exactmatch success
"""
#: Words for which less is better. The decisive ones count next to words of the other kind, as in
#: ``dice_loss``.
DECISIVE = frozenset(_DECISIVE.split())
LOWER = DECISIVE | frozenset(_LOWER.split())
#: Words for which more is better.
HIGHER = frozenset(_HIGHER.split())
#: Of these, a single letter is a name only with its number, as in F1 and R2.
LETTERS = frozenset("fr")
#: Words that turn what follows round, where it is a loss or a likelihood.
NEGATIVE = frozenset({"neg", "negative"})
LIKELIHOODS = frozenset({"likelihood", "loglikelihood", "elbo"})
STAGES = re.compile(r"^(train|training|val|valid|validation|dev|eval|test)(?=.)")


def higher_is_better(name: str) -> bool | None:
    """Tell by a metric's name whether more of it is better.

    Only whole words count: ``val_mape`` is not a ``map``.

    Args:
        name: Name under which the metric is logged.

    Returns:
        Whether more is better; None if the name does not say so.

    Example:
        >>> higher_is_better("val_acc"), higher_is_better("val/MeanSquaredError")
        (True, False)
        >>> higher_is_better("val_metric") is None
        True
    """
    words = _words(name.removesuffix("/dataloader_idx_" + name.rpartition("_")[2]))
    lower, higher = words & LOWER, words & HIGHER
    if "1-" in name or {"one", "minus"} <= words:
        return None
    if words & NEGATIVE:
        if lower and not higher:
            return True
        return False if higher and higher <= LIKELIHOODS and not lower else None
    if words & DECISIVE:
        return False
    return None if bool(lower) == bool(higher) else bool(higher)


def _words(name: str) -> frozenset[str]:
    """Return the words of a name, and each two neighbours as one, without numbers at the end."""
    words: list[str] = []
    found: set[str] = set()
    for part in re.findall(r"[A-Za-z0-9]+", name):
        found.add(STAGES.sub("", part.lower()))
        words += re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+", part)
    words = [word.lower() for word in words]
    found.update(words, (first + second for first, second in pairwise(words)))
    plain = {word.rstrip("0123456789") for word in found}
    return frozenset(plain - LETTERS) | {word[0] for word in found if _is_numbered(word)}


def _is_numbered(word: str) -> bool:
    return word[:1] in LETTERS and word[1:].isdigit()
