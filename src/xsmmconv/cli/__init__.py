"""The command line: `python -m xsmmconv`, or the script `xsmmconv`.

A command is a module with `add_arguments(parser)` and `run(arguments) -> exit code`.
"""

import argparse
import os
import sys

from xsmmconv._config import VERSION
from xsmmconv._errors import UnsupportedError
from xsmmconv.cli import bench, compare, info, plan
from xsmmconv.cli.errors import UsageError

_COMMANDS = {"bench": bench, "compare": compare, "info": info, "plan": plan}
_EPILOG = """\
examples:
  xsmmconv compare                 is it right here, and fast?
  xsmmconv compare --bigwig coverage.bw --region chr22:20000000-20060400
  xsmmconv plan n4c15k15s51d8w60400 --pass backward_weight
  xsmmconv bench --quick
  xsmmconv info                    belongs into a bug report

exit codes:
    0  success
    1  a result is wrong (compare: outside its error bound; bench: not what PyTorch has)
    2  the command cannot be carried out as given
    3  this machine cannot run the kernels
  130  interrupted (bench reports what it has instead)
"""


def main(argv=None):
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="xsmmconv",
        description="1-D convolutions on NumPy arrays, on LIBXSMM's batch-reduce kernels.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"xsmmconv {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, module in _COMMANDS.items():
        text = module.__doc__.strip()
        command = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    arguments = parser.parse_args(argv)
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # of `| head`: nobody listens, and Python should not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (UsageError, UnsupportedError, MemoryError) as error:
        print(f"xsmmconv {arguments.command}: {error}", file=sys.stderr)
        return 3 if isinstance(error, UnsupportedError) else 2
