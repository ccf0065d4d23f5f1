"""Pictures: a region of a track before and after, and loss curves of several runs.

python examples/denoise/picture.py curves.png OUT1/results.json OUT2/results.json ...
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


def curves(path, files):
    """Draw the training and validation losses of several runs over each other."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for i, file in enumerate(files):
        results = json.loads(Path(file).read_text())
        name = f"{results['backend']}, {results['dtype']}"
        losses, validation = np.array(results["losses"]), results["validation"]
        window = max(1, losses.size // 20)
        smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        # Curves that coincide stay visible: each is thinner than the one below it.
        line = {"linewidth": 1 + 1.2 * (len(files) - 1 - i), "label": name}
        left.plot(np.arange(smooth.size) + window, smooth, **line)
        right.plot(np.arange(1, len(validation) + 1), validation, marker="o", **line)
    left.set(xlabel="step", ylabel=f"training loss, mean of {window}")
    right.set(xlabel="epoch", ylabel="validation loss")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    curves(sys.argv[1], sys.argv[2:])
