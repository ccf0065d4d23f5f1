"""The layers: torch.nn's, computed by xsmmconv."""

import torch

from xsmmconv import _problem
from xsmmconv.torch import _functional


class Conv1d(torch.nn.Conv1d):
    """Convolution layer: `torch.nn.Conv1d`, computed by `xsmmconv.torch.conv1d`.

    Parameters, their initialisation and the state_dict are those of `torch.nn.Conv1d`, which this
    is a subclass of.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size : int or (int,)
        S, the number of taps.
    stride, dilation, groups, bias, padding_mode, device, dtype
        As in `torch.nn.Conv1d`.
    padding : int, (int,), (int, int), "valid", "same" or "causal", default 0
        As in `torch.nn.Conv1d`, and also different on both sides (left, right), or "causal",
        dilation*(S-1) on the left.
    activation : {None, "relu"}, default None
        Applied before the result is stored.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or they do not fit each other.

    See Also
    --------
    convert : Makes such layers of those in a model.

    Examples
    --------
    >>> import torch
    >>> from xsmmconv.torch import Conv1d
    >>> layer = Conv1d(4, 15, 51, dilation=8, padding="same", activation="relu")
    >>> layer
    Conv1d(4, 15, kernel_size=(51,), stride=(1,), padding=same, dilation=(8,), activation='relu')
    >>> layer(torch.zeros(2, 4, 1000)).shape
    torch.Size([2, 15, 1000])
    """

    activation = None  # of a layer that `convert` made

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
        *,
        activation=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0,  # the base class does not know all paddings
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        _settle(self, padding, activation)

    def _conv_forward(self, input, weight, bias):
        padding = self.padding
        if self.padding_mode != "zeros":
            input = torch.nn.functional.pad(input, _sides(self), mode=self.padding_mode)
            padding = 0
        return _functional.conv1d(
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            activation=self.activation,
        )

    def extra_repr(self):
        return super().extra_repr() + _shown(self.activation)


class ConvTranspose1d(torch.nn.ConvTranspose1d):
    """Transposed convolution layer: `torch.nn.ConvTranspose1d`, computed by xsmmconv.

    Parameters, their initialisation and the state_dict are those of `torch.nn.ConvTranspose1d`,
    which this is a subclass of.

    Parameters
    ----------
    in_channels, out_channels : int
        C and K.
    kernel_size : int or (int,)
        S, the number of taps.
    stride, output_padding, groups, bias, dilation, padding_mode, device, dtype
        As in `torch.nn.ConvTranspose1d`.
    padding : int, (int,), (int, int), "valid", "same" or "causal", default 0
        That of the convolution this is the adjoint of; see `xsmmconv.torch.conv_transpose1d`.
    activation : {None, "relu"}, default None
        Applied before the result is stored.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or they do not fit each other.

    Examples
    --------
    >>> import torch
    >>> from xsmmconv.torch import ConvTranspose1d
    >>> layer = ConvTranspose1d(32, 16, 16, stride=8, padding=4)
    >>> layer(torch.zeros(2, 32, 100)).shape
    torch.Size([2, 16, 800])
    """

    activation = None  # of a layer that `convert` made

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
        device=None,
        dtype=None,
        *,
        activation=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            0,  # the base class does not know all paddings
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        _settle(self, padding, activation)

    def forward(self, input, output_size=None):
        """Convolve; output_size, a sequence that ends in V, takes the place of output_padding."""
        output_padding = self.output_padding
        if output_size is not None:
            span = self.dilation[0] * (self.kernel_size[0] - 1) + 1
            least = (input.shape[-1] - 1) * self.stride[0] + span - sum(_sides(self))
            output_padding = output_size[-1] - least
        return _functional.conv_transpose1d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
            activation=self.activation,
        )

    def extra_repr(self):
        return super().extra_repr() + _shown(self.activation)


def _settle(layer, padding, activation):
    """Check and set what the base class does not know."""
    if not isinstance(padding, str):
        padding = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,)
    layer.padding = padding
    _sides(layer)
    if activation is not None and _problem.relu(activation):
        layer.activation = activation


def _sides(layer):
    """[left, right] of the layer's padding."""
    return _functional.parameters(
        layer.kernel_size[0], layer.stride, layer.padding, layer.dilation, layer.groups
    )[1]


def _shown(activation):
    return "" if activation is None else f", activation={activation!r}"
