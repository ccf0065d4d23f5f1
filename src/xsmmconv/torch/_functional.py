"""The functions: torch.nn.functional's arguments, made into those of the operators."""

import torch

from xsmmconv import _problem
from xsmmconv.torch import _operators


def conv1d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    activation=None,
):
    """Convolve rows with filters, as `torch.nn.functional.conv1d` does.

    ``y[n, k, q] = bias[k] + sum_{c, t} weight[k, c, t] * x[n, c', q*stride + t*dilation - left]``

    with c' the c-th channel of the group that filter k belongs to, over the positions inside the
    row. The operator behind it can be differentiated any number of times, compiled, mapped by
    `torch.vmap`, and is cast to bfloat16 by autocast on CPUs.

    Parameters
    ----------
    input : torch.Tensor, shape (N, C, W) or (C, W)
        On the CPU; float32, float64 or bfloat16; with any strides. Error messages call it x.
    weight : torch.Tensor, shape (K, C/groups, S)
        Filters, in the dtype of input.
    bias : torch.Tensor, shape (K,), optional
        In the dtype of input, or float32.
    stride, dilation : int or (int,), default 1
        Distance between the input positions of neighbouring outputs, and of neighbouring taps.
    padding : int, (int,), (int, int), "valid", "same" or "causal", default 0
        How many positions beyond the row the filter may reach: on both sides, or left and right.
        As in `xsmmconv.conv1d`.
    groups : int, default 1
        Number of independent convolutions that channels and filters are divided into.
    activation : {None, "relu"}, default None
        "relu" is applied before the result is stored. Its derivative is taken from the result, so
        nothing else is kept for it.

    Returns
    -------
    torch.Tensor, shape (N, K, Q) or (K, Q)
        In the dtype of input, contiguous.
        Q = floor((W + left + right - dilation*(S-1) - 1) / stride) + 1.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If shapes and numbers do not fit each other; the message shows both sides.
    NotImplementedError
        If a tensor is not on the CPU, or not dense.
    xsmmconv.UnsupportedError
        If this machine cannot run the kernels.

    See Also
    --------
    Conv1d : The layer.
    xsmmconv.conv1d : The same on NumPy arrays.

    Notes
    -----
    As many threads are used as `torch.get_num_threads` says. Result and gradients do not depend
    on it, apart from the gradient by the bias, which is a `torch.sum`.

    Examples
    --------
    >>> import torch
    >>> from xsmmconv.torch import conv1d
    >>> x = torch.tensor([[1.0, 2, 3, 4]])
    >>> weight = torch.tensor([[[10.0, 1]]], requires_grad=True)
    >>> y = conv1d(x, weight, padding="causal", activation="relu")
    >>> y.detach()
    tensor([[ 1., 12., 23., 34.]])
    >>> y.sum().backward()
    >>> weight.grad
    tensor([[[ 6., 10.]]])
    """
    rows = _rows(input, weight)
    stride, padding, dilation, groups = parameters(
        weight.shape[2], stride, padding, dilation, groups
    )
    relu = activation is not None and _problem.relu(activation)
    y = _operators.conv1d(rows, weight, bias, stride, padding, dilation, groups, relu)
    return y if rows is input else y.squeeze(0)


