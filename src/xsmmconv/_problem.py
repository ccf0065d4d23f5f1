"""Arguments -> ConvProblem: the only place where mistakes in a call are found and named.

Checks come in two layers. The first looks at one argument and settles its *kind* (an integer, an
array, a dtype); it raises TypeError and returns plain Python objects, which can be compared and
hashed without surprises. The second (`forward`, `backward_data`, `backward_weight`, `transposed`)
looks at how shapes and numbers fit each other; it raises ValueError. Neither touches array data.
"""

import contextlib
import math
import operator
import reprlib
from dataclasses import dataclass

import ml_dtypes
import numpy as np

# Extents and parameters stay below 2**40, so that every index of a pass fits into 64 bits.
LIMIT = 2**40
ADDRESS_SPACE = 2**47
DTYPES = tuple(np.dtype(scalar) for scalar in (np.float32, np.float64, ml_dtypes.bfloat16))
PASSES = ("forward", "backward_data", "backward_weight")
_PADDINGS = '"valid", "same" or "causal"'


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution, seen from the forward side whatever the pass.

    ``y[n, k, q] = sum_{c, t} weight[k, c, t] * x[n, c', q*s + t*d - pl]`` with x (N, C, W),
    weight (K, C/g, S) and y (N, K, Q). Every field is consistent with the others. pr is negative
    where a transposed convolution has more output_padding than right padding.
    """

    N: int
    C: int
    K: int
    S: int
    W: int
    Q: int
    s: int
    d: int
    pl: int
    pr: int
    g: int
    dtype: str

    @property
    def x_shape(self):
        return self.N, self.C, self.W

    @property
    def weight_shape(self):
        return self.K, self.C // self.g, self.S

    @property
    def y_shape(self):
        return self.N, self.K, self.Q


# --- kinds: one argument at a time -----------------------------------------------------------


def array(name, value):
    """The argument as a plain ndarray; lists and the like are not converted silently."""
    if type(value) is np.ndarray:
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} should be a numpy.ndarray, not {_kind(value)}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} should not be a masked array: its mask would be ignored")
    return np.asarray(value)


def integer(name, value, expected="an integer"):
    """The argument as an int, if it is one to Python and no bool."""
    if type(value) is int:
        return value
    if not isinstance(value, (bool, np.bool_)):
        try:
            return int(operator.index(value))  # a subclass of int is its own index
        except TypeError:
            pass
    raise TypeError(f"{name} should be {expected}, not {_kind(value)}")


def positive(name, value):
    """The argument as an int from 1 to 2**40 - 1."""
    return _in_range(name, integer(name, value), 1)


def parameters(stride, padding, dilation, groups):
    """The four parameters of every pass as plain ints; padding may also be a pair or a string."""
    if isinstance(padding, (tuple, list)):
        if len(padding) != 2:
            raise ValueError(f"padding should be a pair (left, right), not {_shown(padding)}")
        padding = integer("padding", padding[0]), integer("padding", padding[1])
    elif not isinstance(padding, str):
        padding = integer("padding", padding, f"an integer, a pair of integers, {_PADDINGS}")
    stride, dilation = integer("stride", stride), integer("dilation", dilation)
    return stride, padding, dilation, integer("groups", groups)


def relu(activation):
    """True, for an activation that is not None."""
    if not isinstance(activation, str):
        raise TypeError(f'activation should be None or "relu", not {_kind(activation)}')
    if activation != "relu":
        raise ValueError(f'activation should be None or "relu", not {_shown(activation)}')
    return True


def dtype(value):
    """The argument named dtype as one of the three dtypes."""
    if value is not None:  # which is float64 to np.dtype
        with contextlib.suppress(Exception):  # np.dtype runs foreign code for some objects
            found = np.dtype(value)
            if found in DTYPES:
                return found
    raise TypeError(f"dtype should be float32, float64 or bfloat16, not {_kind(value)}")


def pass_name(value):
    """The argument named pass_ as one of the three names."""
    if not isinstance(value, str):
        raise TypeError(f"pass_ should be one of {PASSES}, not {_kind(value)}")
    if value not in PASSES:
        raise ValueError(f"pass_ should be one of {PASSES}, not {_shown(value)}")
    return value


def shape(name, value):
    """The argument as a tuple of ints."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} should be a tuple of integers, not {_kind(value)}")
    return tuple(_in_range(name, integer(name, extent), 0) for extent in value)


