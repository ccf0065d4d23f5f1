"""The operators inside PyTorch: tracing, casting, mapping, memory, threads, processes, errors."""

import itertools

import numpy as np
import problems
import pytest
import torch
from pytorch.convolutions import DTYPES, FUNCTIONS, tensors

import xsmmconv.torch
from xsmmconv import _text

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
PROBLEM = _text.parse("n2c4k6s3st2d3pl4pr1g2w20")
OPS = torch.ops.xsmmconv


def convolution(function, problem=PROBLEM, activation="relu"):
    def convolve(operand, weight, bias=None):
        parameters = function.parameters(problem)
        return function.ours(operand, weight, bias, **parameters, activation=activation)

    return convolve


# PyTorch's own compiler uses what PyTorch deprecates.
compiles = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


# --- registration ------------------------------------------------------------------------------


@compiles
@every_dtype
@pytest.mark.parametrize("operator", ["conv1d", "conv_transpose1d", "conv1d_backward_weight"])
def test_pytorch_finds_the_registrations_complete(operator, dtype):
    """Schema, fake kernel, autograd, and tracing with symbolic shapes."""
    p = PROBLEM
    x, weight, y = (
        torch.randn(problems.shape(p, name)).to(dtype).requires_grad_()
        for name in ("x", "weight", "y")
    )
    parameters = p.s, [p.pl, p.pr], p.d, p.g
    bias = torch.randn(p.K).to(dtype).requires_grad_()
    arguments = {
        "conv1d": (x, weight, bias, *parameters, True),
        "conv_transpose1d": (y, weight, None, *parameters, False, problems.output_padding(p)),
        "conv1d_backward_weight": (y, x, p.S, *parameters),
    }
    torch.library.opcheck(getattr(OPS, operator).default, arguments[operator])


@pytest.mark.every(9)
@every_function
def test_fake_kernels_know_shape_and_dtype(problem, function):
    operands = tensors(problem, function, torch.bfloat16, requires_grad=False)
    convolve = convolution(function, problem)
    real, fake = convolve(*operands), convolve(*(v.to("meta") for v in operands))
    assert fake.is_meta
    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


@compiles
@every_dtype
@every_function
def test_compiled_without_graph_breaks(function, dtype):
    def block(x, weight, bias):
        x = torch.nn.functional.gelu(convolution(function)(x, weight, bias))
        return x * torch.sigmoid(x)

    operands = tensors(PROBLEM, function, dtype)
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (2, 3):  # the second time, sizes have become symbols
        operand = operands[0].detach()[:1].repeat(rows, 1, 1).requires_grad_()
        got, expected = compiled(operand, *operands[1:]), block(operand, *operands[1:])
        assert torch.equal(got, expected)
        grad = torch.randn_like(got)
        inputs = operand, *operands[1:]
        for ours, eager in zip(
            torch.autograd.grad(got, inputs, grad),
            torch.autograd.grad(expected, inputs, grad),
            strict=True,
        ):
            assert torch.equal(ours, eager)


@compiles
def test_compiled_to_machine_code():
    model = torch.nn.Sequential(
        xsmmconv.torch.Conv1d(4, 8, 5, padding="causal", activation="relu"),
        torch.nn.GELU(),
        xsmmconv.torch.ConvTranspose1d(8, 3, 4, stride=2),
    )
    x = torch.randn(2, 4, 50)
    torch._dynamo.reset()
    got, expected = torch.compile(model, fullgraph=True)(x), model(x)
    torch.testing.assert_close(got, expected)
    grads = [torch.autograd.grad(y.square().sum(), model.parameters()) for y in (got, expected)]
    torch.testing.assert_close(*grads)


