"""Typical uses, as `mypy --strict` should see them; the lint job and the commit hook run it.

The lines that end in `type: ignore` are mistakes: mypy reports an ignore that nothing needs.
"""

from typing import Any, assert_type

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import xsmmconv

x = np.ones((2, 4, 100), np.float32)
weight = np.ones((6, 2, 5), np.float32)
bias = np.ones(6, np.float32)

y = xsmmconv.conv1d(x, weight, bias, padding="same", groups=2, activation="relu")
assert_type(y, NDArray[np.float32])
assert_type(xsmmconv.conv1d(x, weight, groups=np.int64(2), padding=(4, 0)), NDArray[np.float32])
xsmmconv.conv1d(x, weight, groups=2, padding=[2, 2], out=y, threads=1)

grad_x = xsmmconv.conv1d_backward_data(y, weight, x.shape[2], padding="same", groups=2)
assert_type(grad_x, NDArray[np.float32])
grad_weight = xsmmconv.conv1d_backward_weight(y, x, 5, padding="same", groups=2)
assert_type(grad_weight, NDArray[np.float32])
assert_type(
    xsmmconv.conv_transpose1d(y, weight, stride=2, output_padding=1, groups=2),
    NDArray[np.float32],
)

wide_x, wide_weight = x.astype(np.float64), weight.astype(np.float64)
assert_type(xsmmconv.conv1d(wide_x, wide_weight, bias, groups=2), NDArray[np.float64])

half_x, half_weight = x.astype(ml_dtypes.bfloat16), weight.astype(ml_dtypes.bfloat16)
half_y = xsmmconv.conv1d(half_x, half_weight, bias, groups=2)
assert_type(half_y, NDArray[Any])
assert_type(
    xsmmconv.conv1d_backward_weight(half_y, half_x, 5, groups=2, dtype=np.float32),
    NDArray[np.float32],
)
assert_type(
    xsmmconv.conv1d_backward_weight(half_y, half_x, 5, groups=2, dtype="float32"), NDArray[Any]
)

layer = xsmmconv.Conv1d(weight, bias, padding="same", groups=2)
assert_type(layer(x), NDArray[np.float32])
assert_type(layer.backward_data(y, 100), NDArray[np.float32])
assert_type(layer.weight, NDArray[np.float32])

plan = xsmmconv.plan("forward", x.shape, weight.shape, ml_dtypes.bfloat16, groups=2)
assert_type(plan.describe(), str)
assert_type(plan.multiply_adds, int)
assert_type(plan.issued_multiply_adds(), int)
shape: tuple[int, ...] = plan.output_shape

expected = xsmmconv.reference.conv1d(x, weight.tolist(), groups=2)
bound = xsmmconv.reference.error_bound(expected, np.abs(expected), 10, np.float32)
assert_type(bound, NDArray[Any])

xsmmconv.set_num_threads(2)
assert_type(xsmmconv.get_num_threads(), int)
assert_type(xsmmconv.__version__, str)
failure: RuntimeError = xsmmconv.UnsupportedError("message")


def mistakes() -> None:
    xsmmconv.conv1d(x, weight, padding="full")  # type: ignore[arg-type]
    xsmmconv.conv1d(x, weight, bias, 2)  # type: ignore[call-arg]
    xsmmconv.conv1d(x.tolist(), weight)  # type: ignore[arg-type]
    xsmmconv.conv1d(x, weight, stride=2.0)  # type: ignore[arg-type]
    xsmmconv.conv1d(x, weight, activation="gelu")  # type: ignore[arg-type]
    xsmmconv.plan("backward", x.shape, weight.shape)  # type: ignore[arg-type]
    layer(wide_x)  # type: ignore[arg-type]
