"""
A whole chromosome in windows
=============================

A network with prepared layers runs over a long track in batches of windows, so that memory stays
small and somebody can watch. Each window is read with a margin as wide as the network's field of
view, and the margin of the result is dropped: what is stored equals the answer for the whole track
at once, but for the rounding of sums in another order.
"""

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track as progress

import xsmmconv
from xsmmconv.cli import tracks

WIDTH, WINDOW, BATCH, DILATION, TAPS = 2_000_000, 50_000, 8, 8, 25
signal = tracks.coverage_track(WIDTH, 22)

# %%
# Two layers: an edge detector for both directions, then their meeting: high where coverage rises on
# the left and falls on the right. ``Conv1d`` packs its weights once.

ramp = np.sign(np.arange(TAPS) - TAPS // 2) / TAPS
first = np.stack([ramp, -ramp])[:, np.newaxis].astype(np.float32)
second = np.zeros((1, 2, TAPS), np.float32)
second[0, 0, : TAPS // 2] = second[0, 1, TAPS // 2 + 1 :] = 2 / TAPS
network = [
    xsmmconv.Conv1d(first, padding="same", dilation=DILATION, activation="relu"),
    xsmmconv.Conv1d(second, padding="same", dilation=DILATION),
]


def apply(x):
    for layer in network:
        x = layer(x)
    return x


# %%
# The margin: every layer looks ``DILATION * (TAPS // 2)`` to either side. All windows of a batch
# are equally wide; the first and the last end where the chromosome does, and have all their margin
# on the other side.

margin = len(network) * DILATION * (TAPS // 2)
read = WINDOW + 2 * margin
answer = np.empty(WIDTH, np.float32)
for first in progress(range(0, WIDTH, BATCH * WINDOW), "batches"):
    starts = range(first, min(first + BATCH * WINDOW, WIDTH), WINDOW)
    lefts = [min(max(start - margin, 0), WIDTH - read) for start in starts]
    windows = np.stack([signal[left : left + read] for left in lefts])[:, np.newaxis]
    for start, left, result in zip(starts, lefts, apply(windows), strict=True):
        answer[start : start + WINDOW] = result[0, start - left : start - left + WINDOW]

whole = apply(signal[np.newaxis])[0]
np.testing.assert_allclose(answer, whole, rtol=1e-5, atol=1e-5 * whole.max())

# %%
# The chromosome as a picture, 250 positions per pixel, row by row like a page of text; the
# brightest spots are candidates for open chromatin.

page = answer.reshape(40, -1, 250).max(axis=2)
figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
picture = axes.imshow(np.log1p(page), aspect="auto", cmap="inferno", extent=(0, 50, 2.0, 0))
axes.set(xlabel="kb within a row", ylabel="Mb", title=f"{WIDTH:,} positions")
figure.colorbar(picture, label="log(1 + answer)", pad=0.01)
plt.show()