def conv_transpose1d(
    input,
    weight,
    bias=None,
    stride=1,
    padding=0,
    output_padding=0,
    groups=1,
    dilation=1,
    *,
    activation=None,
):
    """Transposed convolution, as `torch.nn.functional.conv_transpose1d` does it.

    ``y[n, k, i] = bias[k] + sum_{c, t, q} weight[c, k', t] * x[n, c, q]``

    over the taps t and input positions q with ``q*stride + t*dilation - left == i`` and the
    channels c of k's group. Positions that no tap reaches hold the bias.

    Parameters
    ----------
    input : torch.Tensor, shape (N, C, W) or (C, W)
        As in `conv1d`.
    weight : torch.Tensor, shape (C, K/groups, S)
        Filters, in the dtype of input.
    bias : torch.Tensor, shape (K,), optional
        In the dtype of input, or float32.
    stride, dilation : int or (int,), default 1
        Distance between the output positions that neighbouring inputs, and neighbouring taps of
        one input, contribute to.
    padding : int, (int,), (int, int), "valid", "same" or "causal", default 0
        That of the convolution this is the adjoint of: positions cut off the output's ends.
    output_padding : int or (int,), default 0
        Positions added at the right end; less than the larger of stride and dilation.
    groups : int, default 1
        As in `conv1d`.
    activation : {None, "relu"}, default None
        As in `conv1d`.

    Returns
    -------
    torch.Tensor, shape (N, K, V) or (K, V)
        In the dtype of input, contiguous.
        V = (W-1)*stride - left - right + dilation*(S-1) + 1 + output_padding.

    Raises
    ------
    TypeError, ValueError, NotImplementedError, xsmmconv.UnsupportedError
        As in `conv1d`; ValueError also if the padding leaves no output position.

    See Also
    --------
    ConvTranspose1d : The layer.
    xsmmconv.conv_transpose1d : The same on NumPy arrays.

    Examples
    --------
    >>> import torch
    >>> from xsmmconv.torch import conv_transpose1d
    >>> x = torch.tensor([[1.0, 2, 3]])
    >>> weight = torch.tensor([[[10.0, 1]]])
    >>> conv_transpose1d(x, weight, stride=2, output_padding=1)
    tensor([[10.,  1., 20.,  2., 30.,  3.,  0.]])
    """
    rows = _rows(input, weight)
    stride, padding, dilation, groups = parameters(
        weight.shape[2], stride, padding, dilation, groups
    )
    output_padding = _problem.integer("output_padding", _single(output_padding))
    relu = activation is not None and _problem.relu(activation)
    convolve = _operators.conv_transpose1d if output_padding < stride else _beyond_stride
    y = convolve(rows, weight, bias, stride, padding, dilation, groups, relu, output_padding)
    return y if rows is input else y.squeeze(0)


def _beyond_stride(x, weight, bias, stride, padding, dilation, groups, relu, output_padding):
    """Transposed convolution with output_padding >= stride, which a dilation allows.

    Whole strides of it take back right padding, and what is left of them are columns that no tap
    reaches: they hold the bias.
    """
    if output_padding >= dilation:
        raise ValueError(
            f"output_padding={output_padding} should be less than the larger of stride={stride} "
            f"and dilation={dilation}"
        )
    left, right = padding
    right -= output_padding // stride * stride
    padding, output_padding = [left, max(right, 0)], output_padding % stride
    y = _operators.conv_transpose1d(
        x, weight, bias, stride, padding, dilation, groups, relu, output_padding
    )
    if right >= 0:
        return y
    edge = y.new_zeros(y.shape[1]) if bias is None else bias.to(y.dtype)
    edge = edge.relu() if relu else edge
    return torch.cat([y, edge[:, None].expand(y.shape[0], -1, -right)], 2)


def _rows(input, weight):
    """The input with a batch axis."""
    for name, tensor in (("input", input), ("weight", weight)):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} should be a torch.Tensor, not {type(tensor).__name__}")
    if input.ndim not in (2, 3):
        raise ValueError(f"input should have shape (N, C, W) or (C, W), not {tuple(input.shape)}")
    if weight.ndim != 3:
        raise ValueError(f"weight should have 3 axes, not shape {tuple(weight.shape)}")
    return input if input.ndim == 3 else input.unsqueeze(0)


def _single(value):
    """PyTorch writes a number for one spatial axis as the number, or as a tuple that holds it."""
    return value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value


def parameters(filter_width, stride, padding, dilation, groups):
    """(stride, [left, right], dilation, groups), checked, as ints."""
    stride, padding, dilation, groups = _problem.parameters(
        _single(stride), _single(padding), _single(dilation), groups
    )
    return (
        stride,
        list(_problem._padding(padding, filter_width, stride, dilation)),
        dilation,
        groups,
    )
