"""PyTorch as the peer, through its public functions: rows as they are, and channels-last.

Only this module of the benchmark imports torch, and only when it is told to.
"""

import contextlib
import ctypes
import os
import re
import tempfile
from functools import partial

import numpy as np

from xsmmconv.bench.timing import Column

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt
_LIBC = ctypes.CDLL(None)
# The tensors' axes: (N, C, W), and (N, C, 1, W) with the channels innermost in memory.
_AXES = {"torch": 1, "channels-last": 2}
COLUMNS = tuple(_AXES)


class FirstCall:
    """The first call of a column: its result, and what oneDNN and MKL say that they did for it."""

    def __init__(self, torch, call):
        self._torch, self._call = torch, call
        self.result = None
        self.implementation = ""

    def __call__(self):
        backends = self._torch.backends
        with tempfile.TemporaryFile() as said:
            with contextlib.ExitStack() as talking:
                talking.enter_context(_c_output_to(said))
                for library in (backends.mkldnn, backends.mkl):
                    if library.is_available():
                        talking.enter_context(library.verbose(library.VERBOSE_ON))
                self.result = self._call()
            said.seek(0)
            self.implementation = implementation(said.read().decode())

    def difference(self, ours):
        """The largest difference between the results, as a share of the largest element."""
        theirs = self.result.float() if ours.dtype.itemsize == 2 else self.result
        theirs = theirs.numpy().reshape(ours.shape)
        ours = ours.astype(theirs.dtype)
        return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(ours)))


class Torch:
    """An installed PyTorch. ImportError if there is none."""

    def __init__(self):
        # Large arrays get huge pages from NumPy, tensors only if torch is told to before it starts.
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        import torch

        self._torch = torch
        onednn = re.search(r"(?:oneDNN|MKL-DNN) v([0-9.]+)", torch.__config__.show())
        self.version = f"{torch.__version__}, oneDNN {onednn[1] if onednn else 'missing'}"
        # It allocates every result. Freed memory stays mapped, so that no call pays for new pages.
        _LIBC.mallopt(_M_MMAP_MAX, 0)
        _LIBC.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

    def columns(self, cell, a, b):
        """{name: Column} on copies of two arrays; every warm_up is a `FirstCall`."""
        self._torch.set_num_threads(cell.threads)
        columns = {}
        for name, axes in _AXES.items():
            call = self._call(cell, self._tensor(a, axes), self._tensor(b, axes), axes)
            columns[name] = Column(call, FirstCall(self._torch, call))
        return columns

    def _tensor(self, array, axes):
        """A copy of the array in memory of torch's own."""
        torch = self._torch
        if array.dtype.itemsize == 2:  # torch does not know NumPy's extension types
            return self._laid_out(torch.from_numpy(array.view(np.int16)).view(torch.bfloat16), axes)
        return self._laid_out(torch.from_numpy(array), axes)

    def _laid_out(self, tensor, axes):
        if axes == 1:
            return tensor.clone()
        return tensor[:, :, None].clone(memory_format=self._torch.channels_last)

    def _call(self, cell, a, b, axes):
        """The call of a pass. Where padding differs between the sides it is done by hand.

        That is `pad` before a forward convolution and a view of the inner columns after the others;
        the weight gradient gets the padded x, which is at hand after the forward pass.
        """
        torch, p = self._torch, cell.problem
        convolve = getattr(torch, f"conv{axes}d")
        transposed = getattr(torch, f"conv_transpose{axes}d")
        even = p.pl == p.pr

        def each(number, other):  # a parameter for every axis; the first of two is 1 wide
            return (other,) * (axes - 1) + (number,)

        stride, dilation = each(p.s, 1), each(p.d, 1)
        padding = each(p.pl if even else 0, 0)

        def pad(x):
            return x if even else torch.nn.functional.pad(x, (p.pl, p.pr))

        def inner(x):
            return x if even else x.narrow(-1, p.pl, p.W)

        def backward(grad_out, x, weight, which):
            wanted = [index == which for index in range(3)]
            return torch.ops.aten.convolution_backward(
                grad_out, x, weight, None, stride, padding, dilation, False, each(0, 0), p.g, wanted
            )[which]

        if cell.pass_ == "forward":
            return lambda: convolve(pad(a), b, None, stride, padding, dilation, p.g)
        if cell.pass_ == "transposed":
            extra = each(cell.output_padding, 0)
            return lambda: inner(transposed(a, b, None, stride, padding, extra, p.g, dilation))
        if cell.pass_ == "backward_data":
            x = pad(self._laid_out(torch.zeros(p.x_shape, dtype=a.dtype), axes))
            return lambda: inner(backward(a, x, b, 0))
        x = pad(b)
        weight = self._laid_out(torch.zeros(p.weight_shape, dtype=a.dtype), axes)
        return partial(backward, a, x, weight, 1)


def implementation(said):
    """What computed a convolution, from the verbose lines of oneDNN and MKL.

    For example "jit:avx2 + 3 reorders", which convert layouts, or "MKL SGEMM"; "ATen" is torch's
    own code, of which neither library knows.
    """
    lines = [line.split(",") for line in said.splitlines()]
    primitives = [fields[5:7] for fields in lines if fields[2:4] == ["primitive", "exec"]]
    names = dict.fromkeys(name for kind, name in primitives if kind != "reorder")
    if names:
        reorders = sum(kind == "reorder" for kind, _ in primitives)
        plural = "s" * (reorders > 1)
        return " and ".join(names) + (f" + {reorders} reorder{plural}" if reorders else "")
    routines = re.findall(r"^MKL_VERBOSE (\w+)\(", said, re.MULTILINE)
    return " and ".join(f"MKL {name}" for name in dict.fromkeys(routines)) or "ATen"


@contextlib.contextmanager
def _c_output_to(file):
    """Lead what C code writes to the standard output into a file."""
    _LIBC.fflush(None)
    saved = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        _LIBC.fflush(None)
        os.dup2(saved, 1)
        os.close(saved)
