"""First and second derivatives against finite differences, in float64, on the corpus."""

import pytest
import torch
from pytorch.convolutions import FUNCTIONS, tensors
from torch.autograd import gradcheck, gradgradcheck

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)


def problem_of(function, problem, activation=None):
    def convolve(operand, weight, bias):
        parameters = function.parameters(problem)
        return function.ours(operand, weight, bias, **parameters, activation=activation)

    return convolve


@pytest.mark.every(5)
@every_function
def test_derivatives(problem, function):
    # Along random directions: the corpus holds problems with millions of derivatives.
    convolve, operands = problem_of(function, problem), tensors(problem, function)
    assert gradcheck(convolve, operands, fast_mode=True)
    assert gradgradcheck(convolve, operands, fast_mode=True)


@every_function
@pytest.mark.parametrize("line", ["n2c4k2s3st2d3pl4pr1g2w9", "n1c2k3s4st3pl1pr5w11"])
def test_every_derivative(line, function):
    from xsmmconv import _text

    problem = _text.parse(line)
    for activation in (None, "relu"):
        convolve = problem_of(function, problem, activation)
        operands = tensors(problem, function)
        assert gradcheck(convolve, operands)
        assert gradgradcheck(convolve, operands)


@pytest.mark.parametrize("output_padding", range(7))
@pytest.mark.parametrize("padding", [(0, 0), (1, 2), (3, 8)])
def test_output_padding_up_to_the_dilation(padding, output_padding):
    """Beyond the stride the last columns hold the bias alone."""
    import xsmmconv.torch

    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 5), (3, 2, 3), (2,))
    )

    def convolve(x, weight, bias):
        return xsmmconv.torch.conv_transpose1d(
            x, weight, bias, 2, padding, output_padding, dilation=7, activation="relu"
        )

    left, right = padding
    whole = torch.nn.functional.conv_transpose1d(
        x, weight, bias, 2, 0, output_padding, dilation=7
    ).relu()
    torch.testing.assert_close(
        convolve(x, weight, bias), whole[:, :, left : whole.shape[2] - right], rtol=0, atol=1e-12
    )
    assert gradcheck(convolve, (x, weight, bias), fast_mode=True)
    assert gradgradcheck(convolve, (x, weight, bias), fast_mode=True)