# --- autograd ------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
def test_nothing_is_computed_that_nobody_asked_for(function, wanted, monkeypatch):
    operands = tensors(PROBLEM, function, requires_grad=False)
    expected = tensors(PROBLEM, function, requires_grad=False)
    for ours, theirs, value in zip(operands, expected, wanted, strict=True):
        theirs.copy_(ours).requires_grad_()
        ours.requires_grad_(value)
    y = convolution(function)(*operands)
    calls = []
    for name in ("conv1d", "conv_transpose1d", "conv1d_backward_weight"):
        real = getattr(xsmmconv, name)
        monkeypatch.setattr(
            xsmmconv,
            name,
            lambda *a, real=real, name=name, **k: calls.append(name) or real(*a, **k),
        )
    if not any(wanted):
        assert not y.requires_grad
        return
    y.sum().backward()
    by_operand = {"conv1d": "conv_transpose1d", "conv_transpose1d": "conv1d"}[function.name]
    names = [by_operand] * wanted[0] + ["conv1d_backward_weight"] * wanted[1]
    assert calls == names
    convolution(function)(*expected).sum().backward()
    for ours, theirs, value in zip(operands, expected, wanted, strict=True):
        assert (ours.grad is not None) == value
        assert not value or torch.equal(ours.grad, theirs.grad)


@every_function
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_what_the_backward_pass_needs_is_kept(function, wanted):
    operands = tensors(PROBLEM, function, requires_grad=False)
    operands[wanted].requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v.data_ptr()) or v, id):
        convolution(function, activation=None)(*operands)
    other = {0: [operands[1].data_ptr()], 1: [operands[0].data_ptr()], 2: []}
    assert kept == other[wanted]


@every_function
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_autograd(function, mode):
    operands = tensors(PROBLEM, function)
    with mode():
        y = convolution(function)(*operands)
    assert not y.requires_grad
    assert y.is_inference() == (mode is torch.inference_mode)
    assert torch.equal(y, convolution(function)(*operands).detach())


@every_function
@pytest.mark.parametrize("cast", [torch.float32, torch.bfloat16])
def test_autocast(function, cast):
    """Autocast to bfloat16: computed as such, gradients in the parameters' own dtype."""
    operands = tensors(PROBLEM, function, cast)
    operands[1] = operands[1].detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = convolution(function)(*operands)
    rounded = [v.detach().bfloat16().requires_grad_() for v in operands]
    expected = convolution(function)(*rounded)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    grad = torch.randn(y.shape).bfloat16()
    for v, ours, theirs in zip(
        operands,
        torch.autograd.grad(y, operands, grad),
        torch.autograd.grad(expected, rounded, grad),
        strict=True,
    ):
        assert ours.dtype == v.dtype
        assert torch.equal(ours, theirs.to(v.dtype))


@every_function
def test_a_float32_bias_beside_bfloat16(function):
    operand, weight, bias = tensors(PROBLEM, function, torch.bfloat16)
    wide = (bias.detach().float() + 2**-12).requires_grad_()
    y = convolution(function, activation=None)(operand, weight, wide)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert wide.grad.dtype == torch.float32
    assert torch.equal(wide.grad, torch.full_like(wide, y.numel() / y.shape[1]))


