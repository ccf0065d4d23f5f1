"""What this installation is, and what it finds on this machine."""

import functools
import importlib.metadata
import platform

import ml_dtypes
import numpy as np

from xsmmconv import _problem, _threads
from xsmmconv._errors import UnsupportedError

VERSION = importlib.metadata.version("xsmmconv")


def core():
    """The module `_plan`, which brings the compiled ones along.

    It is imported by the first call and not with the package, so that `import xsmmconv` works on
    machines for which there are no kernels, and the call says what is missing.
    """
    machine = platform.machine()
    if machine != "x86_64":  # nothing has been compiled
        raise UnsupportedError(f"xsmmconv needs an x86-64 processor with AVX2; this is {machine}")
    from xsmmconv import _plan

    return _plan


@functools.cache
def calls():
    """The module `_call`, under the same conditions."""
    core()
    from xsmmconv import _call

    return _call


def show_config():
    """Print versions, instruction set, kernels, threads and caches: what a bug report needs.

    On a machine without AVX2, a line "unsupported" says what is missing in place of the kernels.

    See Also
    --------
    plan : What will be computed, and how.

    Examples
    --------
    >>> import xsmmconv
    >>> xsmmconv.show_config()  # doctest: +ELLIPSIS
    xsmmconv ...
    """
    config = configuration()
    width = max(map(len, config))
    for name, value in config.items():
        print(f"{name:{width}}  {value}")


def configuration():
    """What `show_config` prints, as {name: value}."""
    config = {
        "xsmmconv": VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "ml_dtypes": ml_dtypes.__version__,
        "platform": platform.platform(),
        "threads": _threads.get_num_threads(),
    }
    try:
        return config | _kernels()
    except UnsupportedError as error:
        return config | {"unsupported": str(error)}


def _kernels():
    plans = core()
    from xsmmconv import _dispatch

    _dispatch.require_supported()
    machine = plans.machine("float32")
    registry = _dispatch.registry_info()
    return {
        "libxsmm": _dispatch.libxsmm_version(),
        "instruction set": machine.isa,
        **{f"{dtype} kernels": plans.kernels(dtype.name) for dtype in _problem.DTYPES},
        "overlapping operands": machine.overlap,
        "L1 data cache": _dispatch.cache_bytes(1),
        "L2 cache": _dispatch.cache_bytes(2),
        "plans cached": "{} of at most {}".format(*plans.cache_info()),
        "kernels generated": "{kernels} of at most {capacity}".format(**registry),
    }