def output(out, shape, dtype, operands):
    """`out` as a plain ndarray that the result may be written to; operands is {name: ndarray}."""
    plain = out if type(out) is np.ndarray else array("out", out)
    if plain.shape != shape or plain.dtype != dtype:
        raise ValueError(
            f"out should have shape {shape} and dtype {dtype}, not {plain.shape} and {plain.dtype}"
        )
    if not plain.flags.carray:
        raise ValueError(
            f"out should be C-contiguous, aligned and writable; it has strides {plain.strides}, "
            f"aligned={plain.flags.aligned}, writeable={plain.flags.writeable}"
        )
    for name, operand in operands.items():
        # Two arrays that both own their memory share none, unless they are the same array.
        apart = operand.base is None and plain.base is None and operand is not plain
        if not apart and np.shares_memory(operand, plain):
            raise ValueError(f"out {shape} should share no memory with {name} {operand.shape}")
    return plain


# --- values: how the arguments fit each other ------------------------------------------------
# `parameters` are stride, padding, dilation, groups; a bias is (shape, dtype) or None. Each
# function returns (problem, shape of the result, dtype of the result).


def forward(x_shape, x_dtype, weight_shape, weight_dtype, bias, *parameters, names=("x", "weight")):
    """conv1d; `plan` knows x and weight by other names."""
    x_name, weight_name = names
    dtype = _common_dtype({x_name: x_dtype, weight_name: weight_dtype}, bias)
    N, C, W = _batched(x_name, x_shape, "CW")
    K, C_per_group, S = _extents(weight_name, weight_shape, "KCS")
    groups = _check_parameters(parameters)
    _check_divides(groups, x_name, x_shape, C)
    _check_divides(groups, weight_name, weight_shape, K)
    if C_per_group != C // groups:
        raise ValueError(
            f"{weight_name} {weight_shape} should have {C // groups} channels per filter, as "
            f"{x_name} {x_shape} has {C} and groups={groups}"
        )
    _check_bias(bias, K)
    problem = _problem(N, C, K, S, W, parameters, dtype, weight_name)
    return problem, _result(x_shape, problem.y_shape, dtype), dtype


def layer(weight, bias, parameters):
    """A layer: what can be said of its arguments before there is an input."""
    bias = None if bias is None else (bias.shape, bias.dtype)
    dtype = _common_dtype({"weight": weight.dtype}, bias)
    K, _, S = _extents("weight", weight.shape, "KCS")
    groups = _check_parameters(parameters)
    _check_divides(groups, "weight", weight.shape, K)
    _check_bias(bias, K)
    stride, padding, dilation, _ = parameters
    _padding(padding, S, stride, dilation)
    return dtype


def planned(x_shape, weight_shape, dtype, parameters):
    """plan: the problem alone; all three arrays of a plan must be possible."""
    names = "x_shape", "weight_shape"
    problem, _, _ = forward(x_shape, dtype, weight_shape, dtype, None, *parameters, names=names)
    for shape in (problem.x_shape, problem.weight_shape, problem.y_shape):
        _check_size(shape, dtype)
    return problem


def backward_data(grad_shape, grad_dtype, weight_shape, weight_dtype, input_width, *parameters):
    """conv1d_backward_data."""
    dtype = _common_dtype({"grad_out": grad_dtype, "weight": weight_dtype})
    N, channels, _ = _batched("grad_out", grad_shape, "KQ")
    K, C_per_group, S = _extents("weight", weight_shape, "KCS")
    groups = _check_parameters(parameters)
    W = _in_range("input_width", input_width, 1)
    if channels != K:
        raise ValueError(
            f"grad_out {grad_shape} has {channels} channels, but weight {weight_shape} has {K} "
            "filters"
        )
    _check_divides(groups, "weight", weight_shape, K)
    problem = _problem(N, groups * C_per_group, K, S, W, parameters, dtype, "input_width")
    _check_output_width(problem, grad_shape, f"input_width={W}")
    return problem, _result(grad_shape, problem.x_shape, dtype), dtype


