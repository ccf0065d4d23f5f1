"""A convolution on one line of text, as the tests, the benchmarks and the command line write it.

    n4c15k15s51d8w60400             4 rows of 15 channels and 60400 columns, 15 filters of 51 taps
    n1c64k64s3st2p1w1000            stride 2, one padding column on both sides
    c32k32s2d512pcausalg4w16000     4 groups, padding on the left only; one row (n1) is the default
    c1k15s51d8psameq60000"first"    the output width given in place of the input width; a name

Letters in front of a number of up to 12 digits: n rows, c channels, k filters, s taps, w input
width or q output width, st stride, d dilation, g groups, p padding on both sides or pl and pr on
one. c, k, s and one of w and q must be there; the parts may stand in any order. psame and pcausal
are the paddings of the same names, and they are written back as numbers: format(parse(line)) is the
canonical line.
Files hold one problem per line; # starts a comment.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r'\s*(?P<parts>[^"#]*?)\s*(?:"(?P<name>[^"]*)"\s*)?(?:#.*)?')
_PART = re.compile(r"(?P<word>psame|pcausal)|(?P<letters>st|pl|pr|[nckswqdgp])(?P<number>[0-9]+)")


@dataclass(frozen=True, slots=True)
class ProblemLine:
    """The numbers on the line, with the letters of the formulas."""

    N: int
    C: int
    K: int
    S: int
    W: int
    s: int = 1
    d: int = 1
    pl: int = 0
    pr: int = 0
    g: int = 1
    name: str = ""

    @property
    def Q(self):
        return (self.W + self.pl + self.pr - self.d * (self.S - 1) - 1) // self.s + 1

    @property
    def x_shape(self):
        return self.N, self.C, self.W

    @property
    def weight_shape(self):
        return self.K, self.C // self.g, self.S

    @property
    def y_shape(self):
        return self.N, self.K, self.Q

    @property
    def parameters(self):
        """The keyword arguments of the public functions."""
        return {
            "stride": self.s,
            "padding": (self.pl, self.pr),
            "dilation": self.d,
            "groups": self.g,
        }

    def __str__(self):
        """The canonical line: defaults are left out, padding is written as numbers."""
        line = f"n{self.N}c{self.C}k{self.K}s{self.S}"
        line += f"st{self.s}" if self.s != 1 else ""
        line += f"d{self.d}" if self.d != 1 else ""
        if self.pl != self.pr:
            line += f"pl{self.pl}pr{self.pr}"
        elif self.pl:
            line += f"p{self.pl}"
        line += f"g{self.g}" if self.g != 1 else ""
        return line + f"w{self.W}" + (f'"{self.name}"' if self.name else "")


def parse(line):
    """Turn one line into a `ProblemLine`; a ValueError quotes the line and says what is wrong."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r}: the name should be in one pair of double quotes, at the end")
    try:
        return _problem(_parts(match["parts"]), match["name"] or "")
    except ValueError as error:
        raise ValueError(f"{line.strip()!r}: {error}") from None


def read(path):
    """Return the problems of a file in its order; errors name the file and the line number."""
    problems = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        if line.split("#")[0].strip():
            try:
                problems.append(parse(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return problems


def _parts(text):
    """Split "c3k5psame" into {"c": 3, "k": 5, "p": "same"}."""
    parts = {}
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(
                f"{text[position:]!r} should begin with one of n c k s w q st d g p pl pr and a "
                "number, or with psame or pcausal"
            )
        letters = "p" if match["word"] else match["letters"]
        if letters in parts:
            raise ValueError(f"{letters} is given twice")
        if len(match["number"] or "") > 12:
            raise ValueError(f"{letters} should have at most 12 digits")
        parts[letters] = match["word"][1:] if match["word"] else int(match["number"])
        position = match.end()
    return parts


def _problem(parts, name):
    if missing := [letter for letter in "cks" if letter not in parts]:
        raise ValueError(f"{' and '.join(missing)} missing")
    if ("w" in parts) == ("q" in parts):
        raise ValueError("either w (input width) or q (output width) should be given")
    for letters, number in parts.items():
        if number == 0 and letters not in ("n", "p", "pl", "pr"):
            raise ValueError(f"{letters} should be at least 1")
    C, K, S = parts["c"], parts["k"], parts["s"]
    s, d, g = parts.get("st", 1), parts.get("d", 1), parts.get("g", 1)
    if C % g or K % g:
        raise ValueError(f"groups g{g} should divide the channels c{C} and the filters k{K}")

    span = d * (S - 1) + 1
    pl, pr = _padding(parts, span - 1, s)
    W = parts["w"] if "w" in parts else (parts["q"] - 1) * s + span - pl - pr
    if W < 1:
        raise ValueError(f"q{parts['q']} is less than the padding {pl}+{pr} alone gives (w{W})")
    if max(W, pl, pr) >= 10**12:
        raise ValueError(f"w{W}pl{pl}pr{pr} should have at most 12 digits each")
    if W + pl + pr < span:
        raise ValueError(f"the filter spans {span} columns, the padded row only {pl}+{W}+{pr}")
    return ProblemLine(parts.get("n", 1), C, K, S, W, s, d, pl, pr, g, name)


def _padding(parts, total, s):
    both = parts.get("p", 0)
    if "p" in parts and ("pl" in parts or "pr" in parts):
        raise ValueError("p (both sides) should not stand beside pl or pr (one side)")
    if both == "causal":
        return total, 0
    if both == "same":
        if s != 1:
            raise ValueError(f"psame asks for stride 1, not st{s}")
        return total // 2, total - total // 2
    return parts.get("pl", both), parts.get("pr", both)
