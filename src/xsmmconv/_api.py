"""The public functions and what they promise; `_call` carries them out."""

from xsmmconv import _config, _problem, _threads


def conv1d(
    x,
    weight,
    bias=None,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    out=None,
    threads=None,
):
    """Convolve rows with filters (cross-correlation, as in every neural-network library).

    ``y[n, k, q] = bias[k] + sum_{c, t} weight[k, c, t] * x[n, c', q*stride + t*dilation - left]``

    with c' the c-th channel of the group that filter k belongs to. The sum is over the taps whose
    position lies inside the row: padding is not read, and no zero is multiplied in its place.

    Parameters
    ----------
    x : numpy.ndarray, shape (N, C, W) or (C, W)
        Input: N rows of C channels, W wide. float32, float64 or bfloat16 (`ml_dtypes.bfloat16`),
        with any strides and any alignment. N may be 0.
    weight : numpy.ndarray, shape (K, C/groups, S)
        K filters of S taps, in the dtype of x.
    bias : numpy.ndarray, shape (K,), optional
        Added to every output position. In the dtype of x, or float32.
    stride : int, default 1
        Distance between the input positions of neighbouring outputs.
    padding : int, (int, int), "valid", "same" or "causal", default 0
        How many positions beyond the row the filter may reach: one number for both sides, or
        (left, right). "valid" is 0; "same" keeps the width at stride 1 (an odd total has its extra
        position on the right); "causal" is dilation*(S-1) on the left, so that no output depends on
        later inputs.
    dilation : int, default 1
        Distance between the input positions of neighbouring taps.
    groups : int, default 1
        Number of independent convolutions that channels and filters are divided into, in order.
    activation : {None, "relu"}, default None
        "relu" stores max(y, 0), and NaN where y is NaN.
    out : numpy.ndarray, shape (N, K, Q) or (K, Q), optional
        Where to write the result: in the dtype of x, C-contiguous, aligned, writable, and sharing
        no memory with the other arrays. A call that raises leaves it untouched.
    threads : int, optional
        At most how many threads to use; default `get_num_threads`. The result does not depend on
        it, to the last bit.

    Returns
    -------
    numpy.ndarray, shape (N, K, Q) or (K, Q)
        In the dtype of x; `out` itself if it was given.
        Q = floor((W + left + right - dilation*(S-1) - 1) / stride) + 1.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind or dtype.
    ValueError
        If shapes and numbers do not fit each other, or `out` is not as described. The message
        names the arguments and shows both sides.
    UnsupportedError
        If this machine cannot run the kernels.
    MemoryError
        If there is no memory for the result.

    See Also
    --------
    conv1d_backward_data, conv1d_backward_weight : The gradients.
    conv_transpose1d : The transposed convolution.
    plan : Shows how a convolution will be computed.

    Notes
    -----
    Sums are accumulated in the operands' dtype, those of bfloat16 in float32, and rounded once.
    The computation is the batch-reduce matrix product of [1]_; leaving out the taps that fall into
    the padding is the trimming of [2]_.

    References
    ----------
    .. [1] N. Chaudhary et al., "Efficient and Generic 1D Dilated Convolution Layer for Deep
       Learning", arXiv:2104.08002, 2021.
    .. [2] Z. Zhang et al., "Reduce Computational Complexity for Convolutional Layers by Skipping
       Zeros", arXiv:2306.15951, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> import xsmmconv
    >>> x = np.array([[1, 2, 3, 4]], np.float32)
    >>> weight = np.array([[[10, 1]]], np.float32)
    >>> xsmmconv.conv1d(x, weight)
    array([[12., 23., 34.]], dtype=float32)
    >>> bias = np.array([-30], np.float32)
    >>> xsmmconv.conv1d(x, weight, bias, padding="same", activation="relu")
    array([[ 0.,  0.,  4., 10.]], dtype=float32)
    """
    parameters = stride, padding, dilation, groups
    return _config.calls().forward(x, weight, bias, parameters, activation, out, threads)


