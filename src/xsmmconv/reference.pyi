from typing import Any

from numpy.typing import ArrayLike, DTypeLike, NDArray

from xsmmconv import _Activation, _Padding

__all__ = [
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv_transpose1d",
    "error_bound",
]

# The results are float64, or numpy.longdouble if an operand is.
def conv1d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: _Padding = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: _Activation = None,
) -> NDArray[Any]: ...
def conv1d_backward_data(
    grad_out: ArrayLike,
    weight: ArrayLike,
    input_width: int,
    *,
    stride: int = 1,
    padding: _Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> NDArray[Any]: ...
def conv1d_backward_weight(
    grad_out: ArrayLike,
    x: ArrayLike,
    filter_width: int,
    *,
    stride: int = 1,
    padding: _Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> NDArray[Any]: ...
def conv_transpose1d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: _Padding = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    activation: _Activation = None,
) -> NDArray[Any]: ...
def error_bound(
    expected: ArrayLike, magnitude: ArrayLike, terms: ArrayLike, dtype: DTypeLike
) -> NDArray[Any]: ...
