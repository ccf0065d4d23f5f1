"""Convolutions by their definition, in plain NumPy and float64: slow, short, and meant to be read.

All functions evaluate one relation between positions::

    y[n, k, q] = sum_{c, t} weight[k, c, t] * x[n, c, q*s + t*d - pl]      0 <= q*s + t*d - pl < W

For each tap t they look up the pairs (q, i = q*s + t*d - pl) with i inside the row, and multiply
those and no others. A padding zero is therefore never multiplied: Inf and NaN arrive exactly where
the sum above sends them. The sums are `numpy.einsum` without BLAS for the same reason.

Operands are array_like and of any real dtype. Whatever it is, the arithmetic and the result are
float64 (numpy.longdouble if an operand is).

Of the rest of the package, which it is to judge, the module uses the checks of the arguments alone:
they can refuse a call and cannot change a result.
"""

import contextlib

import numpy as np

from xsmmconv import _problem

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
    TypeError
        If an operand does not hold real numbers or is a masked array, a parameter is no integer, or
        padding or activation is of another kind.
    ValueError
        If the shapes do not fit each other, a parameter is out of range, the filter is wider than
        the padded input, or padding or activation is an unknown string.

    Examples
    --------
    >>> conv1d([[1, 2, 3, 4]], [[[10, 1]]])
    array([[12., 23., 34.]])
    >>> conv1d([[1, 2, 3, 4]], [[[10, 1]]], [-30], padding="same", activation="relu")
    array([[ 0.,  0.,  4., 10.]])
    """
    x, weight = _real("x", x), _real("weight", weight)
    bias, relu = _bias_and_relu(bias, activation)
    parameters = _problem.parameters(stride, padding, dilation, groups)
    stride, padding, dilation, groups = parameters
    _problem.forward(*_described(x), *_described(weight), _described(bias), *parameters)

    x, weight = _widen(x, weight)
    batched_x = _batched(x)
    N, _, W = batched_x.shape
    K, C_per_group, S = weight.shape
    pl, pr = _padding(padding, S, dilation)
    Q = (W + pl + pr - dilation * (S - 1) - 1) // stride + 1

    x_by_group = batched_x.reshape(N, groups, C_per_group, W)
    weight_by_group = weight.reshape(groups, K // groups, C_per_group, S)
    y = np.zeros((N, groups, K // groups, Q), x.dtype)
    for t, q, i in _valid_positions(W, S, Q, stride, dilation, pl):
        y[..., q] += np.einsum("gkc,ngcq->ngkq", weight_by_group[..., t], x_by_group[..., i])
    return _finish(y.reshape(N, K, Q), bias, relu).reshape((*x.shape[:-2], K, Q))


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
    TypeError
        As in `conv1d`, also if `input_width` is no integer.
    ValueError
        As in `conv1d`, also if `input_width` does not lead to Q.

    Examples
    --------
    >>> conv1d_backward_data([[1, 2]], [[[10, 1]]], 5, stride=3)
    array([[10.,  1.,  0., 20.,  2.]])
    """
    grad_out, weight = _real("grad_out", grad_out), _real("weight", weight)
    W = _problem.integer("input_width", input_width)
    parameters = _problem.parameters(stride, padding, dilation, groups)
    _problem.backward_data(*_described(grad_out), *_described(weight), W, *parameters)
    return _transposed(grad_out, weight, W, *parameters)


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
    TypeError
        As in `conv1d`, also if `filter_width` is no integer.
    ValueError
        As in `conv1d`, also if `filter_width` does not lead to Q.

    Examples
    --------
    >>> conv1d_backward_weight([[1, 10, 100]], [[1, 2, 3, 4]], 2)
    array([[[321., 432.]]])
    """
    grad_out, x = _real("grad_out", grad_out), _real("x", x)
    S = _problem.integer("filter_width", filter_width)
    parameters = _problem.parameters(stride, padding, dilation, groups)
    stride, padding, dilation, groups = parameters
    _problem.backward_weight(*_described(grad_out), *_described(x), S, None, *parameters)

    grad_out, x = map(_batched, _widen(grad_out, x))
    N, K, Q = grad_out.shape
    C, W = x.shape[1:]
    pl, _ = _padding(padding, S, dilation)
    grad_by_group = grad_out.reshape(N, groups, K // groups, Q)
    x_by_group = x.reshape(N, groups, C // groups, W)
    dw = np.zeros((groups, K // groups, C // groups, S), x.dtype)
    for t, q, i in _valid_positions(W, S, Q, stride, dilation, pl):
        dw[..., t] = np.einsum("ngkq,ngcq->gkc", grad_by_group[..., q], x_by_group[..., i])
    return dw.reshape(K, C // groups, S)


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
        Positions added at the right end of the output; less than the larger of stride and dilation.

    Returns
    -------
    numpy.ndarray, shape (N, K, V) or (K, V), float64
        V = (W-1)*stride - left - right + dilation*(S-1) + 1 + output_padding.

    Raises
    ------
    TypeError
        As in `conv1d`, also if `output_padding` is no integer.
    ValueError
        As in `conv1d`, also if no output position is left.

    Examples
    --------
    >>> conv_transpose1d([[1, 2, 3]], [[[10, 1]]], stride=2, output_padding=1)
    array([[10.,  1., 20.,  2., 30.,  3.,  0.]])
    """
    x, weight = _real("x", x), _real("weight", weight)
    bias, relu = _bias_and_relu(bias, activation)
    added = _problem.integer("output_padding", output_padding)
    parameters = _problem.parameters(stride, padding, dilation, groups)
    stride, padding, dilation, _ = parameters
    _problem.transposed(*_described(x), *_described(weight), _described(bias), added, *parameters)

    W, S = x.shape[-1], weight.shape[-1]
    pl, pr = _padding(padding, S, dilation)
    width = (W - 1) * stride - pl - pr + dilation * (S - 1) + 1 + added
    return _finish(_transposed(x, weight, width, *parameters), bias, relu)


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

    Raises
    ------
    TypeError
        If an argument does not hold real numbers, or dtype is none of the three.
    ValueError
        If the shapes cannot be broadcast to one.

    Examples
    --------
    >>> float(error_bound(1.0, 1.0, 8, "float32")) == 8 * 2**-24
    True
    """
    dtype = _problem.dtype(dtype)
    expected, magnitude = _real("expected", expected), _real("magnitude", magnitude)
    terms = _real("terms", terms)
    try:
        np.broadcast_shapes(expected.shape, magnitude.shape, terms.shape)
    except ValueError:
        raise ValueError(
            f"expected {expected.shape}, magnitude {magnitude.shape} and terms {terms.shape} do "
            "not broadcast"
        ) from None
    unit_roundoff = 2.0**-53 if dtype == np.float64 else 2.0**-24
    bound = np.multiply(terms, unit_roundoff) * magnitude.astype(np.float64)
    if dtype.name == "bfloat16":
        # 8 significant bits, so half a unit in the last place of m*2^e, 1/2 <= m < 1, is 2^(e-9).
        _, exponent = np.frexp(np.abs(expected).astype(np.float64) + bound)
        bound = bound + np.ldexp(1.0, exponent - 9)
    return bound


def _real(name, value):
    """The array_like argument as an array of real numbers."""
    if isinstance(value, np.ndarray):
        array = _problem.array(name, value)
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"{name} should be array_like: {error}") from None
    with contextlib.suppress(TypeError):  # no dtype holds these and real numbers
        if np.result_type(np.float64, array).kind == "f":
            return array
    raise TypeError(f"{name} should hold real numbers, not {array.dtype}")


def _widen(*operands):
    """The operands in one dtype: float64, or longdouble if one of them is."""
    wide = np.result_type(np.float64, *operands)
    return [operand.astype(wide) for operand in operands]


def _bias_and_relu(bias, activation):
    """The bias as an array, if there is one, and whether there is an activation."""
    bias = None if bias is None else _real("bias", bias)
    return bias, activation is not None and _problem.relu(activation)


def _described(array):
    """The shape and the dtype for the checks, which know but three dtypes; None of no bias."""
    return None if array is None else (array.shape, np.dtype(np.float64))


def _batched(x):
    return x if x.ndim == 3 else x[np.newaxis]


def _padding(padding, S, dilation):
    total = dilation * (S - 1)
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return total, 0
    if padding == "same":
        return total // 2, total - total // 2
    return padding if isinstance(padding, tuple) else (padding, padding)


def _valid_positions(W, S, Q, stride, dilation, pl):
    """Yield, for each tap that reaches the row, the output and the input positions it connects."""
    q = np.arange(Q)
    for t in range(S):
        i = q * stride + t * dilation - pl
        inside = np.flatnonzero((i >= 0) & (i < W))
        if inside.size:
            first, last = inside[0], inside[-1]
            yield t, slice(first, last + 1), slice(i[first], i[last] + 1, stride)


def _transposed(grad_out, weight, W, stride, padding, dilation, groups):
    grad_out, weight = _widen(grad_out, weight)
    batched_grad = _batched(grad_out)
    N, K, Q = batched_grad.shape
    C_per_group, S = weight.shape[1:]
    pl, _ = _padding(padding, S, dilation)
    grad_by_group = batched_grad.reshape(N, groups, K // groups, Q)
    weight_by_group = weight.reshape(groups, K // groups, C_per_group, S)
    dx = np.zeros((N, groups, C_per_group, W), grad_out.dtype)
    for t, q, i in _valid_positions(W, S, Q, stride, dilation, pl):
        dx[..., i] += np.einsum("gkc,ngkq->ngcq", weight_by_group[..., t], grad_by_group[..., q])
    return dx.reshape((*grad_out.shape[:-2], groups * C_per_group, W))


def _finish(y, bias, relu):
    if bias is not None:
        y = y + bias.astype(y.dtype)[:, np.newaxis]
    return np.maximum(y, 0) if relu else y
