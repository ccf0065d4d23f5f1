"""Show how a convolution will be computed: tiles, taps, kernels, memory.

The problem is one line, for example n4c15k15s51d8w60400: n rows of c channels and w columns,
k filters of s taps, st stride, d dilation, g groups, p padding (psame, pcausal; pl and pr for one
side).
"""

from xsmmconv import _api, _problem, _text
from xsmmconv.cli.errors import UsageError


def add_arguments(parser):
    parser.add_argument("problem", help="for example n4c15k15s51d8w60400")
    parser.add_argument(
        "--pass", dest="pass_", choices=_problem.PASSES, default="forward", help="(%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=[dtype.name for dtype in _problem.DTYPES],
        default="float32",
        help="(%(default)s)",
    )


def run(arguments):
    try:
        line = _text.parse(arguments.problem)
    except ValueError as error:
        raise UsageError(error) from None
    try:
        shown = _api.plan(
            arguments.pass_, line.x_shape, line.weight_shape, arguments.dtype, **line.parameters
        )
    except ValueError as error:
        raise UsageError(f"{arguments.problem!r}: {error}") from None
    print(shown.describe())
    return 0
