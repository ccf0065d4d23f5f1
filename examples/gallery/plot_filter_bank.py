"""
A filter bank with stride, and its transposed inverse
=====================================================

Audio codecs cut sound into frequency bands with the MDCT: M cosine filters of 2M taps, moved on by
M samples. That is one convolution with stride M. Every sample is covered by two frames, each of
which folds it together with its mirror image; the transposed convolution *with the same weights*
unfolds them, and the errors of neighbouring frames cancel. The filters are orthonormal, so the
adjoint is the inverse.
"""

import matplotlib.pyplot as plt
import numpy as np

import xsmmconv

RATE, M = 16_000, 128
n, k = np.arange(2 * M), np.arange(M)[:, np.newaxis]
window = np.sin(np.pi / (2 * M) * (n + 0.5))
bank = window * np.sqrt(2 / M) * np.cos(np.pi / M * (n + 0.5 + M / 2) * (k + 0.5))
bank = bank[:, np.newaxis]  # K, C/groups, S

time = np.arange(4 * RATE) / RATE
sound = np.sin(2 * np.pi * (200 * time + 700 * time**2))  # a rising sweep
sound += 0.5 * np.sin(2 * np.pi * 1000 * time + 40 * np.sin(2 * np.pi * 2 * time))  # a siren
sound = sound[np.newaxis]

# %%
# Analysis, and synthesis. The padding of one frame on both sides gives the first and the last
# samples their two frames; it is not read, and in the inverse it is what is cut off.

bands = xsmmconv.conv1d(sound, bank, stride=M, padding=M)
restored = xsmmconv.conv_transpose1d(bands, bank, stride=M, padding=M)
assert restored.shape == sound.shape
print(f"largest error of the round trip: {np.abs(restored - sound).max():.1e}")

# %%
# What a codec does in between: drop the faint coefficients. One in ten is enough here.

threshold = np.quantile(np.abs(bands), 0.9)
kept = np.where(np.abs(bands) >= threshold, bands, 0)
compressed = xsmmconv.conv_transpose1d(kept, bank, stride=M, padding=M)
noise = 10 * np.log10(np.sum((compressed - sound) ** 2) / np.sum(sound**2))

figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), width_ratios=(3, 2), layout="constrained"
)
left.imshow(
    20 * np.log10(np.abs(bands) + 1e-4), origin="lower", aspect="auto", cmap="viridis", vmin=-50,
    extent=(0, time[-1], 0, RATE / 2000),
)  # fmt: skip
left.set(xlabel="seconds", ylabel="kHz", title=f"{M} bands")
part = slice(30_000, 30_120)
milliseconds = 1000 * (time[part] - time[part.start])
right.plot(milliseconds, sound[0, part], color="0.75", linewidth=4, label="sound")
right.plot(milliseconds, restored[0, part], color="C0", linewidth=1, label="all coefficients")
right.plot(
    milliseconds, compressed[0, part], "--", color="C3", linewidth=1,
    label=f"one in ten ({noise:.0f} dB)",
)  # fmt: skip
right.set(xlabel="milliseconds", ylim=(-1.7, 2.6), title="round trip")
right.legend(frameon=False, loc="upper right", fontsize="small")
plt.show()
