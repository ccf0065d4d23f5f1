"""Random problems without end: every result exact, every operand between guard pages.

    python tests/soak.py --count 100000 --seed 1
    LIBXSMM_TARGET=hsw python tests/soak.py --count 100000 --seed 2

Problem number i of a seed is always the same, whatever was run before it: a failure prints the
command that repeats it alone, and every line of progress the number to resume at (`--first`).
Each thousand runs in a process of its own, so that a crash costs one problem and is reported like
a wrong result. The data are integers, so results are compared with the reference bit by bit.
"""

import argparse
import os
import sys
import time

import children
import guarded
import numpy as np
import problems
from problems import BACKWARD_DATA, BACKWARD_WEIGHT, BFLOAT16, FORWARD, OPERATIONS

import xsmmconv
from xsmmconv import reference
from xsmmconv._text import ProblemLine

CHUNK = 1000
LAYOUTS = (
    *("plain", "one byte off", "read-only", "spaced", "wider rows", "reversed", "Fortran"),
    "channels last",
)
MARK = 0xA5  # in the bytes around a result
CHILD = "import soak; soak.run_chunk({seed}, {first}, {count})"


def some(rng, largest):
    """From 1 to `largest`, small numbers as often as large ones."""
    return int(np.exp(rng.uniform(0, np.log(largest + 0.999))))


