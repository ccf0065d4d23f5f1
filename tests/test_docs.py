"""The examples in the docstrings and in the README do what they show."""

import doctest
import re
from pathlib import Path

import pytest

from xsmmconv import _api, _config, _errors, _threads, reference


@pytest.mark.parametrize(
    "module", [_api, _config, _errors, _threads, reference], ids=lambda module: module.__name__
)
def test_examples_of_docstrings(module):
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0


def test_example_of_the_readme(capsys):
    readme = Path(__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    assert names["y"].shape == (4, 15, 60400)
    assert names["grad_x"].shape == names["x"].shape
    assert names["grad_w"].shape == names["weight"].shape
    assert "forward" in capsys.readouterr().out
