"""The layers in place of torch.nn's, and `convert`."""

import copy
import doctest
import inspect
import io
import pickle
import re
from pathlib import Path

import pytest
import torch
from pytorch.convolutions import FUNCTIONS
from torch import nn

from xsmmconv.torch import Conv1d, ConvTranspose1d, _convert, _functional, _modules, conv1d, convert

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)

ARGUMENTS = {
    "conv1d": [
        ((4, 6, 3), {}),
        ((4, 6, (3,), (2,), (1,), (2,), 2, False), {}),
        ((4, 6, 5), {"padding": "same", "dilation": 2}),
        ((4, 6, 4), {"padding": "valid", "dtype": torch.float64}),
        ((4, 8, 4), {"padding": "same", "padding_mode": "circular"}),
        ((4, 6, 3), {"padding": 2, "padding_mode": "reflect", "stride": 2}),
        ((4, 6, 3), {"padding": (2,), "padding_mode": "replicate", "dtype": torch.bfloat16}),
    ],
    "conv_transpose1d": [
        ((4, 6, 3), {}),
        ((4, 6, (3,), (3,), (1,), (2,), 2, False, 2), {}),
        ((4, 6, 8), {"stride": 4, "padding": 2, "dtype": torch.float64}),
        ((4, 6, 3), {"stride": 2, "dilation": 3, "output_padding": 2, "dtype": torch.bfloat16}),
    ],
}
CASES = [(f, *case) for f in FUNCTIONS for case in ARGUMENTS[f.name]]


@pytest.mark.parametrize(("function", "arguments", "options"), CASES, ids=str)
def test_drop_in(function, arguments, options):
    """Same initialisation from the same seed, same state_dict, same values, same text."""
    ours, theirs = function.layers
    torch.manual_seed(3)
    mine = ours(*arguments, **options)
    torch.manual_seed(3)
    other = theirs(*arguments, **options)
    assert isinstance(mine, theirs)
    assert str(mine) == str(other)
    assert list(mine.state_dict()) == list(other.state_dict())
    for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other.load_state_dict(mine.state_dict())
    mine.load_state_dict(other.state_dict())
    other.double()  # PyTorch rounds some sums of bfloat16 more than once
    x = torch.randn(2, 4, 20).to(mine.weight.dtype)
    for v in (x, x[0]):
        y = mine(v)
        assert y.dtype == mine.weight.dtype
        torch.testing.assert_close(y, other(v.double()).to(y.dtype))


@every_function
def test_constructors_take_what_those_of_torch_take(function):
    ours, theirs = (inspect.signature(layer).parameters for layer in function.layers)
    assert [p.name for p in ours.values()] == [*theirs, "activation"]
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
        assert ours[name].kind == parameter.kind


@every_function
def test_functions_take_what_those_of_torch_take(function):
    signature = inspect.signature(function.ours)
    *names, activation = signature.parameters.values()
    order = function.theirs.__doc__.split("(", 1)[1].split(")")[0]
    assert [p.name for p in names] == [part.split("=")[0].strip() for part in order.split(",")]
    assert activation.kind == activation.KEYWORD_ONLY


@pytest.mark.parametrize("module", [_functional, _modules, _convert], ids=lambda m: m.__name__)
def test_examples_of_docstrings(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


def test_example_of_the_documentation(capsys):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("padding", "sides"), [((3, 1), (3, 1)), ("causal", (4, 0)), (2, (2, 2))])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_sides_and_modes_of_padding(padding, sides, mode):
    layer = Conv1d(3, 5, 3, dilation=2, padding=padding, padding_mode=mode, activation="relu")
    x = torch.randn(2, 3, 12)
    padded = nn.functional.pad(x, sides, mode="constant" if mode == "zeros" else mode)
    expected = nn.functional.conv1d(padded, layer.weight, layer.bias, dilation=2).relu()
    torch.testing.assert_close(layer(x), expected)
    assert "activation='relu'" in str(layer)


@pytest.mark.parametrize("width", [23, 24, 25])
def test_output_size(width):
    ours = ConvTranspose1d(2, 3, 4, stride=3, padding=1)
    theirs = nn.ConvTranspose1d(2, 3, 4, stride=3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, 8)
    torch.testing.assert_close(ours(x, [width]), theirs(x, [width]))
    lopsided = ConvTranspose1d(2, 3, 4, stride=3, padding=(2, 0))
    assert lopsided(x, [1, 3, width]).shape == (1, 3, width)


def test_output_size_out_of_reach():
    layer = ConvTranspose1d(2, 3, 4, stride=3, padding=1)
    for width in (22, 26):
        with pytest.raises(ValueError, match="output_padding"):
            layer(torch.randn(1, 2, 8), [width])


