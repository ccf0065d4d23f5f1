"""Values and gradients on the corpus, against torch.nn.functional in float64."""

import numpy as np
import pytest
import torch
from pytorch.convolutions import DTYPES, FUNCTIONS, integers, tensors

from xsmmconv import reference

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
NAMES = ["result", "gradient of the operand", "gradient of weight", "gradient of bias"]


def by_torch(function, problem, operands, grad, relu=False):
    """Result and three gradients, in float64."""
    operands = [v.detach().double().requires_grad_() for v in operands]
    y = function.by_torch(problem, *operands)
    y = y.relu() if relu else y
    return [y.detach(), *torch.autograd.grad(y, operands, grad.double())]


@pytest.mark.every(2)
@every_dtype
@every_function
def test_integers_are_exact(problem, function, dtype):
    # With ReLU: its cut is the same on both sides where nothing is rounded.
    operands = integers(problem, function, DTYPES[dtype])
    y = function.ours(*operands, **function.parameters(problem), activation="relu")
    grad = torch.randint(-2, 3, y.shape).to(y.dtype)
    got = [y.detach(), *torch.autograd.grad(y, operands, grad)]
    expected = by_torch(function, problem, operands, grad, relu=True)
    for name, ours, theirs in zip(NAMES, got, expected, strict=True):
        assert ours.dtype == DTYPES[dtype]
        # bfloat16 is rounded once, from the float32 sum.
        rounded = theirs.float().to(ours.dtype) if dtype == "bfloat16" else theirs.to(ours.dtype)
        assert torch.equal(ours, rounded), f"{problem} {function} {dtype} {name}"


@pytest.mark.every(5)
@every_dtype
@every_function
def test_real_numbers_are_within_the_bounds(problem, function, dtype):
    operands = tensors(problem, function, DTYPES[dtype])
    y = function.ours(*operands, **function.parameters(problem))
    grad = torch.randn(y.shape, dtype=torch.float64).to(y.dtype)
    got = [y.detach(), *torch.autograd.grad(y, operands, grad)]
    expected = by_torch(function, problem, operands, grad)
    magnitudes = by_torch(function, problem, [v.abs() for v in operands], grad.abs())
    terms = by_torch(
        function, problem, [torch.ones_like(v) for v in operands], torch.ones_like(grad)
    )
    for name, *numbers in zip(NAMES, got, expected, magnitudes, terms, strict=True):
        ours, theirs, magnitude, count = (v.double().numpy() for v in numbers)
        bound = reference.error_bound(theirs, magnitude, count, np.dtype(numpy_dtype(dtype)))
        if dtype == "float64":  # where PyTorch's own rounding counts as much as ours
            bound = 2 * bound
        beyond = np.abs(ours - theirs) > bound
        assert not beyond.any(), f"{problem} {function} {dtype} {name}: {beyond.sum()} beyond"


def numpy_dtype(name):
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name
