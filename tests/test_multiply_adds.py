"""No multiplication by a zero of the padding or the stride: the plan's count, and the engines'."""

import subprocess
import sys

import hypothesis
import numpy as np
import problems
import pytest

import xsmmconv
from xsmmconv import _text


def plan(problem, pass_, dtype):
    shapes = problem.x_shape, problem.weight_shape
    return xsmmconv.plan(pass_, *shapes, dtype, **problem.parameters)


def useful_multiply_adds(problem):
    """N*K*C/groups for each pair of an output position and a tap that meet a position of x."""
    p = problem
    q, t = np.arange(p.Q)[:, np.newaxis], np.arange(p.S)
    i = q * p.s + t * p.d - p.pl
    E = int(np.count_nonzero((i >= 0) & (i < p.W)))
    return p.N * p.K * (p.C // p.g) * E


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("c1k1s3st2p1w8", 11),
        ("c1k1s5st4d6p12w16", 11),
        ("c1k1s1st2w9", 5),
        ("n2c6k9s1g3w10", 2 * 9 * 2 * 10),
        ("c1k1s2d10pl3pr8w2", 0),
    ],
)
def test_count_worked_out_by_hand(line, expected):
    problem = _text.parse(line)
    assert useful_multiply_adds(problem) == expected
    assert plan(problem, "forward", "float32").multiply_adds == expected


@pytest.mark.parametrize("pass_", problems.PASSES)
def test_plan_says_the_useful_count(problem, pass_):
    for dtype in problems.DTYPES:
        got = plan(problem, pass_, dtype).multiply_adds
        assert got == useful_multiply_adds(problem), f"{problem} {pass_} {dtype}"


@hypothesis.given(problems.small_problems(), hypothesis.strategies.sampled_from([*problems.PASSES]))
def test_plan_says_the_useful_count_of_any_problem(problem, pass_):
    assert plan(problem, pass_, "float32").multiply_adds == useful_multiply_adds(problem)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pass_", problems.PASSES)
def test_kernels_are_asked_for_no_more(problem, pass_, dtype):
    issued = plan(problem, pass_, dtype).issued_multiply_adds()
    assert issued == useful_multiply_adds(problem), f"{problem} {pass_} {dtype}"


@pytest.mark.parametrize("pass_", problems.PASSES)
def test_bfloat16_kernels_add_at_most_the_partner_of_an_odd_element(problem, pass_):
    # The kernels take their operands in pairs: k = 1 is issued as 2, k = 51 as 52.
    useful = useful_multiply_adds(problem)
    issued = plan(problem, pass_, "bfloat16").issued_multiply_adds()
    assert useful <= issued <= 2 * useful, f"{problem} {pass_}"


@hypothesis.given(problems.small_problems(), hypothesis.strategies.sampled_from([*problems.PASSES]))
def test_kernels_are_asked_for_no_more_on_any_problem(problem, pass_):
    issued = plan(problem, pass_, "float32").issued_multiply_adds()
    assert issued == useful_multiply_adds(problem)


@pytest.mark.parametrize("pass_", problems.PASSES)
def test_chromosome_is_planned_without_walking_it(pass_):
    # 2.5e8 columns; the count is known in closed form (three interior taps less the two borders).
    got = xsmmconv.plan(pass_, (1, 4, 250_000_000), (8, 4, 3), padding=1)
    assert got.multiply_adds == 8 * 4 * (3 * 250_000_000 - 2)


ABSURD = """
import xsmmconv

for pass_ in ("forward", "backward_data", "backward_weight"):
    for options in (
        {"stride": 2**39},
        {"dilation": 2**39},
        {"padding": 2**39},
        {"padding": (0, 2**39), "stride": 2**20},
    ):
        plan = xsmmconv.plan(pass_, (1, 1, 2**40 - 1), (1, 1, 1), **options)
        print(plan.multiply_adds, len(plan.describe()) < 100_000)
"""


def test_absurd_numbers_are_planned_at_once():
    # In a process of its own: whatever walks along any of these numbers never ends.
    child = subprocess.run(
        [sys.executable, "-c", ABSURD], capture_output=True, text=True, timeout=120
    )
    columns = 2**40 - 1
    counts = [2, columns, columns, 2**20]
    assert child.stdout.splitlines() == [f"{count} True" for count in counts] * 3, child.stderr