@pytest.mark.parametrize("layer", [Conv1d, ConvTranspose1d])
@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"padding": "full"}, ValueError, "padding"),
        ({"padding": (1, 2, 3)}, ValueError, "padding"),
        ({"padding": -1}, ValueError, "padding"),
        ({"padding": 1.5}, TypeError, "padding"),
        ({"activation": "tanh"}, ValueError, "activation"),
        ({"activation": torch.relu}, TypeError, "activation"),
        ({"groups": 3}, ValueError, "groups"),
    ],
)
def test_errors_of_constructors(layer, options, error, word):
    with pytest.raises(error, match=word):
        layer(4, 6, 3, **options)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_copies(copied):
    layers = nn.Sequential(
        Conv1d(3, 4, 5, padding=(1, 3), activation="relu"),
        ConvTranspose1d(4, 2, 3, stride=2, padding="causal"),
        nn.Conv1d(2, 2, 3),
    )
    convert(layers)
    x = torch.randn(2, 3, 20)
    twin = copied(layers)
    assert torch.equal(twin(x), layers(x))
    with torch.no_grad():
        twin[0].weight.zero_()
    assert layers[0].weight.any()


# --- convert -------------------------------------------------------------------------------------


class Renamed(nn.Conv1d):
    """Somebody's own layer."""


def model():
    shared = nn.Conv1d(4, 4, 3, padding=1)
    replaced = nn.Conv1d(4, 4, 1)
    replaced.forward = lambda x: x
    return nn.ModuleDict(
        {
            "block": nn.Sequential(nn.Conv1d(3, 4, 5, padding="same"), nn.ReLU(), shared, shared),
            "up": nn.ConvTranspose1d(4, 2, 4, stride=2),
            "flat": nn.Conv2d(1, 1, 3),
            "own": Renamed(4, 4, 3),
            "lazy": nn.LazyConv1d(4, 3),
            "float16": nn.Conv1d(4, 4, 3, dtype=torch.float16),
            "replaced": replaced,
            "parametrized": nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)),
        }
    )


def test_convert():
    layers = model()
    parameters = dict(layers.named_parameters())
    modules = dict(layers.named_modules())
    x = torch.randn(2, 3, 30)
    expected = layers["up"](layers["block"](x))
    report = convert(layers)
    assert report.converted == ("block.0", "block.2", "up")
    assert set(report.left_alone) == {"flat", "own", "lazy", "float16", "replaced", "parametrized"}
    assert "2 spatial axes" in report.left_alone["flat"]
    assert "Renamed is a subclass" in report.left_alone["own"]
    assert "no parameters" in report.left_alone["lazy"]
    assert "float16" in report.left_alone["float16"]
    assert "forward" in report.left_alone["replaced"]
    assert "subclass" in report.left_alone["parametrized"]
    assert str(report).startswith("3 converted, 6 left alone\n  flat: has 2 spatial axes\n")
    assert dict(layers.named_modules()) == modules
    for name, parameter in layers.named_parameters():
        assert parameter is parameters[name]
    assert type(layers["block"][2]) is Conv1d
    assert type(layers["up"]) is ConvTranspose1d
    torch.testing.assert_close(layers["up"](layers["block"](x)), expected)


def test_convert_twice_and_a_layer_itself():
    layer = nn.Conv1d(2, 2, 3)
    assert convert(layer).converted == ("",)
    assert type(layer) is Conv1d
    again = convert(layer)
    assert (again.converted, again.left_alone) == ((), {})


def test_convert_keeps_hooks_mode_and_optimizer():
    layers = nn.Sequential(nn.Conv1d(2, 3, 5), nn.Conv1d(3, 1, 1)).eval()
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.1)
    calls = []
    layers[0].register_forward_hook(lambda *_: calls.append("forward"))
    layers[0].weight.register_hook(lambda grad: calls.append("backward"))
    convert(layers)
    assert not layers[0].training
    before = layers[0].weight.detach().clone()
    layers(torch.randn(2, 2, 30)).square().sum().backward()
    optimizer.step()
    assert calls == ["forward", "backward"]
    assert not torch.equal(layers[0].weight, before)


def test_convert_a_layer_that_has_become_one():
    lazy = nn.Sequential(nn.LazyConv1d(4, 3))
    lazy(torch.randn(1, 2, 9))
    assert convert(lazy).converted == ("0",)


def test_convert_what_is_no_model():
    with pytest.raises(TypeError, match="model should be a torch.nn.Module, not list"):  # noqa: RUF043
        convert([nn.Conv1d(1, 1, 1)])


def test_converted_models_load_their_checkpoints():
    layers = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(4, 3, 5))
    file = io.BytesIO()
    torch.save(layers.state_dict(), file)
    file.seek(0)
    fresh = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(4, 3, 5))
    convert(fresh)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, 3, 20)
    torch.testing.assert_close(fresh(x), layers(x))


def test_functional_layers():
    """Parametrised weights reach the convolution as any tensor does."""
    layer = nn.utils.parametrizations.weight_norm(Conv1d(3, 4, 5))
    x = torch.randn(2, 3, 20)
    expected = conv1d(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), expected)
