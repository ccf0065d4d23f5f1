"""Convolutions by their definition, in plain NumPy and float64: slow, short, and meant to be read.

All functions evaluate one relation between positions::

    y[n, k, q] = sum_{c, t} weight[k, c, t] * x[n, c, q*s + t*d - pl]      0 <= q*s + t*d - pl < W

For each tap t they look up the pairs (q, i = q*s + t*d - pl) with i inside the row, and multiply
those and no others. A padding zero is therefore never multiplied: Inf and NaN arrive exactly where
the sum above sends them. The sums are `numpy.einsum` without BLAS for the same reason.

The module imports nothing else of the package, so that it can judge it. Whatever the dtype of the
operands, the arithmetic and the result are float64 (numpy.longdouble if an operand is).
"""

import numpy as np

__all__ = [
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv_transpose1d",
    "error_bound",
]


def conv1d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None):
    """Convolve along the last axis (cross-correlation, as in every neural-network library).

    ``y[n, k, q] = bias[k] + sum_{c, t} weight[k, c, t] * x[n, c', q*stride + t*dilation - pl]``
    with c' the c-th channel of the group that filter k belongs to, over the positions inside x.

    Parameters
    ----------
    x : array_like, shape (N, C, W) or (C, W)
        Input.
    weight : array_like, shape (K, C/groups, S)
        K filters of S taps.
    bias : array_like, shape (K,), optional
        Added to every output position.
    stride : int, optional
        Distance between the input positions of neighbouring outputs.
    padding : int, (int, int), "valid", "same" or "causal", optional
        How far the filter may start before and end behind the row: (left, right), or the same on
        both sides. "valid" is 0; "same" is dilation*(S-1) in total, the odd one on the right, and
        asks for stride 1; "causal" is dilation*(S-1) on the left.
    dilation : int, optional
        Distance between the input positions of neighbouring taps.
    groups : int, optional
        Number of independent convolutions that the channels and the filters are divided into.
    activation : {None, "relu"}, optional
        Applied to the sum.

    Returns
    -------
    numpy.ndarray, shape (N, K, Q) or (K, Q), float64
        Q = floor((W + left + right - dilation*(S-1) - 1) / stride) + 1.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or the filter is wider than the padded input.

    Examples
    --------
    >>> conv1d([[1, 2, 3, 4]], [[[10, 1]]])
    array([[12., 23., 34.]])
    >>> conv1d([[1, 2, 3, 4]], [[[10, 1]]], [-30], padding="same", activation="relu")
    array([[ 0.,  0.,  4., 10.]])
    """
    x, weight = _widen(x, weight)
    batched_x = _batched(x)
    N, C, W = batched_x.shape
    K, C_per_group, S = weight.shape
    if groups * C_per_group != C or K % groups:
        raise ValueError(f"x {x.shape}, weight {weight.shape} and groups={groups} do not fit")
    pl, pr = _padding(padding, S, stride, dilation)
    Q = _output_width(W, S, stride, dilation, pl, pr)

    x_by_group = batched_x.reshape(N, groups, C_per_group, W)
    weight_by_group = weight.reshape(groups, K // groups, C_per_group, S)
    y = np.zeros((N, groups, K // groups, Q), x.dtype)
    for t, q, i in _valid_positions(W, S, Q, stride, dilation, pl):
        y[..., q] += np.einsum("gkc,ngcq->ngkq", weight_by_group[..., t], x_by_group[..., i])
    return _finish(y.reshape(N, K, Q), bias, activation).reshape((*x.shape[:-2], K, Q))


def conv1d_backward_data(
    grad_out, weight, input_width, *, stride=1, padding=0, dilation=1, groups=1
):
    """Gradient of `conv1d` with respect to x: its transpose, applied to the output's gradient.

    ``dx[n, c, i] = sum_{k, t, q : q*stride + t*dilation - pl = i} weight[k, c, t] * dy[n, k, q]``

    Parameters
    ----------
    grad_out : array_like, shape (N, K, Q) or (K, Q)
        Gradient with respect to the output of `conv1d`.
    weight : array_like, shape (K, C/groups, S)
        The filters.
    input_width : int
        W, the width of x. Q does not tell it if the stride is above 1.
    stride, padding, dilation, groups
        As in `conv1d`.

    Returns
    -------
    numpy.ndarray, shape (N, C, W) or (C, W), float64
        Zero where no tap reaches.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or `input_width` does not lead to Q.

    Examples
    --------
    >>> conv1d_backward_data([[1, 2]], [[[10, 1]]], 5, stride=3)
    array([[10.,  1.,  0., 20.,  2.]])
    """
    weight = np.asarray(weight)
    S = weight.shape[-1]
    pl, pr = _padding(padding, S, stride, dilation)
    Q = _output_width(input_width, S, stride, dilation, pl, pr)
    if np.shape(grad_out)[-1] != Q:
        raise ValueError(
            f"grad_out {np.shape(grad_out)} should have width {Q} for input_width={input_width}"
        )
    return _transposed(grad_out, weight, input_width, stride, dilation, pl, groups)


def conv1d_backward_weight(grad_out, x, filter_width, *, stride=1, padding=0, dilation=1, groups=1):
    """Gradient of `conv1d` with respect to weight.

    ``dw[k, c, t] = sum_{n, q} dy[n, k, q] * x[n, c', q*stride + t*dilation - pl]``

    Parameters
    ----------
    grad_out : array_like, shape (N, K, Q) or (K, Q)
        Gradient with respect to the output of `conv1d`.
    x : array_like, shape (N, C, W) or (C, W)
        The input.
    filter_width : int
        S, the number of taps.
    stride, padding, dilation, groups
        As in `conv1d`.

    Returns
    -------
    numpy.ndarray, shape (K, C/groups, S), float64
        Zero for taps that reach no position.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or `filter_width` does not lead to Q.

    Examples
    --------
    >>> conv1d_backward_weight([[1, 10, 100]], [[1, 2, 3, 4]], 2)
    array([[[321., 432.]]])
    """
    grad_out, x = map(_batched, _widen(grad_out, x))
    N, K, Q = grad_out.shape
    C, W = x.shape[1:]
    if x.shape[0] != N or C % groups or K % groups:
        raise ValueError(f"grad_out {grad_out.shape}, x {x.shape}, groups={groups} do not fit")
    pl, pr = _padding(padding, filter_width, stride, dilation)
    if _output_width(W, filter_width, stride, dilation, pl, pr) != Q:
        raise ValueError(f"grad_out has width {Q}, which filter_width={filter_width} does not give")

    grad_by_group = grad_out.reshape(N, groups, K // groups, Q)
    x_by_group = x.reshape(N, groups, C // groups, W)
    dw = np.zeros((groups, K // groups, C // groups, filter_width), x.dtype)
    for t, q, i in _valid_positions(W, filter_width, Q, stride, dilation, pl):
        dw[..., t] = np.einsum("ngkq,ngcq->gkc", grad_by_group[..., q], x_by_group[..., i])
    return dw.reshape(K, C // groups, filter_width)


def conv_transpose1d(
    x,
    weight,
    bias=None,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    dilation=1,
    groups=1,
    activation=None,
):
    """Transposed convolution: what `conv1d_backward_data` does, as a layer with its own bias.

    Every input position i adds ``x[n, c, i] * weight[c, k, t]`` to the output position
    ``i*stride + t*dilation - pl``, where there is one.

    Parameters
    ----------
    x : array_like, shape (N, C, W) or (C, W)
        Input.
    weight : array_like, shape (C, K/groups, S)
        The filters.
    bias : array_like, shape (K,), optional
        Added to every output position, also those that no tap reaches.
    stride, dilation, groups, activation
        As in `conv1d`.
    padding : int, (int, int), "valid", "same" or "causal", optional
        That of the convolution of which this is the transpose: positions cut off the output.
    output_padding : int, optional
        Positions added at the right end of the output.

    Returns
    -------
    numpy.ndarray, shape (N, K, V) or (K, V), float64
        V = (W-1)*stride - left - right + dilation*(S-1) + 1 + output_padding.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or no output position is left.

    Examples
    --------
    >>> conv_transpose1d([[1, 2, 3]], [[[10, 1]]], stride=2, output_padding=1)
    array([[10.,  1., 20.,  2., 30.,  3.,  0.]])
    """
    weight = np.asarray(weight)
    S = weight.shape[-1]
    pl, pr = _padding(padding, S, stride, dilation)
    width = (np.shape(x)[-1] - 1) * stride - pl - pr + dilation * (S - 1) + 1 + output_padding
    if width < 1:
        raise ValueError(f"padding={padding} leaves no output position ({width})")
    y = _transposed(x, weight, width, stride, dilation, pl, groups)
    return _finish(y, bias, activation)


def error_bound(expected, magnitude, terms, dtype):
    """How far a result computed in `dtype` may lie from the exact sum.

    Summing n products in floating point, in any order, errs by at most n*u*sum|x*w| (to first
    order in u). bfloat16 operands are summed in float32, and rounding the sum to bfloat16 adds half
    a unit in the last place.

    Parameters
    ----------
    expected : array_like
        The exact results.
    magnitude : array_like
        The same sums over the absolute values of all operands.
    terms : array_like
        n, the number of products in each sum, plus one if a bias is added.
    dtype : dtype_like
        float32, float64 or bfloat16.

    Returns
    -------
    numpy.ndarray, float64

    Examples
    --------
    >>> float(error_bound(1.0, 1.0, 8, "float32")) == 8 * 2**-24
    True
    """
    dtype = np.dtype(dtype)
    unit_roundoff = 2.0**-53 if dtype == np.float64 else 2.0**-24
    bound = np.multiply(terms, unit_roundoff) * np.asarray(magnitude, np.float64)
    if dtype.name == "bfloat16":
        # 8 significant bits, so half a unit in the last place of m*2^e, 1/2 <= m < 1, is 2^(e-9).
        _, exponent = np.frexp(np.abs(expected).astype(np.float64) + bound)
        bound = bound + np.ldexp(1.0, exponent - 9)
    return bound


def _widen(*operands):
    operands = [np.asarray(operand) for operand in operands]
    wide = np.result_type(np.float64, *operands)
    return [operand.astype(wide) for operand in operands]


def _batched(x):
    return x if x.ndim == 3 else x[np.newaxis]


def _padding(padding, S, stride, dilation):
    total = dilation * (S - 1)
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return total, 0
    if padding == "same":
        if stride != 1:
            raise ValueError(f'padding="same" asks for stride 1, not {stride}')
        return total // 2, total - total // 2
    return (padding, padding) if np.ndim(padding) == 0 else tuple(padding)


def _output_width(W, S, stride, dilation, pl, pr):
    if W + pl + pr < dilation * (S - 1) + 1:
        raise ValueError(
            f"a filter of {S} taps at dilation {dilation} is wider than the padded input "
            f"{pl}+{W}+{pr}"
        )
    return (W + pl + pr - dilation * (S - 1) - 1) // stride + 1


def _valid_positions(W, S, Q, stride, dilation, pl):
    """Yield, for each tap that reaches the row, the output and the input positions it connects."""
    q = np.arange(Q)
    for t in range(S):
        i = q * stride + t * dilation - pl
        inside = np.flatnonzero((i >= 0) & (i < W))
        if inside.size:
            first, last = inside[0], inside[-1]
            yield t, slice(first, last + 1), slice(i[first], i[last] + 1, stride)


def _transposed(grad_out, weight, W, stride, dilation, pl, groups):
    grad_out, weight = _widen(grad_out, weight)
    batched_grad = _batched(grad_out)
    N, K, Q = batched_grad.shape
    C_per_group, S = weight.shape[1:]
    if weight.shape[0] != K or K % groups:
        raise ValueError(
            f"channels of {grad_out.shape}, weight {weight.shape} and groups={groups} do not fit"
        )
    grad_by_group = batched_grad.reshape(N, groups, K // groups, Q)
    weight_by_group = weight.reshape(groups, K // groups, C_per_group, S)
    dx = np.zeros((N, groups, C_per_group, W), grad_out.dtype)
    for t, q, i in _valid_positions(W, S, Q, stride, dilation, pl):
        dx[..., i] += np.einsum("gkc,ngkq->ngcq", weight_by_group[..., t], grad_by_group[..., q])
    return dx.reshape((*grad_out.shape[:-2], groups * C_per_group, W))


def _finish(y, bias, activation):
    if bias is not None:
        y = y + np.asarray(bias).astype(y.dtype)[:, np.newaxis]
    if activation is None:
        return y
    if activation == "relu":
        return np.maximum(y, 0)
    raise ValueError(f'activation should be None or "relu", not {activation!r}')
