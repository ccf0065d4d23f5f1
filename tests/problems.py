"""What the tests share: the corpus, the four operations on a problem, data, and comparisons."""

import zlib
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from xsmmconv import _plan, _text, reference
from xsmmconv._problem import ConvProblem

CORPUS = [
    problem
    for path in sorted(Path(__file__).with_name("shapes").glob("*.txt"))
    for problem in _text.read(path)
]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), BFLOAT16]

# What LIBXSMM_TARGET may be on this machine; None is the machine's own instruction set.
_CPU = set(Path("/proc/cpuinfo").read_text().split())
_AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= _CPU
TARGETS = ["hsw", *(["skx"] if _AVX512 else []), None]

# Integers up to this size have no rounding error; the sums of bfloat16 operands are float32 sums.
_EXACT_SUM = {"float32": 2**24, "bfloat16": 2**24, "float64": 2**53}
_EXACT_OPERAND = {"float32": 2**11, "bfloat16": 2**8, "float64": 2**21}


@dataclass(frozen=True)
class Operation:
    """One public function as applied to the arrays "x", "weight" and "y" of a problem.

    A transposed convolution is applied to y: its output has the channels and the width of x.
    """

    function: str
    first: str
    second: str
    result: str

    @property
    def takes_bias(self):
        return self.function in ("conv1d", "conv_transpose1d")

    def __str__(self):
        return self.function


FORWARD = Operation("conv1d", "x", "weight", "y")
BACKWARD_DATA = Operation("conv1d_backward_data", "y", "weight", "x")
BACKWARD_WEIGHT = Operation("conv1d_backward_weight", "y", "x", "weight")
TRANSPOSED = Operation("conv_transpose1d", "y", "weight", "x")
OPERATIONS = [FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT, TRANSPOSED]
PASSES = {"forward": FORWARD, "backward_data": BACKWARD_DATA, "backward_weight": BACKWARD_WEIGHT}


def plan(problem, pass_, dtype, *, in_place=True, **machine):
    """A plan of its own: of a problem or a line, for this machine but for what `machine` says."""
    p = _text.parse(problem) if isinstance(problem, str) else problem
    name = dtype if isinstance(dtype, str) else dtype.name
    pass_ = {operation: name for name, operation in PASSES.items()}.get(pass_, pass_)
    sizes = p.N, p.C, p.K, p.S, p.W, p.Q, p.s, p.d, p.pl, p.pr, p.g
    found = replace(_plan.machine(name), **machine)
    return _plan.Plan(pass_, ConvProblem(*sizes, name), in_place, found)


def shape(problem, array):
    return {"x": problem.x_shape, "weight": problem.weight_shape, "y": problem.y_shape}[array]


def bias_shape(problem, operation):
    return (shape(problem, operation.result)[1],)


def call(module, operation, problem, first, second, **options):
    """Apply `operation` of `module` (the library or its reference) to the operands."""
    function = getattr(module, operation.function)
    options = problem.parameters | options
    if operation is BACKWARD_DATA:
        return function(first, second, problem.W, **options)
    if operation is BACKWARD_WEIGHT:
        return function(first, second, problem.S, **options)
    if operation is TRANSPOSED:
        options["output_padding"] = output_padding(problem)
    return function(first, second, **options)


def output_padding(problem):
    """How many columns of x lie behind the last one that Q and the padding account for."""
    p = problem
    return (p.W + p.pl + p.pr - p.d * (p.S - 1) - 1) - (p.Q - 1) * p.s


def most_terms(problem, operation):
    """No element of the result is a sum of more products than this."""
    p = problem
    if operation is FORWARD:
        return p.C // p.g * p.S
    if operation is BACKWARD_WEIGHT:
        return max(1, p.N * p.Q)
    return p.K // p.g * p.S


def terms(problem, operation):
    """The number of products in each element of the result."""
    ones = [np.ones(shape(problem, array)) for array in (operation.first, operation.second)]
    return call(reference, operation, problem, *ones)


