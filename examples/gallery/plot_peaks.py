"""
Smoothing a coverage track, and finding its peaks
=================================================

Sequencing coverage is noisy: fragments pile up around the sites of interest, and lie about
elsewhere. Two filters tell them apart. One smooths; the other, a Ricker wavelet, is the negative
second derivative of a Gaussian and answers to bumps of one width. Both go through a single call, as
the two filters of one convolution.

The track is generated. To use a real one, set ``XSMMCONV_BIGWIG=FILE:chr22:20000000-20060000``
(with ``pip install 'xsmmconv[bigwig]'``).
"""

import os

import matplotlib.pyplot as plt
import numpy as np

import xsmmconv
from xsmmconv.cli import tracks

WIDTH = 60_000
source = os.environ.get("XSMMCONV_BIGWIG")
track = tracks.read_bigwig(*source.split(":", 1)) if source else tracks.coverage_track(WIDTH, 7)

# %%
# 101 taps at dilation 8 see 801 positions. ``padding="same"`` keeps the width, and because taps
# outside the track are left out instead of multiplied by zeros, dividing by the same filter's
# response to a track of ones corrects the ends exactly.

SIGMA, DILATION = 15.0, 8
t = np.arange(-50, 51)
gauss = np.exp(-0.5 * (t / SIGMA) ** 2)
ricker = (1 - (t / SIGMA) ** 2) * gauss
ricker -= ricker.mean()  # no answer to a constant
filters = np.stack([gauss / gauss.sum(), ricker / np.abs(ricker).sum()])[:, np.newaxis]
filters = filters.astype(np.float32)

options = {"padding": "same", "dilation": DILATION}
smooth, bumps = xsmmconv.conv1d(track[np.newaxis], filters, **options)
smooth /= xsmmconv.conv1d(np.ones_like(track)[np.newaxis], filters[:1], **options)[0]

# %%
# A peak is where the answer is the largest of its surroundings and stands out of the noise, which
# the median of its absolute values measures without being impressed by the peaks.

inner = bumps[1:-1]
local = np.flatnonzero((inner > bumps[:-2]) & (inner >= bumps[2:])) + 1
strong = local[bumps[local] > 6 * np.median(np.abs(bumps))]
peaks = [p for p in strong if bumps[p] == bumps[max(0, p - 400) : p + 401].max()]

position = np.arange(track.size) / 1000
figure, (above, below) = plt.subplots(
    2, 1, sharex=True, figsize=(10, 5), height_ratios=(3, 1), layout="constrained"
)
above.fill_between(position, track, color="0.8", linewidth=0, label="coverage")
above.plot(position, smooth, color="C0", linewidth=1, label="smoothed")
above.plot(position[peaks], smooth[peaks], "v", color="C3", markersize=6, label="peaks")
above.set(ylabel="fragments", title=f"{len(peaks)} peaks in {track.size // 1000} kb")
above.legend(frameon=False, loc="upper right")
below.plot(position, bumps, color="C1", linewidth=0.8)
below.axhline(0, color="0.7", linewidth=0.5)
below.set(xlabel="position (kb)", ylabel="wavelet", xlim=(0, position[-1]))
plt.show()
