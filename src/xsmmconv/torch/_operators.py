"""The convolutions as operators of PyTorch, closed under differentiation and vmap.

One trilinear form stands behind them::

    T(x, weight, y) = sum_{n, k, c, t, q} weight[k, c, t] * x[n, c', q*s + t*d - pl] * y[n, k, q]

Its gradient with respect to y is `conv1d` (of x and weight), with respect to x it is
`conv_transpose1d` (of y and weight), with respect to weight `conv1d_backward_weight` (of y and x).
Since T is linear in each argument, the derivative of one of the three by an operand is another of
the three, with the incoming gradient in the operand's place. Autograd needs to know no more, to
any order.

The kernels are the functions of xsmmconv on the tensors' memory; nothing is copied, and results lie
in memory that xsmmconv recycles.
"""

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

import xsmmconv
from xsmmconv import _problem

DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
}


def _array(tensor):
    """The tensor's memory as an array."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # unknown to NumPy itself: the same bits by another name
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _tensor(array):
    """The array's memory as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    # Without elements, NumPy's strides are not those that fake kernels promise.
    return tensor if array.size else tensor.new_empty(array.shape)


# --- the three operators ---------------------------------------------------------------------
# They take rows with a batch axis and padding as [left, right]; `_functional` sees to that.


@torch.library.custom_op("xsmmconv::conv1d", mutates_args=(), device_types="cpu")
def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: list[int],
    dilation: int,
    groups: int,
    relu: bool,
) -> Tensor:
    y = xsmmconv.conv1d(
        _array(x),
        _array(weight),
        None if bias is None else _array(bias),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation="relu" if relu else None,
        threads=torch.get_num_threads(),
    )
    return _tensor(y)


@torch.library.custom_op("xsmmconv::conv_transpose1d", mutates_args=(), device_types="cpu")
def conv_transpose1d(
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: list[int],
    dilation: int,
    groups: int,
    relu: bool,
    output_padding: int,
) -> Tensor:
    x = xsmmconv.conv_transpose1d(
        _array(y),
        _array(weight),
        None if bias is None else _array(bias),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        activation="relu" if relu else None,
        threads=torch.get_num_threads(),
    )
    return _tensor(x)


@torch.library.custom_op("xsmmconv::conv1d_backward_weight", mutates_args=(), device_types="cpu")
def conv1d_backward_weight(
    y: Tensor,
    x: Tensor,
    filter_width: int,
    stride: int,
    padding: list[int],
    dilation: int,
    groups: int,
) -> Tensor:
    weight = xsmmconv.conv1d_backward_weight(
        _array(y),
        _array(x),
        filter_width,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        threads=torch.get_num_threads(),
    )
    return _tensor(weight)


# --- fake kernels: the checks of the real ones, and an empty result ----------------------------


def _dtype(name, tensor):
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} should be float32, float64 or bfloat16, not {tensor.dtype}")
    return DTYPES[tensor.dtype]


def _facts(**tensors):
    """Shape and dtype of each tensor in turn, as `_problem` wants them."""
    return [fact for name, v in tensors.items() for fact in (tuple(v.shape), _dtype(name, v))]


def _bias_facts(bias):
    return None if bias is None else tuple(_facts(bias=bias))


@conv1d.register_fake
def _(x, weight, bias, stride, padding, dilation, groups, relu):
    parameters = stride, tuple(padding), dilation, groups
    operands = _facts(x=x, weight=weight)
    _, shape, _ = _problem.forward(*operands, _bias_facts(bias), *parameters)
    return x.new_empty(shape)


@conv_transpose1d.register_fake
def _(y, weight, bias, stride, padding, dilation, groups, relu, output_padding):
    parameters = stride, tuple(padding), dilation, groups
    operands = _facts(x=y, weight=weight)  # y is the x of whoever calls a transposed convolution
    _, shape, _ = _problem.transposed(*operands, _bias_facts(bias), output_padding, *parameters)
    return y.new_empty(shape)


@conv1d_backward_weight.register_fake
def _(y, x, filter_width, stride, padding, dilation, groups):
    parameters = stride, tuple(padding), dilation, groups
    operands = _facts(grad_out=y, x=x)
    _, shape, _ = _problem.backward_weight(*operands, filter_width, None, *parameters)
    return y.new_empty(shape)


# --- derivatives -----------------------------------------------------------------------------
# An operand is kept only if the derivative by the other one is wanted, and a result only if its
# zeros tell where ReLU cut. `parameters` are stride, padding, dilation, groups.


def _setup_biased(ctx, inputs, output):
    """For conv1d and conv_transpose1d, whose arguments begin alike."""
    operand, weight, bias, *ctx.parameters, ctx.relu = inputs[:8]
    by_operand, by_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(
        operand if by_weight else None,
        weight if by_operand else None,
        output if ctx.relu else None,
    )
    ctx.width, ctx.filter_width = operand.shape[-1], weight.shape[-1]
    ctx.bias_dtype = None if bias is None else bias.dtype


