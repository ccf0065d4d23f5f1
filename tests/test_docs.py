"""The examples in the docstrings, in the README and on the pages of docs/ do what they show."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

from xsmmconv import _api, _config, _errors, _threads, layers, reference

ROOT = Path(__file__).parents[1]
PAGES = [page for page in sorted(ROOT.glob("docs/*.md")) if "```pycon" in page.read_text()]


@pytest.mark.parametrize(
    "module",
    [_api, _config, _errors, _threads, layers, reference],
    ids=lambda module: module.__name__,
)
def test_examples_of_docstrings(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


def test_example_of_the_readme(capsys):
    readme = ROOT / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    assert names["y"].shape == (4, 15, 60400)
    assert names["grad_x"].shape == names["x"].shape
    assert names["grad_w"].shape == names["weight"].shape
    assert "forward" in capsys.readouterr().out


def test_pages_have_examples():
    assert {page.name for page in PAGES} >= {"start.md", "mathematics.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_the_pages(page):
    blocks = re.findall(r"```pycon\n(.*?)```", page.read_text(), re.DOTALL)
    # An empty line ends what is expected; the fence does it on the page.
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 0
    assert result.failed == 0


def script_of_docs(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_drawn_from_plans():
    for draw in script_of_docs("pictures").PICTURES:
        figure = draw()
        assert all(len(axes.patches) > 3 for axes in figure.axes), draw.__name__


@pytest.mark.parametrize("script", ["measured", "accuracy"])
def test_tables_are_those_of_the_measured_runs(script):
    measured = script_of_docs(script)
    text = measured.PAGE.read_text()
    assert text.count("<!-- measured -->") == 1
    assert measured.page(text) == text, f"run docs/{script}.py"