def backward_weight(
    grad_shape, grad_dtype, x_shape, x_dtype, filter_width, result_dtype, *parameters
):
    """conv1d_backward_weight; result_dtype is its argument dtype."""
    dtype = _common_dtype({"grad_out": grad_dtype, "x": x_dtype})
    if result_dtype is None:
        result_dtype = dtype
    elif result_dtype != dtype and (dtype.name, result_dtype.name) != ("bfloat16", "float32"):
        raise TypeError(f"dtype={result_dtype} cannot be had from operands of dtype {dtype}")
    N, K, _ = _batched("grad_out", grad_shape, "KQ")
    x_N, C, W = _batched("x", x_shape, "CW")
    groups = _check_parameters(parameters)
    S = _in_range("filter_width", filter_width, 1)
    if len(grad_shape) != len(x_shape) or x_N != N:
        raise ValueError(f"grad_out {grad_shape} and x {x_shape} should have the same batch axis")
    _check_divides(groups, "x", x_shape, C)
    _check_divides(groups, "grad_out", grad_shape, K)
    problem = _problem(N, C, K, S, W, parameters, dtype, "filter_width")
    _check_output_width(problem, grad_shape, f"filter_width={S} and x {x_shape}")
    _check_size(problem.weight_shape, result_dtype)
    return problem, problem.weight_shape, result_dtype


def transposed(x_shape, x_dtype, weight_shape, weight_dtype, bias, output_padding, *parameters):
    """conv_transpose1d: the backward-data pass of the convolution whose output has x's shape."""
    dtype = _common_dtype({"x": x_dtype, "weight": weight_dtype}, bias)
    N, channels, Q = _batched("x", x_shape, "CW")
    K, C_per_group, S = _extents("weight", weight_shape, "CKS")
    groups = _check_parameters(parameters)
    s, padding, d, _ = parameters
    if _in_range("output_padding", output_padding, 0) >= max(s, d):
        raise ValueError(
            f"output_padding={output_padding} should be less than the larger of stride={s} and "
            f"dilation={d}"
        )
    if channels != K:
        raise ValueError(f"x {x_shape} has {channels} channels, but weight {weight_shape} {K}")
    _check_divides(groups, "x", x_shape, K)
    C = groups * C_per_group
    _check_bias(bias, C)
    pl, pr = _padding(padding, S, s, d)
    W = (Q - 1) * s - pl - pr + d * (S - 1) + 1 + output_padding
    if W < 1:
        raise ValueError(
            f"padding=({pl}, {pr}) cuts off more than the {W + pl + pr} columns that x {x_shape}, "
            f"weight {weight_shape}, stride={s}, dilation={d} and output_padding={output_padding} "
            "give"
        )
    # With this right padding W leads back to Q, also where output_padding >= stride.
    problem = ConvProblem(N, C, K, S, W, Q, s, d, pl, pr - output_padding, groups, dtype.name)
    return problem, _result(x_shape, problem.x_shape, dtype), dtype


