from typing import Any, Literal, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xsmmconv import reference as reference
from xsmmconv._plan import Plan
from xsmmconv.layers import Conv1d as Conv1d

__all__ = [
    "Conv1d",
    "UnsupportedError",
    "__version__",
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv_transpose1d",
    "get_num_threads",
    "plan",
    "reference",
    "set_num_threads",
    "show_config",
]

# float32, float64 or bfloat16. Type checkers know the last one as np.generic only, so a float16
# array is not found here but by the TypeError of the call.
_T = TypeVar("_T", bound=np.generic)
_U = TypeVar("_U", bound=np.generic)

_Padding = (
    SupportsIndex
    | tuple[SupportsIndex, SupportsIndex]
    | list[int]
    | Literal["valid", "same", "causal"]
)
_Activation = Literal["relu"] | None
_Shape = tuple[SupportsIndex, ...] | list[int]
_Pass = Literal["forward", "backward_data", "backward_weight"]

__version__: str

class UnsupportedError(RuntimeError): ...

def conv1d(
    x: NDArray[_T],
    weight: NDArray[_T],
    bias: NDArray[_T] | NDArray[np.float32] | None = None,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    activation: _Activation = None,
    out: NDArray[_T] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[_T]: ...
def conv1d_backward_data(
    grad_out: NDArray[_T],
    weight: NDArray[_T],
    input_width: SupportsIndex,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    out: NDArray[_T] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[_T]: ...
@overload
def conv1d_backward_weight(
    grad_out: NDArray[_T],
    x: NDArray[_T],
    filter_width: SupportsIndex,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    dtype: None = None,
    out: NDArray[_T] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[_T]: ...
@overload
def conv1d_backward_weight(
    grad_out: NDArray[_T],
    x: NDArray[_T],
    filter_width: SupportsIndex,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    dtype: type[_U] | np.dtype[_U],
    out: NDArray[_U] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[_U]: ...
@overload
def conv1d_backward_weight(
    grad_out: NDArray[_T],
    x: NDArray[_T],
    filter_width: SupportsIndex,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    dtype: DTypeLike,
    out: NDArray[Any] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[Any]: ...
def conv_transpose1d(
    x: NDArray[_T],
    weight: NDArray[_T],
    bias: NDArray[_T] | NDArray[np.float32] | None = None,
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    output_padding: SupportsIndex = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    activation: _Activation = None,
    out: NDArray[_T] | None = None,
    threads: SupportsIndex | None = None,
) -> NDArray[_T]: ...
def plan(
    pass_: _Pass,
    x_shape: _Shape,
    weight_shape: _Shape,
    dtype: DTypeLike = "float32",
    *,
    stride: SupportsIndex = 1,
    padding: _Padding = 0,
    dilation: SupportsIndex = 1,
    groups: SupportsIndex = 1,
    threads: SupportsIndex | None = None,
) -> Plan: ...
def set_num_threads(n: SupportsIndex) -> None: ...
def get_num_threads() -> int: ...
def show_config() -> None: ...
