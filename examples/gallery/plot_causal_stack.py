"""
A stack of dilated causal layers, listening to a tune
=====================================================

Two taps per layer, and a dilation that doubles from layer to layer: ten layers see a thousand
samples of the past. This is how WaveNet listens; with fixed weights it is the undecimated Haar
wavelet transform. Each layer splits what it is given into a sum, which the next one refines, and a
difference, which is what this scale has to say. ``padding="causal"`` lets no output depend on later
samples.
"""

import matplotlib.pyplot as plt
import numpy as np

import xsmmconv

RATE, LAYERS = 16_000, 10


def pluck(frequency, seconds):
    """A decaying string with a few overtones."""
    time = np.arange(int(RATE * seconds)) / RATE
    tones = sum(np.sin(2 * np.pi * frequency * k * time) / k**2 for k in range(1, 6))
    return tones * np.exp(-3.5 * time)


tune = np.concatenate([pluck(f, 0.35) for f in (110, 220, 440, 880, 1760, 880, 440, 220)])
tune = tune.astype(np.float32)

# %%
# The two filters of a layer: older sample first, newer sample second.

split = np.array([[[0.5, 0.5]], [[-0.5, 0.5]]], np.float32)
rest, details = tune[np.newaxis], []
for layer in range(LAYERS):
    rest, detail = xsmmconv.conv1d(rest, split, padding="causal", dilation=2**layer)[:, np.newaxis]
    details.append(detail[0])

# Nothing is lost: the scales and what remains add up to the tune.
assert np.allclose(rest[0] + np.sum(details, axis=0), tune, atol=1e-5)

# %%
# What one output depends on is a gradient: send a one backwards through the layers. Each row below
# shows how far a layer looks back from the right edge; the field doubles every time, and nothing is
# to the right of the sample itself.

seen = np.zeros((1, 1100), np.float32)
seen[0, -1] = 1
fields = []
for layer in range(LAYERS):
    seen = xsmmconv.conv1d_backward_data(
        seen, split[:1], seen.shape[-1], padding="causal", dilation=2**layer
    )
    fields.append(np.count_nonzero(seen))
assert fields == [2 ** (layer + 1) for layer in range(LAYERS)]

# %%
# The loudness of every scale over time: the tune climbs and returns.

window = np.full((1, 1, 400), 1 / 400, np.float32)
energy = [xsmmconv.conv1d(detail[np.newaxis] ** 2, window, stride=80)[0] for detail in details]
decibel = 10 * np.log10(np.array(energy) + 1e-7)

figure, (above, below) = plt.subplots(
    2, 1, figsize=(10, 5), height_ratios=(1, 3), sharex=True, layout="constrained"
)
seconds = tune.size / RATE
above.plot(np.arange(tune.size) / RATE, tune, color="0.3", linewidth=0.4)
above.set(ylabel="tune", yticks=[])
picture = below.imshow(
    decibel, origin="lower", aspect="auto", cmap="magma", vmin=-50, interpolation="nearest",
    extent=(0, seconds, -0.5, LAYERS - 0.5),
)  # fmt: skip
below.set(xlabel="seconds", ylabel="layer (dilation $2^{layer}$)", yticks=range(LAYERS))
figure.colorbar(picture, ax=below, label="dB", pad=0.01)
plt.show()
