"""What the tests in this folder share: both functions, and how a problem of the corpus calls them.

A transposed convolution is applied to y: its output has the channels and the width of x.
"""

from dataclasses import dataclass

import problems
import torch

import xsmmconv.torch


@dataclass(frozen=True)
class Function:
    name: str
    operand: str  # the array of the problem that it is applied to
    result: str

    @property
    def ours(self):
        return getattr(xsmmconv.torch, self.name)

    @property
    def theirs(self):
        return getattr(torch.nn.functional, self.name)

    @property
    def layers(self):
        name = {"conv1d": "Conv1d", "conv_transpose1d": "ConvTranspose1d"}[self.name]
        return getattr(xsmmconv.torch, name), getattr(torch.nn, name)

    def shapes(self, problem):
        """Of the operand, the weight and the bias."""
        operand, result = (problems.shape(problem, name) for name in (self.operand, self.result))
        return operand, problem.weight_shape, (result[1],)

    def parameters(self, problem):
        """The keyword arguments of our function."""
        if self.name == "conv1d":
            return problem.parameters
        return problem.parameters | {"output_padding": problems.output_padding(problem)}

    def by_torch(self, problem, operand, weight, bias):
        """What PyTorch makes of the problem: it knows no unequal padding."""
        options = self.parameters(problem)
        left, right = options.pop("padding")
        if self.name == "conv1d":
            operand = torch.nn.functional.pad(operand, (left, right))
            return self.theirs(operand, weight, bias, **options)
        # Everything that the filters reach, and so much of the output as the problem has.
        del options["output_padding"]
        y = self.theirs(operand, weight, None, **options)
        y = torch.nn.functional.pad(y, (0, max(0, left + problem.W - y.shape[2])))
        y = y[:, :, left : left + problem.W]
        return y if bias is None else y + bias[:, None]

    def __str__(self):
        return self.name


FUNCTIONS = [Function("conv1d", "x", "y"), Function("conv_transpose1d", "y", "x")]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def tensors(problem, function, dtype=torch.float64, requires_grad=True):
    """Random operand, weight and bias."""
    return [
        torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(requires_grad)
        for shape in function.shapes(problem)
    ]


def integers(problem, function, dtype):
    """The same, of integers so small that no sum of a corpus problem is rounded."""
    return [
        torch.randint(-2, 3, shape).to(dtype).requires_grad_() for shape in function.shapes(problem)
    ]
