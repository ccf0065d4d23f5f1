"""The network: residual blocks of dilated convolutions, as in AtacWorks, and its loss.

A track with few reads comes in; out come the track with all reads (the signal), and from that the
probability that a position lies in a peak.
"""

from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from xsmmconv.torch import Conv1d

BACKENDS = ("torch", "xsmmconv")


@dataclass(frozen=True)
class Shape:
    """What the network looks like; the defaults are those of arXiv:2104.08002."""

    channels: int = 15
    taps: int = 51
    dilation: int = 8
    signal_blocks: int = 5
    peak_blocks: int = 2

    @property
    def reach(self):
        """An output depends on this many positions to the left and to the right."""
        layers = 3 * (self.signal_blocks + self.peak_blocks)
        return layers * self.dilation * (self.taps - 1) // 2

    asdict = asdict


class PlainConv1d(nn.Conv1d):
    """torch.nn's layer with the keyword of ours: ReLU after it, in place."""

    def __init__(self, *arguments, activation=None, **options):
        super().__init__(*arguments, **options)
        self.activation = activation

    def forward(self, x):
        y = super().forward(x)
        return y if self.activation is None else F.relu(y, inplace=True)


class Block(nn.Module):
    """Three dilated convolutions with ReLU, added to their input."""

    def __init__(self, layer, channels_in, shape):
        super().__init__()
        channels = shape.channels
        self.convolutions = nn.Sequential(
            *(
                layer(
                    channels_in if first else channels,
                    channels,
                    shape.taps,
                    dilation=shape.dilation,
                    padding="same",
                    activation="relu",
                )
                for first in (True, False, False)
            )
        )
        same = channels_in == channels
        self.shortcut = nn.Identity() if same else layer(channels_in, channels, 1)

    def forward(self, x):
        return self.shortcut(x) + self.convolutions(x)


def pass_on(layer):
    """Let a layer with one tap begin with the mean over its channels.

    Each stack of blocks then begins with its input, added to which are the convolutions. From
    random signs here, some seeds begin with a signal that falls where the reads are, and end with
    none.
    """
    if isinstance(layer, nn.Conv1d) and layer.kernel_size == (1,):
        nn.init.constant_(layer.weight, 1 / layer.in_channels)
        nn.init.zeros_(layer.bias)


class Network(nn.Module):
    """Coverage (N, 1, W) -> denoised coverage and logits of peaks, both (N, W), float32."""

    def __init__(self, shape, backend):
        super().__init__()
        layer = {"torch": PlainConv1d, "xsmmconv": Conv1d}[backend]

        def blocks(number):
            channels = [1] + [shape.channels] * (number - 1)
            return nn.Sequential(*(Block(layer, C, shape) for C in channels))

        self.signal = blocks(shape.signal_blocks)
        self.signal_head = layer(shape.channels, 1, 1)
        self.peaks = blocks(shape.peak_blocks)
        self.peaks_head = layer(shape.channels, 1, 1)
        self.apply(pass_on)
        nn.init.constant_(self.peaks_head.bias, -4)  # few positions are in a peak

    def forward(self, x):
        signal = F.softplus(self.signal_head(self.signal(x)).float())
        logits = self.peaks_head(self.peaks(signal))
        return signal.squeeze(1), logits.squeeze(1).float()


# Added to variances, in reads squared. Where the network sees no reads its signal is constant, and
# the derivative of a correlation would be infinite.
VARIANCE = 1e-3


def loss_of(signal, logits, clean, peaks):
    """0.0005*MSE + (1 - Pearson) + binary cross-entropy; all four (N, W).

    Pearson's correlation is taken of every row and averaged. So the loss of a batch is the mean of
    the losses of its rows, and data-parallel training has the gradients of the joint batch.
    """
    error = F.mse_loss(signal, clean)
    x, y = (v - v.mean(1, keepdim=True) for v in (signal, clean))
    variances = (x.square().mean(1) + VARIANCE) * (y.square().mean(1) + VARIANCE)
    pearson = (x * y).mean(1) / variances.sqrt()
    entropy = F.binary_cross_entropy_with_logits(logits, peaks)
    return 0.0005 * error + (1 - pearson.mean()) + entropy


def autocast(dtype):
    """The context in which the network computes in "float32" or "bfloat16"."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
