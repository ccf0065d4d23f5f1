"""What the public functions accept, and what they raise otherwise.

General
- TypeError: an argument of the wrong kind (type or dtype). ValueError: the right kind with a wrong
  value (rank, shape, number, unknown string). A caller's mistake raises nothing else, apart from
  NumPy's MemoryError for a result that does not fit into memory.
- The message names the argument as a word, spelt as in the signature, and shows the offending
  shapes, dtypes or numbers. Where two arguments do not fit each other, both are named.
- All checks come before any work: a call that raises leaves its inputs and `out` bitwise as they
  were. No warnings are issued. Which of several mistakes is reported is not specified.

x, weight, bias, grad_out
- are np.ndarray of native float32, float64 or bfloat16. TypeError for anything else: lists,
  scalars, None (but bias=None is no bias), objects with __array__, masked arrays (the mask would be
  lost), all other dtypes, byte-swapped ones included. Other subclasses count as plain arrays.
- have one dtype, but bias may be float32 always: else TypeError.
- x and grad_out have 3 axes, or 2 (no batch axis); weight has 3, bias 1. Every extent is at least 1
  and below 2**40; N may be 0. Else ValueError.
- may have any strides and alignment, be read-only, and overlap each other.

How they fit each other, else ValueError
- groups divides C and K, and the channels of one operand are those of the other.
- bias has shape (K,): as many as the result has channels.
- the filter is not wider than the padded input (names weight, input_width or filter_width).
- the width of grad_out is the output width that input_width, or x and filter_width, lead to.
- a transposed convolution leaves at least one column (names padding).
- the result is smaller than 2**47 bytes (names out); in `plan` each array of the problem is.

Integers: stride, dilation, groups, input_width, filter_width >= 1, padding >= 0,
0 <= output_padding < max(stride, dilation), threads >= 1 or None, n >= 1
- are whatever operator.index takes, but no bool: else TypeError. Outside the range, or 2**40 and
  more: ValueError.

padding is an integer, a tuple or list of two, "valid", "same" (with stride 1 only) or "causal".
Another string or length: ValueError. Another kind, also inside the tuple: TypeError.

activation is None or "relu". Another string: ValueError. Another kind: TypeError.

dtype of conv1d_backward_weight is None, the operands' dtype, or float32 for bfloat16 operands;
dtype of plan is one of the three. Else TypeError.

out is None or an np.ndarray (TypeError: anything else, masked arrays) of the result's shape and
dtype, C-contiguous, aligned and writable, which shares no memory with an input (else ValueError).

plan: pass_ is one of the three names (ValueError: another string, TypeError: another kind). x_shape
and weight_shape are tuples or lists (else TypeError) of integers (as above, but N may be 0), 2 or
3 of them and 3 of them (else ValueError), which fit each other like those of conv1d.
"""

import re
import subprocess
import sys
import warnings
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

import xsmmconv

FUNCTIONS = ("conv1d", "conv1d_backward_data", "conv1d_backward_weight", "conv_transpose1d")
INTEGERS = {
    "conv1d": ("stride", "dilation", "groups", "threads"),
    "conv1d_backward_data": ("stride", "dilation", "groups", "threads", "input_width"),
    "conv1d_backward_weight": ("stride", "dilation", "groups", "threads", "filter_width"),
    "conv_transpose1d": ("stride", "dilation", "groups", "threads", "output_padding"),
    "plan": ("stride", "dilation", "groups", "threads"),
}
WITH_BIAS = ("conv1d", "conv_transpose1d")


def array(*shape, dtype=np.float32):
    return np.arange(1, 1 + np.prod(shape)).reshape(shape).astype(dtype)


def correct_arguments(function):
    """A call that works, as keywords: every case below changes something in it."""
    x, weight, y = array(2, 4, 20), array(6, 2, 3), array(2, 6, 20)
    arguments = {
        "conv1d": {"x": x, "weight": weight, "bias": array(6), "out": y},
        "conv1d_backward_data": {"grad_out": y, "weight": weight, "input_width": 20, "out": x},
        "conv1d_backward_weight": {"grad_out": y, "x": x, "filter_width": 3, "out": weight},
        "conv_transpose1d": {"x": y, "weight": weight, "bias": array(4), "out": x},
        "plan": {"pass_": "forward", "x_shape": x.shape, "weight_shape": weight.shape},
    }[function]
    return arguments | {"groups": 2, "padding": 1, "threads": 1}