def conv1d_backward_data(
    grad_out,
    weight,
    input_width,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    out=None,
    threads=None,
):
    """Gradient of `conv1d` with respect to its input.

    ``dx[n, c, i] = sum_{k, t, q} weight[k, c', t] * grad_out[n, k, q]``

    over the taps t and output positions q with ``q*stride + t*dilation - left == i`` and the
    filters k of c's group. With a stride, every residue class of i meets its own subset of the
    taps; no zero is inserted between the gradients. Positions that no tap reaches are exact zeros.

    Parameters
    ----------
    grad_out : numpy.ndarray, shape (N, K, Q) or (K, Q)
        Gradient with respect to the output of `conv1d`. float32, float64 or bfloat16.
    weight : numpy.ndarray, shape (K, C/groups, S)
        The filters, in the dtype of grad_out.
    input_width : int
        W, the width of x, which Q does not tell if the stride is above 1.
    stride, padding, dilation, groups
        As in the call of `conv1d`.
    out : numpy.ndarray, shape (N, C, W) or (C, W), optional
        Where to write the result; conditions as in `conv1d`.
    threads : int, optional
        As in `conv1d`.

    Returns
    -------
    numpy.ndarray, shape (N, C, W) or (C, W)
        In the dtype of grad_out; `out` itself if it was given.

    Raises
    ------
    TypeError, ValueError, UnsupportedError, MemoryError
        As in `conv1d`; ValueError also if input_width does not lead to the width of grad_out.

    See Also
    --------
    conv1d, conv1d_backward_weight
    conv_transpose1d : The same map, as a layer.

    Notes
    -----
    The splitting of the filter by residue classes is the kernel split of arXiv:2306.15951.

    Examples
    --------
    >>> import numpy as np
    >>> import xsmmconv
    >>> grad_out = np.array([[1, 2]], np.float32)
    >>> weight = np.array([[[10, 1]]], np.float32)
    >>> xsmmconv.conv1d_backward_data(grad_out, weight, 5, stride=3)
    array([[10.,  1.,  0., 20.,  2.]], dtype=float32)
    """
    parameters = stride, padding, dilation, groups
    calls = _config.calls()
    return calls.backward_data(grad_out, weight, input_width, parameters, out, threads)


def conv1d_backward_weight(
    grad_out,
    x,
    filter_width,
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    dtype=None,
    out=None,
    threads=None,
):
    """Gradient of `conv1d` with respect to its weight.

    ``dw[k, c, t] = sum_{n, q} grad_out[n, k, q] * x[n, c', q*stride + t*dilation - left]``

    over the batch and the positions inside the row. A tap that reaches no position has the
    gradient zero. The gradient of the bias is ``grad_out.sum(axis=(0, 2))``.

    Parameters
    ----------
    grad_out : numpy.ndarray, shape (N, K, Q) or (K, Q)
        Gradient with respect to the output of `conv1d`. float32, float64 or bfloat16.
    x : numpy.ndarray, shape (N, C, W) or (C, W)
        The input, in the dtype of grad_out.
    filter_width : int
        S, the number of taps, which the other widths do not tell if the stride is above 1.
    stride, padding, dilation, groups
        As in the call of `conv1d`.
    dtype : dtype_like, optional
        Of the result. Default: that of the operands. bfloat16 operands may also have the float32
        gradient, as accumulated, without rounding.
    out : numpy.ndarray, shape (K, C/groups, S), optional
        Where to write the result; in its dtype, other conditions as in `conv1d`.
    threads : int, optional
        As in `conv1d`.

    Returns
    -------
    numpy.ndarray, shape (K, C/groups, S)
        `out` itself if it was given. Zeros if N is 0.

    Raises
    ------
    TypeError, ValueError, UnsupportedError, MemoryError
        As in `conv1d`; ValueError also if filter_width does not lead to the width of grad_out.

    See Also
    --------
    conv1d, conv1d_backward_data

    Notes
    -----
    Long sums are split into chunks that depend on the problem alone and are added in a fixed
    order, so the result is bitwise the same for every number of threads. Without the zeros of a
    dilated gradient (arXiv:2306.15951), a stride costs nothing extra.

    Examples
    --------
    >>> import numpy as np
    >>> import xsmmconv
    >>> grad_out = np.array([[1, 10, 100]], np.float32)
    >>> x = np.array([[1, 2, 3, 4]], np.float32)
    >>> xsmmconv.conv1d_backward_weight(grad_out, x, 2)
    array([[[321., 432.]]], dtype=float32)
    """
    parameters = stride, padding, dilation, groups
    calls = _config.calls()
    return calls.backward_weight(grad_out, x, filter_width, parameters, dtype, out, threads)


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
    out=None,
    threads=None,
):
    """Transposed convolution: the adjoint of `conv1d`, with a bias of its own.

    ``y[n, k, i] = bias[k] + sum_{c, t, q} weight[c, k', t] * x[n, c, q]``

    over the taps t and input positions q with ``q*stride + t*dilation - left == i`` and the
    channels c of k's group. Positions that no tap reaches hold the bias.

    Parameters
    ----------
    x : numpy.ndarray, shape (N, C, W) or (C, W)
        Input. float32, float64 or bfloat16.
    weight : numpy.ndarray, shape (C, K/groups, S)
        The filters, in the dtype of x.
    bias : numpy.ndarray, shape (K,), optional
        Added to every output position. In the dtype of x, or float32.
    stride : int, default 1
        Distance between the output positions that neighbouring inputs contribute to.
    padding : int, (int, int), "valid", "same" or "causal", default 0
        That of the convolution this is the adjoint of: positions cut off the left and the right
        end of the output. Strings mean the same (left, right) as in `conv1d`.
    output_padding : int, default 0
        Positions added at the right end; less than the larger of stride and dilation.
    dilation : int, default 1
        Distance between the output positions of neighbouring taps.
    groups : int, default 1
        As in `conv1d`.
    activation : {None, "relu"}, default None
        As in `conv1d`.
    out : numpy.ndarray, shape (N, K, V) or (K, V), optional
        Where to write the result; conditions as in `conv1d`.
    threads : int, optional
        As in `conv1d`.

    Returns
    -------
    numpy.ndarray, shape (N, K, V) or (K, V)
        In the dtype of x; `out` itself if it was given.
        V = (W-1)*stride - left - right + dilation*(S-1) + 1 + output_padding.

    Raises
    ------
    TypeError, ValueError, UnsupportedError, MemoryError
        As in `conv1d`; ValueError also if the padding leaves no output position.

    See Also
    --------
    conv1d
    conv1d_backward_data : The same map, for gradients.

    Notes
    -----
    No zero is inserted between the inputs: each residue class of output positions modulo the
    stride is a dense convolution with its share of the taps (arXiv:2306.15951).

    Examples
    --------
    >>> import numpy as np
    >>> import xsmmconv
    >>> x = np.array([[1, 2, 3]], np.float32)
    >>> weight = np.array([[[10, 1]]], np.float32)
    >>> xsmmconv.conv_transpose1d(x, weight, stride=2, output_padding=1)
    array([[10.,  1., 20.,  2., 30.,  3.,  0.]], dtype=float32)
    """
    parameters = stride, padding, dilation, groups
    return _config.calls().transposed(
        x, weight, bias, output_padding, parameters, activation, out, threads
    )