def _before_relu(ctx, grad, output):
    """The gradient by the biased sum, and by the bias."""
    if ctx.relu:
        grad = torch.ops.aten.threshold_backward(grad, output.detach(), 0)
    return grad, grad.sum((0, 2), dtype=ctx.bias_dtype) if ctx.needs_input_grad[2] else None


def _columns_beyond(ctx):
    """How many columns of x lie behind the last one that a filter reaches."""
    stride, (left, right), dilation, _ = ctx.parameters
    return (ctx.width + left + right - dilation * (ctx.filter_width - 1) - 1) % stride


def _conv1d_backward(ctx, grad):
    x, weight, y = ctx.saved_tensors
    grad, grad_bias = _before_relu(ctx, grad, y)
    grad_x = grad_weight = None
    if ctx.needs_input_grad[0]:
        beyond = _columns_beyond(ctx)
        grad_x = conv_transpose1d(grad, weight, None, *ctx.parameters, False, beyond)
    if ctx.needs_input_grad[1]:
        grad_weight = conv1d_backward_weight(grad, x, ctx.filter_width, *ctx.parameters)
    return grad_x, grad_weight, grad_bias, None, None, None, None, None


def _conv_transpose1d_backward(ctx, grad):
    y, weight, x = ctx.saved_tensors
    grad, grad_bias = _before_relu(ctx, grad, x)
    grad_y = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_y = conv1d(grad, weight, None, *ctx.parameters, False)
    if ctx.needs_input_grad[1]:
        grad_weight = conv1d_backward_weight(y, grad, ctx.filter_width, *ctx.parameters)
    return grad_y, grad_weight, grad_bias, None, None, None, None, None, None


def _setup_backward_weight(ctx, inputs, output):
    y, x, ctx.filter_width, *ctx.parameters = inputs
    by_y, by_x = ctx.needs_input_grad[:2]
    ctx.save_for_backward(y if by_x else None, x if by_y else None)
    ctx.width = x.shape[-1]


def _conv1d_backward_weight_backward(ctx, grad):
    y, x = ctx.saved_tensors
    grad_y = grad_x = None
    if ctx.needs_input_grad[0]:
        grad_y = conv1d(x, grad, None, *ctx.parameters, False)
    if ctx.needs_input_grad[1]:
        beyond = _columns_beyond(ctx)
        grad_x = conv_transpose1d(y, grad, None, *ctx.parameters, False, beyond)
    return grad_y, grad_x, None, None, None, None, None


conv1d.register_autograd(_conv1d_backward, setup_context=_setup_biased)
conv_transpose1d.register_autograd(_conv_transpose1d_backward, setup_context=_setup_biased)
conv1d_backward_weight.register_autograd(
    _conv1d_backward_weight_backward, setup_context=_setup_backward_weight
)


# --- vmap: many convolutions are one with more rows, or with more groups -------------------------


def _fold(tensor, dim, axis, size):
    """Merge the mapped dimension into `axis`; a tensor without one counts for all."""
    if tensor is None:
        return None
    if dim is None:
        tensor = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        tensor = tensor.movedim(dim, axis)
    return tensor.flatten(axis, axis + 1)


def _unfold(tensor, axis, size):
    return tensor.unflatten(axis, (size, tensor.shape[axis] // size)), axis


def _vmap_biased(operator):
    def rule(info, in_dims, operand, weight, bias, stride, padding, dilation, groups, *rest):
        size, (operand_dim, weight_dim, bias_dim) = info.batch_size, in_dims[:3]
        axis = 0 if weight_dim is None and bias_dim is None else 1
        operand = _fold(operand, operand_dim, axis, size)
        if axis == 1:
            weight, bias = _fold(weight, weight_dim, 0, size), _fold(bias, bias_dim, 0, size)
            groups *= size
        result = operator(operand, weight, bias, stride, padding, dilation, groups, *rest)
        return _unfold(result, axis, size)

    return rule


def _vmap_backward_weight(info, in_dims, y, x, filter_width, stride, padding, dilation, groups):
    size = info.batch_size
    y, x = _fold(y, in_dims[0], 1, size), _fold(x, in_dims[1], 1, size)
    groups *= size
    result = conv1d_backward_weight(y, x, filter_width, stride, padding, dilation, groups)
    return _unfold(result, 0, size)


conv1d.register_vmap(_vmap_biased(conv1d))
conv_transpose1d.register_vmap(_vmap_biased(conv_transpose1d))
conv1d_backward_weight.register_vmap(_vmap_backward_weight)

for _operator in (conv1d, conv_transpose1d, conv1d_backward_weight):
    _operator.register_autocast("cpu", torch.bfloat16)
