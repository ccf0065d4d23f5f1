"""1-D convolutions on NumPy arrays, forward and backward, on LIBXSMM's batch-reduce kernels.

How a call travels; imports go the same way, and each storey can be used and tested alone::

    public function -> ConvProblem -> Plan ( <- geometry, blocking, dispatch ) -> engine -> kernel
        _api.py        _problem.py     _plan.py                                   *.pyx     LIBXSMM

`_call.pyx` leads it along, and keeps the way of earlier calls to repeat it. It and the engines are
imported by the first call, not by the package.
"""

from xsmmconv import reference
from xsmmconv._api import (
    conv1d,
    conv1d_backward_data,
    conv1d_backward_weight,
    conv_transpose1d,
    plan,
)
from xsmmconv._config import VERSION as __version__
from xsmmconv._config import show_config
from xsmmconv._errors import UnsupportedError
from xsmmconv._threads import get_num_threads, set_num_threads
from xsmmconv.layers import Conv1d

__all__ = [
    "Conv1d",
    "UnsupportedError",
    "__version__",
    "conv1d",
    "conv1d_backward_data",
    "conv1d_backward_weight",
    "conv_transpose1d",
    "get_num_threads",
    "plan",
    "reference",
    "set_num_threads",
    "show_config",
]
