from typing import Generic, SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from xsmmconv import _Activation, _Padding

_T = TypeVar("_T", bound=np.generic)

class Conv1d(Generic[_T]):
    weight: NDArray[_T]
    bias: NDArray[_T] | NDArray[np.float32] | None
    def __init__(
        self,
        weight: NDArray[_T],
        bias: NDArray[_T] | NDArray[np.float32] | None = None,
        *,
        stride: SupportsIndex = 1,
        padding: _Padding = 0,
        dilation: SupportsIndex = 1,
        groups: SupportsIndex = 1,
        activation: _Activation = None,
    ) -> None: ...
    def __call__(
        self,
        x: NDArray[_T],
        out: NDArray[_T] | None = None,
        threads: SupportsIndex | None = None,
    ) -> NDArray[_T]: ...
    def backward_data(
        self,
        grad_out: NDArray[_T],
        input_width: SupportsIndex,
        out: NDArray[_T] | None = None,
        threads: SupportsIndex | None = None,
    ) -> NDArray[_T]: ...
