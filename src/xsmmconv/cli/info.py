"""Show versions, instruction set, kernels, threads and caches, for a bug report."""

from xsmmconv._config import show_config


def add_arguments(parser):
    """It has none."""


def run(arguments):
    show_config()
    return 0
