"""The .pyi files say what the functions say: names, order, kinds and defaults of all parameters.

Whether the types in them are useful is for mypy, on `tests/typing/uses.py`.
"""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import xsmmconv

PACKAGE = Path(xsmmconv.__file__).parent
STUBS = sorted(path for path in PACKAGE.glob("*.pyi"))


def functions(body, prefix=""):
    """Yield (dotted name, definition) of the functions and methods in a parsed stub."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


def module_of(stub):
    return "xsmmconv" if stub.stem == "__init__" else f"xsmmconv.{stub.stem}"


def declared(arguments):
    """{name: (kind, default as source or None)} of a function in a stub."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found = [(a, "POSITIONAL_OR_KEYWORD", d) for a, d in zip(positional, defaults, strict=True)]
    found += [
        (a, "KEYWORD_ONLY", d)
        for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return {a.arg: (kind, d and ast.literal_eval(d)) for a, kind, d in found}


def defined(function):
    empty = inspect.Parameter.empty
    return {
        p.name: (p.kind.name, None if p.default is empty else p.default)
        for p in inspect.signature(function).parameters.values()
    }


def overloads(node):
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)


def test_typed_package_has_its_stubs():
    assert (PACKAGE / "py.typed").is_file()
    assert [stub.name for stub in STUBS] == ["__init__.pyi", "layers.pyi", "reference.pyi"]


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.name)
def test_signatures(stub):
    module = importlib.import_module(module_of(stub))
    found = list(functions(ast.parse(stub.read_text()).body))
    for name, node in found:
        runtime = module
        for part in name.split("."):
            runtime = getattr(runtime, part)
        stated = declared(node.args)
        if overloads(node):  # one of them leaves dtype at its default, the others require it
            assert stated.keys() == defined(runtime).keys(), name
        else:
            assert list(stated.items()) == list(defined(runtime).items()), name
    names = {name.partition(".")[0] for name, _ in found}
    public = getattr(module, "__all__", names)
    assert names == {name for name in public if inspect.isfunction(getattr(module, name))} | {
        name for name in names if inspect.isclass(getattr(module, name))
    }


@pytest.mark.parametrize("module", [xsmmconv, xsmmconv.reference], ids=lambda m: m.__name__)
def test_exported_names(module):
    stub = PACKAGE / ("__init__.pyi" if module is xsmmconv else "reference.pyi")
    (stated,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert stated == module.__all__