def _problem(N, C, K, S, W, parameters, dtype, fitting):
    """Add padding and output width; `fitting` names the argument that makes the filter too wide."""
    s, padding, d, g = parameters
    pl, pr = _padding(padding, S, s, d)
    span = d * (S - 1) + 1
    if span > W + pl + pr:
        raise ValueError(
            f"{fitting}: a filter of S={S} taps at dilation d={d} spans {span} columns, more than "
            f"the padded input, pl+W+pr = {pl}+{W}+{pr}"
        )
    return ConvProblem(N, C, K, S, W, (W + pl + pr - span) // s + 1, s, d, pl, pr, g, dtype.name)


# --- single rules ----------------------------------------------------------------------------


def _common_dtype(operands, bias=None):
    """The dtype of the operands ({name: dtype}); a bias has it too or is float32."""
    first, dtype = next(iter(operands.items()))
    for name, found in operands.items():
        if found not in DTYPES:
            raise TypeError(f"{name} should be float32, float64 or bfloat16, not {found!r}")
        if found != dtype:
            raise TypeError(f"{first} is {dtype} and {name} is {found}: they should have one dtype")
    if bias is not None and bias[1] not in (dtype, DTYPES[0]):
        raise TypeError(f"bias should be {dtype} like {first}, or float32, not {bias[1]!r}")
    return dtype


def _batched(name, shape, letters):
    """N and the two other extents; an array without batch axis counts as one row."""
    if len(shape) not in (2, 3):
        axes = ", ".join(letters)
        raise ValueError(f"{name} should have shape (N, {axes}) or ({axes}), not {shape}")
    if len(shape) == 2:
        return 1, *_extents(name, shape, letters)
    return _extents(name, shape, "N" + letters)


def _extents(name, shape, letters):
    if len(shape) != len(letters):
        raise ValueError(f"{name} should have {len(letters)} axes, not shape {shape}")
    for letter, extent in zip(letters, shape, strict=True):
        least = 0 if letter == "N" else 1
        if not least <= extent < LIMIT:
            raise ValueError(
                f"{name} {shape}: every axis but N should be at least 1 long, and none 2**40"
            )
    return shape


def _in_range(name, value, least):
    if not least <= value < LIMIT:
        raise ValueError(
            f"{name} should be at least {least} and less than 2**40, not {_shown(value)}"
        )
    return value


def _check_parameters(parameters):
    """Check all but the padding, whose range depends on the problem; return groups."""
    stride, _, dilation, groups = parameters
    _in_range("stride", stride, 1)
    _in_range("dilation", dilation, 1)
    return _in_range("groups", groups, 1)


def _check_divides(groups, name, shape, channels):
    if channels % groups:
        raise ValueError(f"groups={groups} should divide the {channels} channels of {name} {shape}")


def _check_bias(bias, channels):
    if bias is not None and bias[0] != (channels,):
        raise ValueError(f"bias should have shape {(channels,)}, not {bias[0]}")


def _padding(padding, S, s, d):
    """(left, right), each at least 0 and less than 2**40."""
    total = d * (S - 1)
    if isinstance(padding, int):
        sides = padding, padding
    elif isinstance(padding, tuple):
        sides = padding
    elif padding == "valid":
        sides = 0, 0
    elif padding == "causal":
        sides = total, 0
    elif padding == "same":
        if s != 1:
            raise ValueError(f'padding="same" asks for stride=1, not stride={s}')
        sides = total // 2, total - total // 2
    else:
        raise ValueError(
            f"padding should be an integer, a pair of integers, {_PADDINGS}, not {_shown(padding)}"
        )
    return tuple(_in_range("padding", side, 0) for side in sides)


def _check_output_width(problem, grad_shape, given):
    if grad_shape[-1] != problem.Q:
        p = problem
        raise ValueError(
            f"grad_out {grad_shape} has width {grad_shape[-1]}, but {given} lead to Q={p.Q} "
            f"(W={p.W}, S={p.S}, stride={p.s}, dilation={p.d}, padding=({p.pl}, {p.pr}))"
        )


def _result(operand_shape, shape, dtype):
    """The result's shape: with a batch axis if the operand has one."""
    _check_size(shape, dtype)
    return shape[-len(operand_shape) :]


def _check_size(shape, dtype):
    size = math.prod(shape) * dtype.itemsize
    if size >= ADDRESS_SPACE:
        raise ValueError(f"out would have shape {shape}, {size} bytes: more than can be addressed")


def _shown(value):
    """A short repr for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python refuses to print very long integers
        return "a number too long to print"


def _kind(value):
    return f"{_shown(value)} ({type(value).__name__})"