def operands_of(function):
    return [
        name
        for name, value in correct_arguments(function).items()
        if isinstance(value, np.ndarray) and name != "out"
    ]


@dataclass(frozen=True)
class Case:
    function: str
    what: str
    changes: object  # {argument: value}, or a function that makes it from the correct arguments
    error: type
    names: tuple  # words in the message
    shows: tuple = ()  # numbers, shapes, ... in the message

    def __str__(self):
        return f"{self.function}-{self.what}"


def kinds_of_arrays():
    class Convertible:
        def __array__(self, dtype=None, copy=None):
            return array(2, 4, 20)

    values = {
        "list": array(2, 4, 20).tolist(),
        "list of strings": [["a", "b"], ["c", "d"]],
        "tuple": ((1.0, 2.0), (3.0, 4.0)),
        "float": 1.0,
        "string": "x",
        "bytes": b"1234",
        "NumPy scalar": np.float32(1),
        "bool": True,
        "dictionary": {},
        "object with __array__": Convertible(),
        "memoryview": memoryview(array(2, 4, 20)),
        "type": np.ndarray,
    }
    for function in FUNCTIONS:
        for name in [*operands_of(function), "out"]:
            for kind, value in values.items():
                yield Case(function, f"{name} is a {kind}", {name: value}, TypeError, (name,))
            masked = np.ma.masked_array(correct_arguments(function)[name], mask=False)
            yield Case(function, f"{name} is masked", {name: masked}, TypeError, (name,))
            if name not in ("bias", "out"):
                yield Case(function, f"{name} is None", {name: None}, TypeError, (name,))


def dtypes_of_operands():
    dtypes = ["f2", "i1", "i4", "i8", "u8", "?", "c8", "g", "O", "U3", "S4", "V2", "M8[s]", "m8[s]"]
    dtypes += [">f4", ">f8", "f4,f4"]
    for function in FUNCTIONS:
        arguments = correct_arguments(function)
        for name in operands_of(function):
            for dtype in dtypes:
                changed = np.zeros(arguments[name].shape, dtype)
                what = f"{name} has dtype {dtype}"
                yield Case(function, what, {name: changed}, TypeError, (name,))
            for dtype in (np.float64, ml_dtypes.bfloat16):
                shown = (np.dtype(dtype).name,)
                what = f"{name} alone is {shown[0]}"
                changed = {name: arguments[name].astype(dtype)}
                yield Case(function, what, changed, TypeError, (name,), (*shown, "float32"))


def shapes_of_operands():
    for function in FUNCTIONS:
        for name in operands_of(function):
            shape = correct_arguments(function)[name].shape
            wrong = [(), (*shape, 1), (1, *shape)]
            if name in ("weight", "bias"):
                wrong += [shape[1:], (0, *shape[1:])]
            else:
                wrong += [shape[2:], (0, 0, 20), (2, 0, 20)]
            if len(shape) == 3:
                wrong += [(*shape[:2], 0)]
            for shape in wrong:
                change = {name: np.zeros(shape, np.float32)}
                yield Case(function, f"{name} {shape}", change, ValueError, (name,))
            huge = np.broadcast_to(np.float32(0), (2**40, *[1] * (len(shape) - 1)))
            yield Case(function, f"{name} has 2**40 rows", {name: huge}, ValueError, (name,))


