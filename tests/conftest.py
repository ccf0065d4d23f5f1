"""Options of the suite, and the parametrisation of every test that takes a `problem`."""

import importlib.util

import hypothesis
import problems
import pytest

from xsmmconv import _text

# The PyTorch layer is an extra: its tests exist only where torch is installed. CONTRIBUTING says
# how to run them; the core's suite must not need torch.
collect_ignore = [] if importlib.util.find_spec("torch") else ["pytorch"]

hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, max_examples=60
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser):
    group = parser.getgroup("xsmmconv")
    group.addoption(
        "--problem",
        action="append",
        metavar="LINE",
        help="run on this problem (as printed by a failing test) instead of tests/shapes/*.txt; "
        "may be repeated",
    )
    group.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="run on every N-th problem of tests/shapes/*.txt only",
    )
    group.addoption(
        "--fuzz",
        type=float,
        default=0,
        metavar="MINUTES",
        help="let test_fuzz.py look for so long, from another place each time",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "every(n): take every n-th problem of the corpus only")


def pytest_generate_tests(metafunc):
    if "problem" in metafunc.fixturenames:
        metafunc.parametrize("problem", _selected(metafunc), ids=str)


@pytest.fixture
def selected_problems(request):
    """The same selection as a list, for tests that hand many problems to one subprocess."""
    return _selected(request)


def _selected(source):
    """Problems for a test; `source` is what pytest knows about it (metafunc or request)."""
    lines = source.config.getoption("--problem")
    if lines:
        return [_text.parse(line) for line in lines]
    node = getattr(source, "definition", None) or source.node
    marker = node.get_closest_marker("every")
    return problems.CORPUS[
        :: source.config.getoption("--every") * (marker.args[0] if marker else 1)
    ]
