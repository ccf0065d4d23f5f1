"""PyTorch's own samples for its two functions."""

import warnings

import pytest
import torch
from pytorch.convolutions import DTYPES, FUNCTIONS
from torch.autograd import gradcheck, gradgradcheck

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's, about its other operators
    from torch.testing._internal.common_methods_invocations import op_db

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)


def info(function):
    (found,) = (op for op in op_db if op.name == f"nn.functional.{function.name}")
    return found


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@every_function
def test_samples(function, dtype):
    for sample in info(function).sample_inputs("cpu", dtype, requires_grad=True):
        arguments = [v for v in (sample.input, *sample.args) if v is not None]
        y = function.ours(sample.input, *sample.args, **sample.kwargs)
        expected = function.theirs(sample.input, *sample.args, **sample.kwargs)
        torch.testing.assert_close(y, expected)
        grad = torch.randn_like(y)
        got = torch.autograd.grad(y, arguments, grad)
        torch.testing.assert_close(got, torch.autograd.grad(expected, arguments, grad))


@every_function
def test_derivatives_of_samples(function):
    for sample in info(function).sample_inputs("cpu", torch.float64, requires_grad=True):
        arguments = [v for v in (sample.input, *sample.args) if v is not None]

        def convolve(*arguments, sample=sample):
            return function.ours(*arguments, **sample.kwargs)

        assert gradcheck(convolve, arguments)
        assert gradgradcheck(convolve, arguments, fast_mode=True)


def test_errors_of_samples():
    """What PyTorch rejects, we reject; words differ."""
    conv1d = FUNCTIONS[0]
    for case in info(conv1d).error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises((ValueError, TypeError)):
            conv1d.ours(sample.input, *sample.args, **sample.kwargs)