def fits():
    """Correct arguments, each by itself, that do not fit each other."""

    def case(function, names, shows=(), **changes):
        shown = {k: v.shape if isinstance(v, np.ndarray) else v for k, v in changes.items()}
        what = " ".join(f"{name}={value}" for name, value in shown.items())
        return Case(function, f"fit {what}", changes, ValueError, names, shows)

    no_bias = {"bias": None}
    forward, data, weight, transposed = FUNCTIONS
    yield case(forward, ("groups", "x"), ("3", "(2, 4, 20)"), groups=3)
    yield case(forward, ("groups", "weight"), ("4", "(6, 1, 3)"), groups=4, weight=array(6, 1, 3))
    yield case(forward, ("x", "weight"), ("(2, 4, 20)", "(6, 2, 3)"), groups=1)
    yield case(forward, ("x", "weight"), ("(2, 6, 20)", "(6, 2, 3)"), x=array(2, 6, 20))
    yield case(forward, ("x", "weight"), ("(6, 4, 3)",), weight=array(6, 4, 3))
    yield case(forward, ("bias",), ("(4,)", "(6,)"), bias=array(4))
    yield case(forward, ("bias",), ("(7,)", "(6,)"), bias=array(7))
    yield case(forward, ("bias",), ("(1,)", "(6,)"), bias=array(1))
    yield case(forward, ("weight",), ("23", "20"), weight=array(6, 2, 23))
    yield case(forward, ("weight",), ("11", "20"), dilation=11)
    yield case(forward, ("weight",), ("20",), padding=0, dilation=10)
    yield case(forward, ("weight",), (str(2**39),), dilation=2**39)
    yield case(forward, ("out",), (), padding=2**39, x=array(2**10, 4, 20), **no_bias)
    yield case(data, ("grad_out", "weight"), ("(2, 5, 20)", "(6, 2, 3)"), grad_out=array(2, 5, 20))
    yield case(data, ("grad_out", "weight"), ("(2, 6, 20)",), weight=array(8, 2, 3))
    yield case(data, ("groups", "weight"), ("4", "(6, 2, 3)"), groups=4)
    yield case(data, ("grad_out", "input_width"), ("20", "21"), input_width=21)
    yield case(data, ("grad_out", "input_width"), ("20", "19"), input_width=19)
    yield case(data, ("grad_out", "input_width"), ("20", "10"), stride=2)
    yield case(data, ("grad_out", "input_width"), ("20", "18"), padding=0)
    yield case(data, ("input_width",), ("19", "20"), dilation=19, input_width=20)
    yield case(data, ("grad_out", "input_width"), (str(2**40 - 1),), input_width=2**40 - 1)
    yield case(weight, ("grad_out", "x"), ("(3, 6, 20)",), grad_out=array(3, 6, 20))
    yield case(weight, ("grad_out", "x"), ("(6, 20)", "(2, 4, 20)"), grad_out=array(6, 20))
    yield case(weight, ("grad_out", "x"), ("(2, 6, 20)", "(4, 20)"), x=array(4, 20))
    yield case(weight, ("groups", "x"), ("3", "(2, 4, 20)"), groups=3)
    yield case(weight, ("groups", "grad_out"), ("4", "(2, 6, 20)"), groups=4)
    yield case(weight, ("grad_out", "filter_width"), ("20", "19"), filter_width=4)
    yield case(weight, ("grad_out", "filter_width"), ("20", "22"), filter_width=1)
    yield case(weight, ("grad_out", "filter_width"), ("20", "18"), padding=0)
    yield case(weight, ("filter_width",), ("23", "20"), filter_width=23)
    yield case(weight, ("filter_width",), (str(2**40 - 1),), filter_width=2**40 - 1)
    yield case(transposed, ("x", "weight"), ("(2, 5, 20)", "(6, 2, 3)"), x=array(2, 5, 20))
    yield case(transposed, ("groups", "x"), ("4", "(2, 6, 20)"), groups=4)
    yield case(transposed, ("bias",), ("(6,)", "(4,)"), bias=array(6))
    yield case(transposed, ("padding",), ("11",), padding=11)
    yield case(transposed, ("padding",), ("22", "0"), padding=(22, 0))
    yield case(transposed, ("output_padding",), ("1",), output_padding=1)
    yield case(transposed, ("output_padding",), ("3",), output_padding=3, stride=3, dilation=2)
    yield case(transposed, ("out",), (), stride=2**39, x=array(2**6, 6, 20), **no_bias)
    shapes = ("x_shape", "weight_shape")
    yield case("plan", ("groups", "x_shape"), ("3",), groups=3)
    yield case("plan", ("groups", "weight_shape"), ("4",), groups=4, weight_shape=(6, 1, 3))
    yield case("plan", shapes, ("(6, 4, 3)",), weight_shape=(6, 4, 3))
    yield case("plan", shapes, ("(2, 6, 20)",), x_shape=(2, 6, 20))
    yield case("plan", ("weight_shape",), ("23",), weight_shape=(6, 2, 23))
    yield case("plan", ("weight_shape",), ("11",), dilation=11)
    yield case("plan", (), (), padding=2**39, x_shape=(2**10, 4, 20))
    yield case("plan", (), (), x_shape=(2**39, 4, 20))
    yield case("plan", (), (), stride=2**38, x_shape=(2**10, 4, 2**39))