def plan(
    pass_,
    x_shape,
    weight_shape,
    dtype="float32",
    *,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    threads=None,
):
    """Show how one pass of a convolution will be computed, without computing it.

    Parameters
    ----------
    pass_ : {"forward", "backward_data", "backward_weight"}
        The pass: `conv1d`, `conv1d_backward_data` or `conv1d_backward_weight`.
    x_shape : tuple of int, (N, C, W) or (C, W)
        Shape of x in `conv1d`, whatever the pass.
    weight_shape : tuple of int, (K, C/groups, S)
        Shape of weight in `conv1d`, whatever the pass.
    dtype : dtype_like, default "float32"
        Of the operands: float32, float64 or bfloat16.
    stride, padding, dilation, groups
        As in `conv1d`.
    threads : int, optional
        As in `conv1d`. The plan is the same for every number of threads.

    Returns
    -------
    Plan
        With `multiply_adds`, their number N * K * C/groups * E, where E counts the pairs of an
        output position and a tap that reaches the input; `output_shape`; `describe()`, a text that
        shows tiles, taps, kernels and memory; and `issued_multiply_adds()`, which executes the plan
        on zeros and counts what the kernels were asked to do.

    Raises
    ------
    TypeError, ValueError, UnsupportedError
        As in `conv1d`.

    See Also
    --------
    conv1d, conv1d_backward_data, conv1d_backward_weight

    Notes
    -----
    E = #{(q, t) : 0 <= q*stride + t*dilation - left < W} is the same for all three passes. That no
    multiplication beyond these is issued is the claim of arXiv:2306.15951.

    Examples
    --------
    >>> import xsmmconv
    >>> same = xsmmconv.plan("forward", (1, 15, 1000), (15, 15, 51), dilation=8, padding="same")
    >>> same.output_shape
    (1, 15, 1000)
    >>> same.multiply_adds == 15 * 15 * (51 * 1000 - 8 * 25 * 26)
    True
    """
    pass_ = _problem.pass_name(pass_)
    x_shape = _problem.shape("x_shape", x_shape)
    weight_shape = _problem.shape("weight_shape", weight_shape)
    dtype = _problem.dtype(dtype)
    parameters = _problem.parameters(stride, padding, dilation, groups)
    _threads.resolve(threads)
    problem = _problem.planned(x_shape, weight_shape, dtype, parameters)
    found = _config.core().get_plan(pass_, problem)
    if len(x_shape) == 2 and pass_ != "backward_weight":
        return found.with_output_shape(found.output_shape[1:])
    return found
