"""Every public function and method has a complete numpydoc docstring.

Complete: a summary line, every parameter and no other with its type, what is returned, what is
raised, and for a function or class a runnable example. Arrays have their shapes.
"""

import inspect
import re

import pytest

import xsmmconv
from xsmmconv import reference

FUNCTIONS = {
    **{f"xsmmconv.{n}": getattr(xsmmconv, n) for n in xsmmconv.__all__},
    **{f"xsmmconv.reference.{n}": getattr(reference, n) for n in reference.__all__},
}
CLASSES = {name: value for name, value in FUNCTIONS.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in FUNCTIONS.items() if inspect.isfunction(value)}
METHODS = {
    f"{name}.{method}": value
    for name, class_ in CLASSES.items()
    for method, value in vars(class_).items()
    if inspect.isfunction(value) and (method == "__call__" or not method.startswith("_"))
}
ARRAYS = {"x", "weight", "bias", "grad_out", "out"}


def sections(documented):
    """{title: text} of a docstring; the part before the first title is called ""."""
    text = inspect.getdoc(documented) or ""
    parts = re.split(r"^(\S.*)\n-{3,}$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section):
    """{name: type} of a section; names that share an entry share its type."""
    lines = re.findall(r"^(\w[\w, ]*?)(?: : (.*))?$", section, flags=re.MULTILINE)
    return {name: type_ for names, type_ in lines for name in names.split(", ")}


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def missing(name, documented, *wanted):
    found = sections(documented)
    lacking = [title for title in wanted if not found.get(title, "").strip()]
    assert not lacking, f"{name} has no {', '.join(lacking)}"
    summary = found[""].strip().splitlines()
    assert summary, f"{name} has no docstring"
    assert summary[0].endswith("."), f"{name}: {summary[0]!r}"
    assert summary[1:2] in ([], [""]), f"{name}: the summary should be one line"
    return found


def check_parameters(name, function, found):
    described = entries(found.get("Parameters", ""))
    assert sorted(described) == sorted(parameters(function)), name
    for parameter in ARRAYS & described.keys():
        assert "shape (" in described[parameter], f"{name}: {parameter} has no shape"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function = FUNCTIONS[name]
    wanted = ["Examples"]
    wanted += ["Parameters"] if parameters(function) else []
    found = missing(name, function, *wanted)
    assert ">>> " in found["Examples"]
    check_parameters(name, function, found)
    returns_nothing = name in ("xsmmconv.set_num_threads", "xsmmconv.show_config")
    assert ("Returns" in found) is not returns_nothing, name
    raises_nothing = ("get_num_threads", "show_config")
    assert ("Raises" in found) is not name.endswith(raises_nothing), name


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    class_ = CLASSES[name]
    found = missing(name, class_, "Examples")
    assert ">>> " in found["Examples"]
    if "__init__" in vars(class_):
        check_parameters(name, class_.__init__, found)


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    found = missing(name, METHODS[name], "Parameters", "Returns")
    check_parameters(name, METHODS[name], found)


@pytest.mark.parametrize(
    ("docstring", "says"),
    [
        (None, "no Parameters"),
        ("Add.\n\nParameters\n----------\nx : int\n", "no Examples"),
        ("Add\n\nParameters\n----------\nx : int\n\nExamples\n--------\n>>> 1\n", "'Add'"),
    ],
)
def test_what_is_missing_is_found(docstring, says):
    def add(x):
        return x

    add.__doc__ = docstring
    with pytest.raises(AssertionError, match=says):
        missing("add", add, "Parameters", "Examples")


def test_undescribed_parameter_is_found():
    def add(x, y):
        """Parameters
        ----------
        x : numpy.ndarray, shape (N, C, W)
        """
        return x + y

    with pytest.raises(AssertionError, match="add"):
        check_parameters("add", add, sections(add))