# --- vmap ----------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("mapped", list(itertools.product([False, True], repeat=3))[1:], ids=str)
def test_vmap(function, mapped):
    operands = tensors(PROBLEM, function)
    many = [
        torch.randn((*v.shape[:1], 3, *v.shape[1:]), dtype=v.dtype) if several else v
        for v, several in zip(operands, mapped, strict=True)
    ]
    dims = tuple(1 if several else None for several in mapped)
    convolve = convolution(function)
    got = torch.vmap(convolve, dims)(*many)
    expected = torch.stack(
        [
            convolve(*(v[:, i] if several else v for v, several in zip(many, mapped, strict=True)))
            for i in range(3)
        ]
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@every_function
def test_vmap_of_the_derivatives(function):
    """Rows of a Jacobian at once, as torch.autograd.functional computes them."""
    operands = tensors(PROBLEM, function)
    y = convolution(function)(*operands)
    grads = torch.randn(5, *y.shape, dtype=y.dtype)
    got = torch.autograd.grad(y, operands, grads, is_grads_batched=True, retain_graph=True)
    rows = [torch.autograd.grad(y, operands, grad, retain_graph=True) for grad in grads]
    for ours, expected in zip(got, zip(*rows, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-11)


# --- memory --------------------------------------------------------------------------------------


@every_dtype
@every_function
def test_no_copies(function, dtype, monkeypatch):
    operands = tensors(PROBLEM, function, dtype)
    real, seen = getattr(xsmmconv, function.name), []

    def spy(*arrays, **options):
        result = real(*arrays, **options)
        seen.extend([*arrays, result])
        return result

    monkeypatch.setattr(xsmmconv, function.name, spy)
    y = convolution(function)(*operands)
    assert [v.data_ptr() for v in (*operands, y)] == [v.ctypes.data for v in seen]
    assert y.is_contiguous()


@every_dtype
@every_function
def test_any_strides(function, dtype):
    operands = tensors(PROBLEM, function, dtype, requires_grad=False)
    expected = convolution(function)(*operands)
    views = [
        torch.stack([v, v], -1).transpose(0, -2)[..., 1].transpose(0, -1).contiguous()
        if v.ndim == 1
        else v.transpose(0, 2).contiguous().transpose(0, 2)
        for v in operands
    ]
    assert not views[0].is_contiguous()
    assert torch.equal(convolution(function)(*views), expected)
    row = operands[0][:1].expand(3, -1, -1)
    assert torch.equal(convolution(function)(row, *operands[1:]), expected[:1].expand(3, -1, -1))


@every_function
def test_a_view_that_is_negated_when_read(function):
    _, weight, bias = tensors(PROBLEM, function, torch.float32)
    shape = function.shapes(PROBLEM)[0]
    operand = torch.randn(shape, dtype=torch.complex64).conj().imag
    assert operand.is_neg()
    convolve = convolution(function)
    assert torch.equal(convolve(operand, weight, bias), convolve(operand.clone(), weight, bias))


@every_function
def test_without_rows(function):
    operand, weight, bias = tensors(PROBLEM, function)
    y = convolution(function)(operand[:0], weight, bias)
    assert y.shape == (0, *convolution(function)(operand, weight, bias).shape[1:])
    y.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@every_function
def test_without_batch_axis(function):
    operand, weight, bias = tensors(PROBLEM, function)
    y = convolution(function)(operand[0], weight, bias)
    assert torch.equal(y, convolution(function)(operand, weight, bias)[0])
    y.sum().backward()
    assert operand.grad[0].any()


# --- threads and processes -------------------------------------------------------------------------  # noqa: E501


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_those_of_pytorch(threads, monkeypatch):
    x, weight, bias = tensors(PROBLEM, FUNCTIONS[0])
    seen = []
    for name in ("conv1d", "conv_transpose1d", "conv1d_backward_weight"):
        real = getattr(xsmmconv, name)
        monkeypatch.setattr(
            xsmmconv,
            name,
            lambda *a, real=real, **k: seen.append(k["threads"]) or real(*a, **k),
        )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        convolution(FUNCTIONS[0])(x, weight, bias).sum().backward()
    finally:
        torch.set_num_threads(before)
    assert seen == [threads] * 3


class Convolved(torch.utils.data.Dataset):
    """Each item is computed in a worker process."""

    def __init__(self, layer):
        self.layer, self.signals = layer, torch.randn(6, 4, 3000)

    def __len__(self):
        return len(self.signals)

    @torch.no_grad()
    def __getitem__(self, i):
        return self.layer(self.signals[i])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # one CPU
def test_in_forked_workers_of_a_loader():
    items = Convolved(xsmmconv.torch.Conv1d(4, 8, 15, padding="same"))
    expected = torch.stack([items[i] for i in range(len(items))])  # threads exist before the fork
    loader = torch.utils.data.DataLoader(
        items, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    assert torch.equal(torch.cat(list(loader)), expected)


# --- errors ----------------------------------------------------------------------------------------  # noqa: E501


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("shapes", "options", "error", "words"),
    [
        (((2, 4, 9), (3, 5, 2)), {}, ValueError, ["weight", "(3, 5, 2)", "x", "(2, 4, 9)"]),
        (((2, 4, 9), (3, 4, 11)), {}, ValueError, ["weight", "S=11", "W"]),
        (((2, 4, 9), (3, 4, 2)), {"groups": 3}, ValueError, ["groups=3", "(2, 4, 9)"]),
        (((2, 4, 9), (3, 4, 2)), {"stride": 0}, ValueError, ["stride", "0"]),
        (((2, 4, 9), (3, 4, 2)), {"stride": (1, 2)}, TypeError, ["stride", "(1, 2)"]),
        (((2, 4, 9), (3, 4, 2)), {"padding": -1}, ValueError, ["padding", "-1"]),
        (((2, 4, 9), (3, 4, 2)), {"padding": "full"}, ValueError, ["padding", "full"]),
        (((2, 4, 9), (3, 4, 2)), {"activation": "tanh"}, ValueError, ["activation", "tanh"]),
        (((9,), (3, 4, 2)), {}, ValueError, ["input", "(9,)"]),
        (((2, 4, 9), (3, 4)), {}, ValueError, ["weight", "(3, 4)"]),
        (((2, 4, 9), (3, 4, 2), (4,)), {}, ValueError, ["bias", "(4,)", "(3,)"]),
    ],
)
def test_errors_name_the_argument_and_the_numbers(shapes, options, error, words, device):
    with pytest.raises(error) as caught:
        xsmmconv.torch.conv1d(*(torch.zeros(shape, device=device) for shape in shapes), **options)
    for word in words:
        assert word in str(caught.value)


def test_output_padding_has_a_limit():
    x, weight = torch.zeros(1, 2, 5), torch.zeros(2, 1, 3)
    with pytest.raises(ValueError, match=r"output_padding=3 .* stride=2 and dilation=3"):
        xsmmconv.torch.conv_transpose1d(x, weight, stride=2, output_padding=3, dilation=3)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_errors_of_dtypes(device):
    x, weight = torch.zeros(1, 2, 5, device=device), torch.zeros(3, 2, 2, device=device)
    with pytest.raises(TypeError, match=r"x should be float32, float64 or bfloat16.*float16"):
        xsmmconv.torch.conv1d(x.half(), weight.half())
    with pytest.raises(TypeError, match="x is float32 and weight is float64"):
        xsmmconv.torch.conv1d(x, weight.double())


def test_errors_of_kinds():
    x, weight = torch.zeros(1, 2, 5), torch.zeros(3, 2, 2)
    with pytest.raises(TypeError, match="input should be a torch.Tensor, not ndarray"):  # noqa: RUF043
        xsmmconv.torch.conv1d(x.numpy(), weight)
    with pytest.raises(TypeError, match="weight should be a torch.Tensor, not list"):  # noqa: RUF043
        xsmmconv.torch.conv_transpose1d(x, [1.0])
    with pytest.raises(NotImplementedError, match="SparseCPU"):
        xsmmconv.torch.conv1d(x.to_sparse(), weight)


def test_nan_and_infinity_of_the_border_stay_there():
    """An infinite filter tap that lies in the padding is not multiplied by zero."""
    x, weight = torch.ones(1, 1, 4), torch.tensor([[[torch.inf, 1.0]]])
    y = xsmmconv.torch.conv1d(x, weight, padding="causal", activation="relu")
    assert np.array_equal(y.numpy(), [[[1, np.inf, np.inf, np.inf]]])