def integers():
    wrong_kinds = [True, np.True_, 1.0, 2.5, float("nan"), "1", b"1", 1j, (1,), [1], object(), {}]
    wrong_kinds += [np.float32(1), np.array([1]), np.array([1, 2]), np.array(1.0)]
    wrong_values = [-1, -(2**63), 2**40, 2**63, 2**64, 10**30, np.int64(-1), np.uint64(2**63)]
    for function, parameters in INTEGERS.items():
        for name in parameters:
            for value in wrong_kinds if name == "threads" else [*wrong_kinds, None]:
                what = f"{name}={value!r}".split(" at 0x")[0]
                yield Case(function, what, {name: value}, TypeError, (name,))
            for value in wrong_values if name == "output_padding" else [*wrong_values, 0]:
                what = f"{name}={value!r}"
                yield Case(function, what, {name: value}, ValueError, (name,), (str(value),))

        long = {parameters[0]: 10**5000}  # Python refuses to print it
        yield Case(function, "too long", long, ValueError, (parameters[0],), ("too long",))


def paddings():
    wrong_kinds = [True, np.True_, 1.0, float("nan"), None, b"same", 1j, {1, 2}, {}, range(2)]
    wrong_kinds += [np.array([1, 1]), (1.0, 1), (1, None), ("1", 1), [True, 1], ((1, 1), 1), object]
    wrong_values = ["full", "SAME", "same ", "", (), (1,), [1], (1, 1, 1), -1, (-1, 0), [0, -1]]
    wrong_values += [2**40, (2**40, 0), (0, 2**63), 2**64, np.int64(-3)]
    for function in (*FUNCTIONS, "plan"):
        for value in wrong_kinds:
            yield Case(function, f"padding={value!r}", {"padding": value}, TypeError, ("padding",))
        for value in wrong_values:
            yield Case(function, f"padding={value!r}", {"padding": value}, ValueError, ("padding",))
        same = {"padding": "same", "stride": 2}
        yield Case(function, "same, stride 2", same, ValueError, ("padding", "stride"), ("2",))


def names_and_dtypes():
    for function in WITH_BIAS:
        for value in (1, True, False, 0.5, b"relu", ["relu"], ("relu",), np.maximum):
            what = f"activation={value!r}"
            yield Case(function, what, {"activation": value}, TypeError, ("activation",))
        for value in ("ReLU", "tanh", "", "none", "relu "):
            what = f"activation={value!r}"
            yield Case(function, what, {"activation": value}, ValueError, ("activation",), (value,))

    never = ["f2", "i4", ">f4", "O", "nonsense", "", 3, 1.5, object(), [], ("f4", "f8"), complex]
    function = "conv1d_backward_weight"
    for value in [*never, "float64", np.float64, ml_dtypes.bfloat16]:
        what = f"dtype={value!r}".split(" at 0x")[0]
        yield Case(function, what, {"dtype": value}, TypeError, ("dtype",))
    for value in [*never, None]:
        what = f"dtype={value!r}".split(" at 0x")[0]
        yield Case("plan", what, {"dtype": value}, TypeError, ("dtype",))
    for value in (None, 1, b"forward", ("forward",), True, object()):
        what = f"pass_={value!r}".split(" at 0x")[0]
        yield Case("plan", what, {"pass_": value}, TypeError, ("pass_",))
    for value in ("", "Forward", "backward", "transposed", "conv1d"):
        yield Case("plan", f"pass_={value!r}", {"pass_": value}, ValueError, ("pass_",))


