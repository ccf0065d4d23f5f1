"""Calls that are remembered: another one must never be taken for an earlier one."""

import ml_dtypes
import numpy as np
import pytest

import xsmmconv
from xsmmconv import _call, reference

BASE = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
# Each differs from BASE in one parameter; two of them mean the same.
VARIANTS = [
    BASE,
    *({**BASE, name: value} for name, value in {"stride": 1, "dilation": 1, "groups": 1}.items()),
    *({**BASE, "padding": p} for p in (0, 3, (2, 2), (2, 3), (3, 2), "valid", "causal")),
    {**BASE, "stride": 1, "padding": "same"},
]


def integers(*shape, dtype=np.float32):
    return np.random.default_rng(0).integers(-4, 5, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_every_parameter_tells_calls_apart(dtype):
    x = integers(2, 4, 23, dtype=dtype)
    for _ in range(2):
        for options in VARIANTS:
            weight = integers(6, 4 // options["groups"], 3, dtype=dtype)
            bias = integers(6)
            y = xsmmconv.conv1d(x, weight, bias, **options)
            expected = reference.conv1d(x, weight, bias, **options)
            np.testing.assert_array_equal(y, expected.astype(dtype), f"{options}")
            dx = xsmmconv.conv1d_backward_data(y, weight, 23, **options)
            expected = reference.conv1d_backward_data(y, weight, 23, **options)
            np.testing.assert_array_equal(dx, expected.astype(dtype), f"{options}")
            for result in (dtype, np.float32) if dtype == ml_dtypes.bfloat16 else (dtype,):
                dw = xsmmconv.conv1d_backward_weight(y, x, 3, dtype=result, **options)
                assert dw.dtype == result
                expected = reference.conv1d_backward_weight(y, x, 3, **options)
                np.testing.assert_array_equal(dw, expected.astype(result), f"{options}")


def test_widths_that_share_an_output_width_are_told_apart():
    weight, grad = integers(1, 1, 2), integers(1, 1, 5)
    for _ in range(2):
        for width in (10, 11):
            dx = xsmmconv.conv1d_backward_data(grad, weight, width, stride=2)
            assert dx.shape == (1, 1, width)
        for extra in (0, 1):
            y = xsmmconv.conv_transpose1d(grad, weight, stride=2, output_padding=extra)
            assert y.shape == (1, 1, 10 + extra)


def test_a_bias_of_another_dtype_is_another_call():
    x, weight = integers(1, 1, 9, dtype=ml_dtypes.bfloat16), np.ones((1, 1, 1), ml_dtypes.bfloat16)
    bias = np.array([2.0**-9], np.float32)  # which bfloat16 has as well
    for kind in (np.float32, ml_dtypes.bfloat16, np.float32):
        y = xsmmconv.conv1d(x, weight, bias.astype(kind))
        np.testing.assert_array_equal(y, (x.astype(np.float32) + bias).astype(ml_dtypes.bfloat16))


def test_the_batch_axis_is_part_of_a_call():
    x, weight = integers(3, 1, 9), integers(2, 1, 2)
    for _ in range(2):
        assert xsmmconv.conv1d(x, weight).shape == (3, 2, 8)
        assert xsmmconv.conv1d(x[0], weight).shape == (2, 8)
        assert xsmmconv.conv1d(x[:0], weight).shape == (0, 2, 8)


def test_the_number_of_calls_is_bounded():
    weight = np.ones((1, 1, 1), np.float32)
    most = _call.cache_info()[1]
    for width in range(1, most + 100):
        x = integers(1, width)
        np.testing.assert_array_equal(xsmmconv.conv1d(x, weight), x)
    assert _call.cache_info() == (most, most)


def test_an_output_inside_an_array_of_the_inputs_is_recognised():
    memory = integers(1, 2, 40)
    weight = integers(1, 1, 3)
    x, out = memory[:, :1], memory[:, 1:, :38]
    expected = reference.conv1d(x, weight)
    assert xsmmconv.conv1d(x, weight, out=out) is out  # neighbours, but apart
    np.testing.assert_array_equal(out, expected)
    flat = memory.reshape(-1)
    with pytest.raises(ValueError, match=r"out .* should share no memory with x"):
        xsmmconv.conv1d(x, weight, out=flat[10:48].reshape(1, 1, 38))