def generator(problem, operation):
    """Random numbers that depend on nothing but the case."""
    return np.random.default_rng(zlib.crc32(f"{problem} {operation}".encode()))


def integer_operands(problem, operation, dtype):
    """Operands (first, second, bias) whose products can be summed in any order without rounding.

    They are as large as this allows, so that the sums need all bits of the accumulator, and
    rounding one of them to bfloat16, or rounding it twice, shows.
    """
    products = most_terms(problem, operation) + 1  # the bias counts as one
    largest = min(isqrt(_EXACT_SUM[dtype.name] // products), _EXACT_OPERAND[dtype.name])
    rng = generator(problem, operation)
    return [
        rng.integers(-largest, largest, shape, endpoint=True).astype(np.float64).astype(dtype)
        for shape in _operand_shapes(problem, operation)
    ]


def real_operands(problem, operation, dtype):
    """Operands (first, second, bias) of mixed sizes, more of them positive than negative."""
    rng = generator(problem, operation)
    return [
        ((rng.standard_normal(shape) + 0.5) * np.exp(rng.standard_normal(shape))).astype(dtype)
        for shape in _operand_shapes(problem, operation)
    ]


def _operand_shapes(problem, operation):
    shapes = [shape(problem, name) for name in (operation.first, operation.second)]
    return [*shapes, bias_shape(problem, operation) if operation.takes_bias else (1,)]


def finish(total, bias=None, activation=None):
    """Bias and activation by their definition, on the exact sums."""
    if bias is not None:
        total = total + bias.astype(np.float64)[:, np.newaxis]
    return np.maximum(total, 0) if activation == "relu" else total


def rounded(exact, dtype):
    """Exact sums in `dtype`; bfloat16 is rounded once, from the float32 sum."""
    return exact.astype(np.float32).astype(dtype) if dtype == BFLOAT16 else exact.astype(dtype)


def nan_filled(problem, operation, dtype):
    return np.full(shape(problem, operation.result), np.nan, dtype)


def assert_equal(got, expected, *what):
    """Same shape, dtype and values; NaN equals NaN. `what` says which case failed."""
    what = " ".join(map(str, what))
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    differs = (got != expected) & ~(np.isnan(got) & np.isnan(expected))
    if differs.any():
        first = tuple(map(int, np.argwhere(differs)[0]))
        raise AssertionError(
            f"{what}: {differs.sum()} of {differs.size} elements differ, the first at {first}: "
            f"got {got[first]}, expected {expected[first]}"
        )


def assert_bitwise_equal(got, expected, *what):
    """As `assert_equal`, and the same bits: signs of zeros too."""
    assert_equal(got, expected, *what)
    assert got.tobytes() == expected.tobytes(), f"{' '.join(map(str, what))}: bits differ"


def assert_within(got, expected, bound, *what):
    """|got - expected| <= bound everywhere; `expected` is more precise than `got`."""
    what = " ".join(map(str, what))
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    error = np.abs(got.astype(expected.dtype) - expected)
    beyond = ~(error <= bound)  # also true for NaN
    if beyond.any():
        worst = tuple(map(int, np.argwhere(beyond)[0]))
        raise AssertionError(
            f"{what}: {beyond.sum()} of {beyond.size} elements beyond the bound, the first at "
            f"{worst}: got {got[worst]}, expected {expected[worst]}, error {error[worst]}, "
            f"bound {bound[worst]}"
        )


@st.composite
def small_problems(draw, max_groups=3):
    """Any combination of parameters, at sizes that keep a test short."""
    small = st.integers(1, 4)
    g = draw(st.integers(1, max_groups))
    C, K = g * draw(small), g * draw(small)
    S = draw(st.integers(1, 9))
    s, d = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    pl, pr = draw(st.integers(0, 20)), draw(st.integers(0, 20))
    least = max(1, d * (S - 1) + 1 - pl - pr)
    W = draw(st.integers(least, least + 100))
    return _text.ProblemLine(draw(st.integers(1, 3)), C, K, S, W, s, d, pl, pr, g)