def shapes_of_plans():
    wrong_kinds = [None, 3, 20.0, "(2, 4, 20)", {2, 4, 20}, np.array([2, 4, 20]), b"abc"]
    wrong_entries = [1.0, None, "2", True, (2,), np.float64(2), float("nan")]
    wrong_extents = [0, -1, 2**40, 2**63, 10**30]
    for name, shape in (("x_shape", (2, 4, 20)), ("weight_shape", (6, 2, 3))):
        for value in wrong_kinds + [(*shape[:2], entry) for entry in wrong_entries]:
            yield Case("plan", f"{name}={value!r}", {name: value}, TypeError, (name,))
        lengths = [(), (4,), (1, 2, 4, 20)] + ([shape[:2]] if name == "weight_shape" else [])
        extents = [(2, extent, 20) for extent in wrong_extents]
        extents += [(*shape[:2], extent) for extent in wrong_extents]
        extents += [(-1, *shape[1:]), (2**40, *shape[1:])]
        for value in lengths + extents:
            yield Case("plan", f"{name}={value!r}", {name: value}, ValueError, (name,))


def outs():
    def strided(shape, axis):
        wide = list(shape)
        wide[axis] *= 2
        return np.full(wide, 7, np.float32)[
            tuple(np.s_[::2] if a == axis else np.s_[:] for a in range(3))
        ]

    for function in FUNCTIONS:
        shape = correct_arguments(function)["out"].shape
        right = np.full(shape, 7, np.float32)
        read_only = right.copy()
        read_only.flags.writeable = False
        wrong = {
            "Fortran-ordered": np.asfortranarray(right),
            "reversed": right[::-1],
            "reversed columns": right[..., ::-1],
            "transposed": np.full(shape[::-1], 7, np.float32).T,
            "read-only": read_only,
            "broadcast": np.broadcast_to(np.float32(7), shape),
            "misaligned": np.full(right.nbytes + 1, 7, np.uint8)[1:].view("f4").reshape(shape),
        }
        wrong |= {f"strided along axis {axis}": strided(shape, axis) for axis in range(3)}
        for what, out in wrong.items():
            yield Case(function, f"out is {what}", {"out": out}, ValueError, ("out",))

        shapes = [shape[1:], (1, *shape), (), (int(np.prod(shape)),), shape[::-1]]
        shapes += [tuple(e + (a == axis) for a, e in enumerate(shape)) for axis in range(3)]
        shapes += [tuple(e - (a == axis) for a, e in enumerate(shape)) for axis in range(3)]
        for wrong in shapes:
            out = {"out": np.full(wrong, 7, np.float32)}
            yield Case(
                function, f"out {wrong}", out, ValueError, ("out",), (str(shape), str(wrong))
            )
        for dtype in ("f8", "f2", "i4", "u2", "O", ">f4", "f4,f4", ml_dtypes.bfloat16):
            out = {"out": np.full(shape, 7).astype(dtype)}
            what = f"out has dtype {np.dtype(dtype)}"
            yield Case(function, what, out, ValueError, ("out",), ("float32",))
        for name in operands_of(function):
            yield from overlaps(function, name)


def overlaps(function, name):
    """`out` that shares memory with one operand: one element, all of it, every other element."""

    def contiguous(offset_of_out):
        def changes(arguments):
            operand, out = arguments[name], arguments["out"]
            buffer = np.ones(out.size + operand.size + out.size, np.float32)
            start = offset_of_out(operand.size, out.size)
            return {
                name: buffer[out.size :][: operand.size].reshape(operand.shape),
                "out": buffer[start:][: out.size].reshape(out.shape),
            }

        return changes

    def interleaved(arguments):
        operand, out = arguments[name], arguments["out"]
        buffer = np.ones(2 * operand.size + out.size, np.float32)
        return {
            name: buffer[: 2 * operand.size : 2].reshape(operand.shape),
            "out": buffer[: out.size].reshape(out.shape),
        }

    overlapping = {
        "the first element of": contiguous(lambda operand, out: 1),
        "the beginning of": contiguous(lambda operand, out: out),
        "the last element of": contiguous(lambda operand, out: out + operand - 1),
        "every other element with": interleaved,
    }
    for what, changes in overlapping.items():
        yield Case(function, f"out shares {what} {name}", changes, ValueError, ("out", name))