def draw_problem(rng):
    """Any geometry with at most as many products as one second's share of the reference allows."""
    budget = 10.0 ** rng.choice([5, 6, 7], p=[0.9, 0.07, 0.03])
    while True:
        g = some(rng, 8) if rng.random() < 0.4 else 1
        C, K = g * some(rng, 40), g * some(rng, 40)
        S = some(rng, 40)
        wide, limit = 0, budget
        special = rng.random()  # what the plan treats differently, and chance would rarely draw
        if special < 0.2:
            wide, limit = int(rng.integers(500, 2500)), 30 * budget
            S = int(rng.integers(12, 60))
            C, K = (C, g) if rng.random() < 0.5 else (g, K)
        elif special < 0.25:
            S, C, K = 1, g * some(rng, 300), g * some(rng, 300)
        elif special < 0.35:
            C, K, limit = (
                g * int(rng.integers(100, 200)),
                g * int(rng.integers(100, 200)),
                30 * budget,
            )
        elif special < 0.45:
            wide, limit = int(rng.integers(300, 1500)), 30 * budget
            C, K = g * int(rng.integers(8, 25)), g * int(rng.integers(8, 25))
        elif special < 0.6:  # depthwise
            g = C = K = 7 + some(rng, 64)
            wide = int(rng.integers(0, 600)) if rng.random() < 0.5 else 0
        s = some(rng, 7) if rng.random() < 0.5 else 1
        d = some(rng, 2**33 if rng.random() < 0.05 else 40)
        span = d * (S - 1) + 1
        pl, pr = (int(rng.integers(0, span + 4)) if rng.random() < 0.6 else 0 for _ in "lr")
        W = max(1, span - pl - pr) + some(rng, 3000) - 1 + wide
        if special > 0.95:  # the decoder of a filter bank, whose phases all read the same inputs
            s, d, pl, pr = int(rng.integers(2, 9)), 1, 0, 0
            C, K, S = g * some(rng, 8), g * some(rng, 80), s * some(rng, 5)
            W = S + s * (60 + some(rng, 300))
        problem = ProblemLine(int(rng.integers(1, 5)), C, K, S, W, s, d, pl, pr, g)
        largest = max(np.prod(problem.x_shape), np.prod(problem.y_shape))
        if problem.N * K * (C // g) * S * problem.Q <= limit and largest <= 2**18:
            return problem


def place(array, layout, end):
    """The array in another layout, its outermost bytes beside a guard page."""
    if layout in ("plain", "read-only"):
        placed = guarded.guarded(array, end)
    elif layout == "one byte off":
        memory = guarded.pages(array.nbytes + 1)
        memory = memory[1:] if end == "begin" else memory[-array.nbytes - 1 : -1]
        placed = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
    elif layout == "Fortran":
        placed = guarded.guarded(array.T, end).T
    elif layout == "channels last":
        axes = (0, -2)[array.ndim > 1], -1
        placed = guarded.guarded(array.swapaxes(*axes), end).swapaxes(*axes)
    elif layout == "reversed":
        placed = guarded.guarded(array[..., ::-1], end)[..., ::-1]
    else:
        first = 0 if end == "begin" else 1
        axes = [slice(first, None, 2)] * array.ndim
        extents = [2 * extent for extent in array.shape]
        if layout == "wider rows":
            axes = [slice(None)] * (array.ndim - 1) + [slice(5 * first, 5 * first - 5 or None)]
            extents = [*array.shape[:-1], array.shape[-1] + 5]
        # What lies between the elements must not be read.
        placed = guarded.guarded(np.full(extents, np.nan, array.dtype), end)[tuple(axes)]
    placed[...] = array
    placed.flags.writeable = layout != "read-only"
    return placed


class Case:
    """Problem number `number` of a seed, and everything that is chosen for it."""

    def __init__(self, seed, number):
        rng = np.random.default_rng([seed, number])
        self.problem = draw_problem(rng)
        self.operation = OPERATIONS[rng.integers(4)]
        self.dtype = problems.DTYPES[rng.integers(3)]
        self.layouts = [LAYOUTS[i] for i in rng.integers(len(LAYOUTS), size=3)]
        self.ends = ["begin" if x else "end" for x in rng.integers(2, size=4)]
        self.threads, self.more_threads = map(int, rng.integers(1, 8, size=2))
        self.layer = bool(rng.integers(2)) and self.operation in (FORWARD, BACKWARD_DATA)
        self.result_dtype = self.dtype
        self.bias = self.activation = None
        if self.operation.takes_bias:
            self.bias = (None, self.dtype, np.dtype(np.float32))[rng.integers(3)]
            self.activation = (None, "relu")[rng.integers(2)]
        elif self.operation is BACKWARD_WEIGHT and self.dtype == BFLOAT16 and rng.integers(2):
            self.result_dtype = np.dtype(np.float32)

    def __str__(self):
        return (
            f"{self.problem} {self.operation}{' by a layer' * self.layer} {self.dtype} "
            f"to {self.result_dtype}, operands {self.layouts} at the {self.ends}, "
            f"bias {self.bias}, activation {self.activation}, "
            f"threads {self.threads} and {self.more_threads}"
        )

    def run(self):
        first, second, bias = problems.integer_operands(self.problem, self.operation, self.dtype)
        exact = problems.call(reference, self.operation, self.problem, first, second)
        options = {"dtype": self.result_dtype} if self.result_dtype != self.dtype else {}
        operands = [first, second]
        if self.operation.takes_bias:
            options["activation"] = self.activation
            finishing = {"activation": self.activation}
            if self.bias is not None:
                operands.append(bias.astype(self.bias))
                finishing["bias"] = operands[2]
            exact = problems.finish(exact, **finishing)
        expected = problems.rounded(exact, self.result_dtype)

        memory = guarded.pages(expected.nbytes)
        memory[...] = MARK
        inside = memory[: expected.nbytes]
        if self.ends[3] == "end":
            inside = memory[memory.size - expected.nbytes :]
        out = inside.view(self.result_dtype).reshape(expected.shape)
        out[...] = np.nan
        placed = [place(*of) for of in zip(operands, self.layouts, self.ends, strict=False)]
        function = self.function(placed, options)
        assert function(out=out, threads=self.threads) is out
        problems.assert_equal(out, expected, self)
        outside = memory.size - np.count_nonzero(memory == MARK) - np.count_nonzero(inside != MARK)
        assert outside == 0, f"{self}: {outside} bytes beside the result have been written"
        again = function(threads=self.more_threads)
        problems.assert_bitwise_equal(again, out, self, "a second time")
        for before, now in zip(operands, placed, strict=True):
            problems.assert_bitwise_equal(np.array(now), before, self, "an operand has changed")

    def function(self, placed, options):
        """The call, to which `out` and `threads` are still to be given."""
        first, second, *bias = placed
        if bias:
            options = {"bias": bias[0], **options}
        if not self.layer:
            return lambda **rest: problems.call(
                xsmmconv, self.operation, self.problem, first, second, **options, **rest
            )
        layer = xsmmconv.Conv1d(second, **options, **self.problem.parameters)
        # Weights that the other pass has packed are not this one's.
        if self.operation is FORWARD:
            layer.backward_data(np.zeros(self.problem.y_shape, self.dtype), self.problem.W)
        else:
            layer(np.zeros(self.problem.x_shape, self.dtype))
        if self.operation is FORWARD:
            return lambda **rest: layer(first, **rest)
        return lambda **rest: layer.backward_data(first, self.problem.W, **rest)


def run_chunk(seed, first, count):
    """In a process of its own: say which problem is about to run, for whoever survives it."""
    for number in range(first, first + count):
        print(number, flush=True)
        Case(seed, number).run()


def run_until_failure(seed, first, count):
    """How many problems went well, and what is to be said of the one that did not."""
    child = children.start(CHILD.format(seed=seed, first=first, count=count))
    announced, complained = child.communicate()
    if child.returncode == 0:
        return count, None
    failed = int((announced.split() or [first])[-1])
    said = (complained.strip().splitlines() or ["nothing was said"])[-1]
    target = os.environ.get("LIBXSMM_TARGET")
    return failed - first, (
        f"FAILED (status {child.returncode}): {said}\n  {Case(seed, failed)}\n  repeat with: "
        f"{f'LIBXSMM_TARGET={target} ' * bool(target)}python tests/soak.py --seed {seed} "
        f"--first {failed} --count 1"
    )


def soak(seed, first, count):
    """Run them all; return the number of failures."""
    end, failures, start = first + count, 0, time.monotonic()
    while first < end:
        good, failure = run_until_failure(seed, first, min(CHUNK, end - first))
        first += good
        if failure:
            first += 1
            failures += 1
            print(failure, flush=True)
        print(
            f"{count - (end - first)} of {count} problems, {failures} failures, "
            f"{time.monotonic() - start:.0f} s; resume with --seed {seed} --first {first} "
            f"--count {end - first}",
            flush=True,
        )
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first problem")
    parser.add_argument("--count", type=int, default=CHUNK, help="how many problems")
    arguments = parser.parse_args()
    sys.exit(bool(soak(arguments.seed, arguments.first, arguments.count)))
