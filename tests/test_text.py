"""The one-line grammar of problems."""

import problems
import pytest
from hypothesis import given

from xsmmconv import _text
from xsmmconv._text import ProblemLine, parse


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("n4c15k15s51d8w60400", ProblemLine(4, 15, 15, 51, 60400, d=8)),
        ("c1k2s3w4", ProblemLine(1, 1, 2, 3, 4)),
        ("w4s3k2c1", ProblemLine(1, 1, 2, 3, 4)),
        ("n0c1k2s3w4", ProblemLine(0, 1, 2, 3, 4)),
        ("c4k6s3st5d2g2p7w40", ProblemLine(1, 4, 6, 3, 40, s=5, d=2, g=2, pl=7, pr=7)),
        ("c1k1s3pl4w9", ProblemLine(1, 1, 1, 3, 9, pl=4)),
        ("c1k1s3pr4w9", ProblemLine(1, 1, 1, 3, 9, pr=4)),
        ("c1k1s3pl1pr4w9", ProblemLine(1, 1, 1, 3, 9, pl=1, pr=4)),
        ("c1k1s4d3psamew9", ProblemLine(1, 1, 1, 4, 9, d=3, pl=4, pr=5)),
        ("c1k1s4d3pcausalw9", ProblemLine(1, 1, 1, 4, 9, d=3, pl=9)),
        ("c1k1s51d8q60000", ProblemLine(1, 1, 1, 51, 60400, d=8)),
        ("c1k1s51d8psameq60000", ProblemLine(1, 1, 1, 51, 60000, d=8, pl=200, pr=200)),
        ("c1k1s3st2p1q4", ProblemLine(1, 1, 1, 3, 7, s=2, pl=1, pr=1)),
        (
            'c1k1s1w5"a name # with 3 words"',
            ProblemLine(1, 1, 1, 1, 5, name="a name # with 3 words"),
        ),
        ('  c1k1s1w5 "a"  # comment "x"', ProblemLine(1, 1, 1, 1, 5, name="a")),
        ("c1k1s1w5# comment", ProblemLine(1, 1, 1, 1, 5)),
    ],
)
def test_parse(line, expected):
    assert parse(line) == expected


MALFORMED = [
    ("", "c and k and s missing"),
    ("   ", "c and k and s missing"),
    ('"a name"', "c and k and s missing"),
    ("# a comment", "c and k and s missing"),
    ("w5", "c and k and s missing"),
    ("k1w5", "c and s missing"),
    ("n1k2s3w4", "c missing"),
    ("c1s3w5", "k missing"),
    ("c1k1st2w5", "s missing"),
    ("c1k1s3", "either w .* or q"),
    ("c1k1s3w5q3", "either w .* or q"),
    ("c1k1s3w5x7", "'x7' should begin with"),
    ("c1k1s3w", "'w' should begin with"),
    ("c", "'c' should begin with"),
    ("7", "'7' should begin with"),
    ("w5c1k1s3 ,", "' ,' should begin with"),
    ("c1,k1,s3,w5", "',k1,s3,w5' should begin with"),
    ("c=1k1s3w5", "'c=1k1s3w5' should begin with"),
    ("c1 k1s3w5", "' k1s3w5' should begin with"),
    ("c1k1s3w5\nc1k1s3w5", "should begin with"),
    ("c1k1s3w5\0", "should begin with"),
    ("c1k1s3w5\udcff", "should begin with"),
    ("c-1k1s3w5", "'c-1k1s3w5' should begin with"),
    ("c+1k1s3w5", "'c\\+1k1s3w5' should begin with"),
    ("c0x1k1s3w5", "'x1k1s3w5' should begin with"),
    ("c1e3k1s3w5", "'e3k1s3w5' should begin with"),
    ("c1_000k1s3w5", "'_000k1s3w5' should begin with"),
    ("c\uff11k1s3w5", "should begin with"),  # a digit to int(), but none of the ten
    ("c1k1s3w5.5", "'.5' should begin with"),
    ("c1k1s3wnan", "'wnan' should begin with"),
    ("C1k1s3w5", "'C1k1s3w5' should begin with"),
    ("c1k1s3ps1w5", "'ps1w5' should begin with"),
    ("c1k1s3psomew5", "'psomew5' should begin with"),
    ("c1k1s3pvalidw5", "'pvalidw5' should begin with"),
    ("c1k1s3pSAMEw5", "'pSAMEw5' should begin with"),
    ("n1n1c1k1s3w5", "n is given twice"),
    ("c1c1k1s3w5", "c is given twice"),
    ("c1k1k1s3w5", "k is given twice"),
    ("c1k1s3s3w5", "s is given twice"),
    ("c1k1s3w5w5", "w is given twice"),
    ("c1k1s3q5q5", "q is given twice"),
    ("c1k1s3st2st2w5", "st is given twice"),
    ("c1k1s3d1d2w5", "d is given twice"),
    ("c1k1s3g1g1w5", "g is given twice"),
    ("c1k1s3pl1pl1w5", "pl is given twice"),
    ("c1k1s3pr1pr1w5", "pr is given twice"),
    ("c1k1s3p1psamew5", "p is given twice"),
    ("c1k1s3psamepcausalw5", "p is given twice"),
    ("c1k1s3p1pl2w5", "p .* pl or pr"),
    ("c1k1s3pr0p1w5", "p .* pl or pr"),
    ("c1k1s3psamepr2w5", "p .* pl or pr"),
    ("c1k1s3pcausalpl2w5", "p .* pl or pr"),
    ("c1k1s3st2psamew5", "psame asks for stride 1, not st2"),
    ("c0k1s3w5", "c should be at least 1"),
    ("c1k0s3w5", "k should be at least 1"),
    ("c1k1s0w5", "s should be at least 1"),
    ("c1k1s3st0w5", "st should be at least 1"),
    ("c1k1s3d0w5", "d should be at least 1"),
    ("c1k1s3g0w5", "g should be at least 1"),
    ("c1k1s3w0", "w should be at least 1"),
    ("c1k1s3q000", "q should be at least 1"),
    ("c1000000000000k1s1w5", "c should have at most 12 digits"),
    ("n9999999999999c1k1s1w5", "n should have at most 12 digits"),
    ("c1k1s3w5d1" + "0" * 5000, "d should have at most 12 digits"),
    ("c1k1s3pl1000000000000w5", "pl should have at most 12 digits"),
    ("c1k1s1st999999999999q999999999999", "w9+700.* at most 12 digits each"),
    ("c1k1s999999999999d2w1pcausal", "w1pl1999999999996pr0 .* at most 12 digits each"),
    ("c3k4g2s1w5", "groups g2 .* c3 .* k4"),
    ("c4k3g2s1w5", "groups g2 .* c4 .* k3"),
    ("c1k1s3w2", "spans 3 columns, .* 0\\+2\\+0"),
    ("c1k1s3d5pl1pr2w7", "spans 11 columns, .* 1\\+7\\+2"),
    ("c1k1s3p9q4", "q4 .* 9\\+9"),
    ('c1k1s1w5"a', "double quotes"),
    ('c1k1s1w5"a"b', "double quotes"),
    ('c1k1s1w5"a""b"', "double quotes"),
    ('"a"c1k1s1w5', "double quotes"),
    ("c1k1s1w5'a'", "should begin with"),
]