TABLES = [
    kinds_of_arrays,
    dtypes_of_operands,
    shapes_of_operands,
    fits,
    integers,
    paddings,
    names_and_dtypes,
    shapes_of_plans,
    outs,
]


@pytest.mark.parametrize("function", [*FUNCTIONS, "plan"])
def test_correct_arguments_are_accepted(function):
    getattr(xsmmconv, function)(**correct_arguments(function))


@pytest.mark.parametrize("case", [case for table in TABLES for case in table()], ids=str)
def test_mistake(case):
    check_refusal(case, getattr(xsmmconv, case.function), correct_arguments(case.function))


def check_refusal(case, function, arguments):
    changes = case.changes(arguments) if callable(case.changes) else case.changes
    if "out" in arguments.keys() - changes.keys():
        arguments["out"][...] = np.nan
    arguments |= changes
    arrays = {k: v for k, v in arguments.items() if isinstance(v, np.ndarray) and v.size < 2**20}
    before = {name: value.tobytes() for name, value in arrays.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**arguments)

    message = str(caught.value)
    assert type(caught.value) is case.error, message
    for name in case.names:
        assert re.search(rf"\b{name}\b", message), f"{name} is not named: {message}"
    for number in case.shows:
        assert number in message, f"{number} is not shown: {message}"
    for name, value in arrays.items():
        assert value.tobytes() == before[name], f"{name} has changed"


@pytest.mark.parametrize("alias", [lambda array: array, lambda array: array[:], np.asarray])
@pytest.mark.parametrize("name", ["x", "grad_out", "weight"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_out_is_an_operand_itself(function, name, alias):
    # All arrays have one shape.
    values = {name: array(6, 6, 6) for name in ("x", "grad_out", "weight")}
    widths = {"conv1d_backward_data": {"input_width": 6}, FUNCTIONS[2]: {"filter_width": 6}}
    taken = {name: values[name] for name in operands_of(function) if name != "bias"}
    if name not in taken:
        name = next(iter(taken))
    padding = (5, 0) if function != "conv_transpose1d" else (0, 5)
    before = values[name].copy()
    with pytest.raises(ValueError, match=rf"\bout\b.*\b{name}\b"):
        getattr(xsmmconv, function)(
            **taken, **widths.get(function, {}), padding=padding, out=alias(values[name])
        )
    np.testing.assert_array_equal(values[name], before)


@pytest.mark.parametrize(
    ("n", "error"),
    [(n, ValueError) for n in (0, -1, 2**40, 2**63, 10**400, np.int64(-1), np.uint64(2**63))]
    + [(n, TypeError) for n in (None, 1.0, "2", True, float("nan"), (2,), [1], b"1", 1j, {})]
    + [(n, TypeError) for n in (np.True_, np.float32(1), np.array(1.0), np.array([1, 2]))],
)
def test_set_num_threads_refuses(n, error):
    before = xsmmconv.get_num_threads()
    with pytest.raises(error, match=r"\bn\b"):
        xsmmconv.set_num_threads(n)
    assert xsmmconv.get_num_threads() == before


LIMITED = """
import resource
import numpy as np
import xsmmconv

one = np.ones((1, 1, 1), np.float32)
xsmmconv.conv1d(one, one)
resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
for call in (
    lambda: xsmmconv.conv1d(one, one, padding=2**32),
    lambda: xsmmconv.conv_transpose1d(np.ones((1, 1, 3), np.float32), one, stride=2**33),
    lambda: xsmmconv.conv1d_backward_data(one, one, 2**34, stride=2**35),
):
    try:
        call()
    except MemoryError:
        print("MemoryError")
print(xsmmconv.conv1d(2 * one, 3 * one))
"""


def test_a_result_beyond_memory_is_a_memory_error():
    # In a process of its own that is allowed 8 GB: the results would take 32 GB and more.
    child = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60
    )
    assert child.stdout.split() == ["MemoryError"] * 3 + ["[[[6.]]]"], child.stderr
