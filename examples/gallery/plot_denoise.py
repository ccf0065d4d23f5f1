"""
Training a small dilated network, with gradients by hand
========================================================

Three layers learn to guess clean coverage from a noisy tenth of it. There is no automatic
differentiation: the backward pass is two functions, called in reverse order. (For PyTorch there is
``xsmmconv.torch``.)
"""

import matplotlib.pyplot as plt
import numpy as np

import xsmmconv
from xsmmconv.cli import tracks

WIDTH, CHANNELS, TAPS, STEPS, RATE = 3000, 8, 15, 120, 0.01
rng = np.random.default_rng(1)
# Dense taps first: a dilated layer alone sees every 16th position, and nothing of those in between.
layers = [{"padding": "same", "dilation": d} for d in (1, 4, 16)]


def examples(count, seed):
    """Noisy and clean coverage, on a scale that networks like."""
    clean = np.stack([tracks.coverage_track(WIDTH, seed + i) for i in range(count)])
    noisy = np.random.default_rng(seed).binomial(clean.astype(np.int64), 0.1) * 10.0
    return (np.log1p(v)[:, np.newaxis].astype(np.float32) for v in (noisy, clean))


def filters(K, C):
    return (rng.normal(size=(K, C, TAPS)) / np.sqrt(C * TAPS)).astype(np.float32)


# %%
# Forward keeps every layer's input; the convolution does bias and ReLU in the same go.

weights = [filters(CHANNELS, 1), filters(CHANNELS, CHANNELS), filters(1, CHANNELS)]
biases = [np.zeros(w.shape[0], np.float32) for w in weights]


def forward(x):
    inputs = [x]
    for weight, bias, options in zip(weights, biases, layers, strict=True):
        activation = "relu" if weight is not weights[-1] else None
        inputs.append(xsmmconv.conv1d(inputs[-1], weight, bias, activation=activation, **options))
    return inputs


def gradients(inputs, grad):
    """Of the parameters, last layer first; ``grad`` belongs to the output."""
    for layer in reversed(range(len(weights))):
        x, y, options = inputs[layer], inputs[layer + 1], layers[layer]
        if layer < len(weights) - 1:
            grad = grad * (y > 0)  # through the ReLU
        yield xsmmconv.conv1d_backward_weight(grad, x, TAPS, **options), grad.sum(axis=(0, 2))
        if layer > 0:
            grad = xsmmconv.conv1d_backward_data(grad, weights[layer], WIDTH, **options)


# %%
# Adam, in four lines.

noisy, clean = examples(16, seed=100)
moments = [[np.zeros_like(p), np.zeros_like(p)] for p in (*weights, *biases)]
losses = []
for step in range(1, STEPS + 1):
    inputs = forward(noisy)
    error = inputs[-1] - clean
    losses.append(float(np.mean(error**2)))
    pairs = list(gradients(inputs, 2 * error / error.size))[::-1]
    slopes = [w for w, _ in pairs] + [b for _, b in pairs]
    for value, slope, (mean, square) in zip((*weights, *biases), slopes, moments, strict=True):
        mean += 0.1 * (slope - mean)
        square += 0.01 * (slope**2 - square)
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.99**step)
        value -= RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
print(f"mean squared error: {losses[0]:.3f} before, {losses[-1]:.3f} after {STEPS} steps")

# %%
# On a track it has not seen.

noisy, clean = examples(1, seed=998)
guess = forward(noisy)[-1]
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), width_ratios=(1, 3), layout="constrained"
)
left.semilogy(losses)
left.set(xlabel="step", ylabel="mean squared error")
right.plot(noisy[0, 0], color="0.8", linewidth=0.5, label="a tenth, noisy")
right.plot(clean[0, 0], color="0.3", linewidth=1.2, label="clean")
right.plot(guess[0, 0], color="C3", linewidth=0.8, label="network")
right.set(xlabel="position", ylabel="log(1 + coverage)", xlim=(0, WIDTH))
right.legend(frameon=False, loc="upper right")
plt.show()
