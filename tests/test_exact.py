"""Integer-valued data: no sum needs rounding, so results are compared exactly.

Only the final conversion to bfloat16 rounds, once. Outputs hold NaN before the call, so an element
that is not stored shows as well.
"""

import numpy as np
import problems
import pytest
from problems import BACKWARD_WEIGHT, BFLOAT16, OPERATIONS

import xsmmconv
from xsmmconv import reference


@pytest.mark.parametrize("dtype", problems.DTYPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_exact(problem, operation, dtype):
    first, second, bias = problems.integer_operands(problem, operation, dtype)
    exact = problems.call(reference, operation, problem, first, second)
    for options in _variants(operation, dtype, bias):
        result_dtype = np.dtype(options.get("dtype", dtype))
        out = problems.nan_filled(problem, operation, result_dtype)
        got = problems.call(xsmmconv, operation, problem, first, second, out=out, **options)
        assert got is out
        total = problems.finish(exact, options.get("bias"), options.get("activation"))
        expected = problems.rounded(total, result_dtype)
        problems.assert_equal(got, expected, problem, operation, dtype, _describe(options))


def _variants(operation, dtype, bias):
    """The options that a result is computed with, one dictionary per call."""
    yield {}
    if operation.takes_bias:
        yield {"bias": bias}
        yield {"activation": "relu"}
        yield {"bias": bias, "activation": "relu"}
        if dtype == BFLOAT16:
            # Large enough that it has no bfloat16 of its own: it must not be rounded before use.
            wide_bias = bias.astype(np.float32) * np.abs(bias.astype(np.float32)).max()
            yield {"bias": wide_bias}
            yield {"bias": wide_bias, "activation": "relu"}
    elif operation is BACKWARD_WEIGHT and dtype == BFLOAT16:
        yield {"dtype": np.float32}


def _describe(options):
    return {name: str(getattr(value, "dtype", value)) for name, value in options.items()}