@pytest.mark.parametrize(("line", "complaint"), MALFORMED)
def test_complaint_quotes_the_line(line, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        parse(line)
    assert str(caught.value).startswith(f"{line.strip()!r}: ")


@pytest.mark.parametrize(
    ("line", "canonical"),
    [
        ("w9c1k1s3", "n1c1k1s3w9"),
        ("c4k4s3g2d2st3psamew9".replace("st3", ""), "n1c4k4s3d2p2g2w9"),
        ("c4k4s4psamew9", "n1c4k4s4pl1pr2w9"),
        ("c4k4s4pcausalw9", "n1c4k4s4pl3pr0w9"),
        ('n2c1k1s3st2d5p4g1q7"name"', 'n2c1k1s3st2d5p4w15"name"'),
    ],
)
def test_canonical_line(line, canonical):
    assert format(parse(line)) == canonical


@given(problems.small_problems())
def test_format_is_the_inverse_of_parse(problem):
    assert parse(format(problem)) == problem


def test_format_is_the_inverse_of_parse_on_the_corpus(problem):
    assert parse(format(problem)) == problem


def test_numbers_of_a_problem():
    problem = parse("n2c4k6s3st2d5pl3pr1g2w21")
    assert problem.Q == 8
    assert problem.x_shape == (2, 4, 21)
    assert problem.weight_shape == (6, 2, 3)
    assert problem.y_shape == (2, 6, 8)
    assert problem.parameters == {"stride": 2, "padding": (3, 1), "dilation": 5, "groups": 2}


def test_read(tmp_path):
    path = tmp_path / "shapes.txt"
    path.write_text('# heading\n\n   # indented\nc1k1s1w5\n  c2k2s1w5"two" # comment\n')
    assert [format(p) for p in _text.read(path)] == ["n1c1k1s1w5", 'n1c2k2s1w5"two"']
    path.write_text("c1k1s1w5\n\nc1k1s1\n")
    with pytest.raises(ValueError, match=r"shapes\.txt, line 3: 'c1k1s1': either w"):
        _text.read(path)


def test_corpus_has_the_edges_it_claims():
    widths = {problem.Q for problem in problems.CORPUS}
    for multiple in range(16, 208, 16):
        assert {multiple - 1, multiple, multiple + 1} <= widths
    lines = [format(problem) for problem in problems.CORPUS]
    assert len(set(lines)) == len(lines)
