"""The layer and the reference refuse what the functions refuse; malformed lines: `test_text.py`.

The mistakes are those of `test_errors.py`. The layer's are the mistakes in `conv1d` and
`conv1d_backward_data`, wherever in construction and call the argument belongs. The reference takes
arrays of any real dtype and whatever NumPy makes an array of, so it has a table of its own for
these; all the other mistakes are the same.
"""

import ml_dtypes
import numpy as np
import pytest
import test_errors
from test_errors import FUNCTIONS, Case, check_refusal, correct_arguments, operands_of

import xsmmconv
from xsmmconv import reference

CONSTRUCTION = {"weight", "bias", "stride", "padding", "dilation", "groups", "activation"}
LAYER_METHODS = {"conv1d": xsmmconv.Conv1d.__call__, FUNCTIONS[1]: xsmmconv.Conv1d.backward_data}


def call_layer(function, **arguments):
    made_of = {name: arguments.pop(name) for name in CONSTRUCTION & arguments.keys()}
    return LAYER_METHODS[function](xsmmconv.Conv1d(**made_of), **arguments)


def mistakes(tables, functions):
    return [case for table in tables for case in table() if case.function in functions]


def mistakes_in_layers():
    for case in mistakes(test_errors.TABLES, LAYER_METHODS):
        # Of what it is made of, the layer has copies: `out` may share memory with the originals.
        if not ("out" in case.names and CONSTRUCTION & set(case.names)):
            yield case


@pytest.mark.parametrize("function", LAYER_METHODS)
def test_layer_takes_correct_arguments(function):
    arguments = correct_arguments(function)
    expected = getattr(xsmmconv, function)(**correct_arguments(function))
    np.testing.assert_array_equal(call_layer(function, **arguments), expected)


@pytest.mark.parametrize("case", [*mistakes_in_layers()], ids=str)
def test_layer_refuses(case):
    def call(**arguments):
        return call_layer(case.function, **arguments)

    check_refusal(case, call, correct_arguments(case.function))


def test_layer_is_as_it_was_after_refusals():
    arguments = correct_arguments("conv1d")
    made_of = {name: arguments.pop(name) for name in CONSTRUCTION & arguments.keys()}
    layer = xsmmconv.Conv1d(**made_of)
    expected = layer(**arguments).copy()
    refused = 0
    for case in mistakes(test_errors.TABLES, ["conv1d"]):
        if not callable(case.changes) and not CONSTRUCTION & case.changes.keys():
            with pytest.raises(case.error):
                layer(**arguments | case.changes)
            refused += 1
    assert refused > 100
    np.testing.assert_array_equal(layer(**arguments), expected)


# The reference.


def without_machine(function):
    arguments = correct_arguments(function)
    del arguments["out"], arguments["threads"]
    return arguments


def shared_mistakes():
    tables = [
        test_errors.shapes_of_operands,
        test_errors.fits,
        test_errors.integers,
        test_errors.paddings,
        test_errors.names_and_dtypes,
    ]
    for case in mistakes(tables, FUNCTIONS):
        if not {"threads", "dtype"} & case.changes.keys():
            yield case


def operands_that_are_no_numbers():
    kinds = {
        "string": "x",
        "bytes": b"1234",
        "dictionary": {},
        "type": np.ndarray,
        "object": object(),
        "complex number": 1j,
        "list of strings": [["a", "b"], ["c", "d"]],
        "list of None": [[None]],
        "list of integers beyond 64 bits": [[10**30]],
    }
    dtypes = ["c8", "c16", "O", "U3", "S4", "V2", "M8[s]", "m8[s]", "f4,f4"]
    for function in FUNCTIONS:
        for name in operands_of(function):
            for kind, value in kinds.items():
                yield Case(function, f"{name} is a {kind}", {name: value}, TypeError, (name,))
            if name != "bias":
                yield Case(function, f"{name} is None", {name: None}, TypeError, (name,))
            right = correct_arguments(function)[name]
            masked = {name: np.ma.masked_array(right, mask=False)}
            yield Case(function, f"{name} is masked", masked, TypeError, (name,))
            for dtype in dtypes:
                zeros = {name: np.zeros(right.shape, dtype)}
                what = f"{name} has dtype {dtype}"
                yield Case(function, what, zeros, TypeError, (name,), (str(zeros[name].dtype),))
            for what, value in {"a number": 1.0, "a bool": True, "ragged": [[1], [2, 3]]}.items():
                yield Case(function, f"{name} is {what}", {name: value}, ValueError, (name,))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_reference_takes_correct_arguments(function):
    expected = getattr(xsmmconv, function)(**correct_arguments(function))
    got = getattr(reference, function)(**without_machine(function))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", [*shared_mistakes(), *operands_that_are_no_numbers()], ids=str)
def test_reference_refuses(case):
    check_refusal(case, getattr(reference, case.function), without_machine(case.function))


def mistakes_in_bounds():
    def case(error, name, value, *more_names):
        what = f"{name}={value!r}".split(" at 0x")[0]
        return Case("error_bound", what, {name: value}, error, (name, *more_names))

    for name in ("expected", "magnitude", "terms"):
        for value in ("x", None, {}, 1j, [None], object(), np.zeros((2, 3), "m8[s]"), ["1"]):
            yield case(TypeError, name, value)
        yield case(TypeError, name, np.ma.masked_array([1.0], mask=False))
        yield case(ValueError, name, [[1], [2, 3]])
        yield case(ValueError, name, np.zeros(4), "expected", "magnitude", "terms")
    for dtype in ("f2", "i4", ">f4", "O", "nonsense", None, 3, object(), complex):
        yield case(TypeError, "dtype", dtype)


@pytest.mark.parametrize("case", [*mistakes_in_bounds()], ids=str)
def test_error_bound_refuses(case):
    ones = np.ones((2, 3))
    arguments = {"expected": ones, "magnitude": ones, "terms": 7, "dtype": ml_dtypes.bfloat16}
    assert reference.error_bound(**arguments).shape == (2, 3)
    check_refusal(case, reference.error_bound, arguments)
