"""How good a denoised track is."""

import numpy as np


def pearson(x, y):
    """Pearson's correlation; 0 if one of them is constant."""
    x, y = (v - v.mean(dtype=np.float64) for v in (x, y))
    scale = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / scale) if scale else 0.0


def auprc(score, truth):
    """Area under the precision-recall curve, as average precision.

    Positions with equal scores are one point of the curve.
    """
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(truth[order])
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)  # of those with equal scores
    if not found.size or not found[-1]:
        return 0.0
    precision = found[last] / (last + 1)
    return float(np.sum(np.diff(found[last], prepend=0) * precision) / found[-1])


def summary(signal, score, clean, peaks):
    """{name: value} of a track and the score of its peaks, against the truth."""
    return {
        "MSE": float(np.mean((signal - clean) ** 2, dtype=np.float64)),
        "Pearson": pearson(signal, clean),
        "AUPRC": auprc(score, peaks),
    }


def table(rows):
    """{name: summary} as text."""
    lines = [f"{'':10}" + "".join(f"{name:>10}" for name in next(iter(rows.values())))]
    for name, row in rows.items():
        lines.append(f"{name:10}" + "".join(f"{value:10.4f}" for value in row.values()))
    return "\n".join(lines)
