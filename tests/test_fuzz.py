"""Any arguments at all: a result, or one of the documented errors; never a change of an input.

`pytest tests/test_fuzz.py --fuzz 60` looks for an hour.
"""

import time
from dataclasses import dataclass

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

import xsmmconv

ERRORS = (TypeError, ValueError, MemoryError, xsmmconv.UnsupportedError)

small = st.integers(-1, 9)
# No result of such a size can be had; one of 2**31 columns would be computed.
huge = st.sampled_from([2**37, 2**40 - 1, 2**40, 2**63 - 1, 2**63, 2**64, 10**400, -(2**63)])
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(small, max_size=3),
    st.sampled_from([object(), int, np.int8(3), np.uint64(2**63), np.float32(1), np.array(2), {}]),
)
# An integer is mostly a small one, so that many calls get as far as the kernels.
integers = st.one_of(*[st.integers(1, 4)] * 6, small, huge, junk)
paddings = st.one_of(
    *[st.integers(0, 9)] * 3,
    st.tuples(small, small),
    st.sampled_from(["valid", "same", "causal", "full"]),
    st.tuples(integers, integers),
    integers,
)
dtypes = st.sampled_from(["f4"] * 6 + ["f8", ml_dtypes.bfloat16, "f2", "i4", "O", ">f4", "f4,f4"])


@st.composite
def arrays(draw, axes):
    """Mostly a float32 array of `axes` axes, sometimes anything that NumPy has."""
    if draw(st.integers(0, 19)) == 0:
        return draw(junk)
    axes = draw(st.sampled_from([axes] * 18 + [axes - 1, axes + 1]))
    shape = draw(st.lists(st.sampled_from([1, 2, 2, 4, 4, 8, 30, 0]), min_size=axes, max_size=axes))
    array = np.ones(shape, draw(dtypes))
    kind = draw(st.integers(0, 19))
    if kind == 0:
        array = np.asfortranarray(array)
    elif kind == 1 and axes:
        array = array[..., ::-1]
    elif kind == 2:
        array = np.broadcast_to(array, (draw(st.sampled_from([2, 2**20])), *array.shape))
    elif kind == 3:
        array = np.ma.masked_array(array)
    elif kind == 4:
        array.flags.writeable = False
    return array


@dataclass
class Function:
    """A public function and what its arguments mostly are; all but the first are by name."""

    name: str
    arguments: dict


def options(**more):
    names = dict.fromkeys(("stride", "dilation", "groups", "threads"), integers)
    return names | {"padding": paddings} | more


three = arrays(3)
bias = {"bias": arrays(1), "activation": st.one_of(st.just("relu"), junk)}
FUNCTIONS = [
    Function("conv1d", {"x": three, "weight": three} | options(**bias, out=three)),
    Function(
        "conv1d_backward_data",
        {"grad_out": three, "weight": three, "input_width": integers} | options(out=three),
    ),
    Function(
        "conv1d_backward_weight",
        {"grad_out": three, "x": three, "filter_width": integers}
        | options(out=three, dtype=st.one_of(dtypes, junk)),
    ),
    Function(
        "conv_transpose1d",
        {"x": three, "weight": three} | options(**bias, output_padding=integers, out=three),
    ),
    Function("Conv1d", {"weight": three} | options(**bias)),
    Function(
        "plan",
        {
            "pass_": st.one_of(st.sampled_from(["forward", "backward_data", "x"]), junk),
            "x_shape": st.one_of(st.tuples(integers, integers, integers), junk),
            "weight_shape": st.one_of(st.tuples(integers, integers, integers), junk),
        }
        | options(dtype=st.one_of(dtypes, junk)),
    ),
    Function("set_num_threads", {"n": integers}),
]
REQUIRED = {"x", "weight", "grad_out", "input_width", "filter_width", "pass_", "x_shape", "n"}
REQUIRED |= {"weight_shape"}


def check(function, arguments):
    given = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray) and k != "out"}
    before = {name: value.tobytes() for name, value in given.items() if value.size < 2**16}
    out = arguments.get("out")
    untouched = out.tobytes() if isinstance(out, np.ndarray) and out.size < 2**16 else None
    try:
        getattr(xsmmconv, function.name)(**arguments)
    except ERRORS:
        if untouched is not None:
            assert out.tobytes() == untouched, "out has changed, and there was an error"
    for name, content in before.items():
        assert given[name].tobytes() == content, f"{name} has changed"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_any_arguments(function, request):
    chosen = st.fixed_dictionaries(
        {k: v for k, v in function.arguments.items() if k in REQUIRED},
        optional={k: v for k, v in function.arguments.items() if k not in REQUIRED},
    )
    threads = xsmmconv.get_num_threads()
    end = time.monotonic() + 60 * request.config.getoption("--fuzz") / len(FUNCTIONS)
    start, calls = 0, 0

    def one(arguments):
        nonlocal calls
        calls += 1
        check(function, arguments)

    try:
        while start == 0 or time.monotonic() < end:
            run = hypothesis.given(chosen)(one)
            run = hypothesis.settings(
                max_examples=300,
                derandomize=False,
                suppress_health_check=list(hypothesis.HealthCheck),
            )(run)
            hypothesis.seed(start if start == 0 else time.time_ns())(run)()
            start += 1
    finally:
        xsmmconv.set_num_threads(threads)
    print(f"{function.name}: {calls} calls")
