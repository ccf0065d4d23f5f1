"""A cell of the benchmark: what is computed, its operands, and our way to compute it."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from xsmmconv import _api, _problem
from xsmmconv._text import ProblemLine

PASSES = (*_problem.PASSES, "transposed")  # the last one is conv_transpose1d, forward
# The operands and the result of a pass, by the names of the shapes of a ProblemLine.
_ARRAYS = {
    "forward": ("x", "weight", "y"),
    "backward_data": ("y", "weight", "x"),
    "backward_weight": ("y", "x", "weight"),
    "transposed": ("y", "weight", "x"),
}
_LINE_BYTES = 64
_OFFSET = 16  # malloc puts the data of a large NumPy array this far behind a cache line's start


@dataclass(frozen=True, slots=True)
class Cell:
    suite: str
    problem: ProblemLine
    pass_: str
    dtype: str
    threads: int

    @property
    def multiply_adds(self):
        """The useful ones, as the plan counts them: none with a zero of padding or stride."""
        problem = self.problem
        pass_ = "backward_data" if self.pass_ == "transposed" else self.pass_
        plan = _api.plan(
            pass_, problem.x_shape, problem.weight_shape, self.dtype, **problem.parameters
        )
        return plan.multiply_adds

    @property
    def output_padding(self):
        """Of the transposed convolution: columns of x behind the last one a filter reaches."""
        p = self.problem
        return (p.W + p.pl + p.pr - p.d * (p.S - 1) - 1) - (p.Q - 1) * p.s

    def operands(self):
        """Two arrays of normally distributed numbers; the same in every run."""
        rng = np.random.default_rng(2104_08002)
        operands = []
        for name in _ARRAYS[self.pass_][:2]:
            array = _empty(self._shape(name), self.dtype)
            array[...] = rng.standard_normal(array.shape, np.float32)
            operands.append(array)
        return tuple(operands)

    def ours(self, a, b):
        """The call of the public function on two operands, and the array it writes to."""
        p, options = self.problem, self.problem.parameters
        out = _empty(self._shape(_ARRAYS[self.pass_][2]), self.dtype)
        options |= {"out": out, "threads": self.threads}
        call = {
            "forward": partial(_api.conv1d, a, b),
            "backward_data": partial(_api.conv1d_backward_data, a, b, p.W),
            "backward_weight": partial(_api.conv1d_backward_weight, a, b, p.S),
            "transposed": partial(_api.conv_transpose1d, a, b, output_padding=self.output_padding),
        }[self.pass_]
        return partial(call, **options), out

    def _shape(self, name):
        return getattr(self.problem, f"{name}_shape")


def _empty(shape, dtype):
    """An array that lies where a large one does, so that no run is lucky with its alignment."""
    dtype = _problem.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    block = np.empty(size + 2 * _LINE_BYTES, np.uint8)
    start = (_OFFSET - block.ctypes.data) % _LINE_BYTES
    return block[start : start + size].view(dtype).reshape(shape)
