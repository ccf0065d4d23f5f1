"""Pictures: a region of a track before and after, and loss curves of several runs.

python examples/denoise/picture.py curves.png OUT1 OUT2 ...
"""

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot


def region(path, signal, score, noisy, clean, peaks):
    """Draw noisy, denoised and clean track, and the peaks, above each other."""
    figure, axes = pyplot.subplots(4, sharex=True, figsize=(10, 7), layout="constrained")
    position = np.arange(clean.size)
    for axis, name, track in zip(
        axes, ("noisy", "denoised", "clean"), (noisy, signal, clean), strict=False
    ):
        axis.fill_between(position, track, step="mid", linewidth=0.3)
        axis.set_ylabel(f"{name}\nreads")
    axes[3].fill_between(position, peaks, step="mid", alpha=0.3, label="called on the clean track")
    axes[3].plot(position, score, linewidth=0.7, label="probability from the noisy one")
    axes[3].set_ylabel("peaks")
    axes[3].set_xlabel("position")
    axes[3].legend(loc="upper right", fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def curves(path, outputs):
    """Draw the training and validation losses of several runs over each other."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for output in outputs:
        history = json.loads((Path(output) / "history.json").read_text())
        name = f"{history['backend']}, {history['dtype']}"
        losses = np.array(history["losses"])
        window = max(1, losses.size // 50)
        smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        left.plot(np.arange(smooth.size) + window, smooth, linewidth=0.9, label=name)
        right.plot(np.arange(1, len(history["validation"]) + 1), history["validation"], label=name)
    left.set(xlabel="step", ylabel=f"training loss (mean of {window})")
    right.set(xlabel="epoch", ylabel="validation loss")
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    curves(sys.argv[1], sys.argv[2:])
