"""A convolution with fixed weights, packed once for the kernels."""

import numpy as np

from xsmmconv import _config, _problem


class Conv1d:
    """A 1-D convolution layer with prepared weights.

    The layer owns a copy of the weights, so what it has packed cannot go stale. It may be called
    from many Python threads at once, and pickled.

    Parameters
    ----------
    weight : numpy.ndarray, shape (K, C/groups, S)
        K filters of S taps: float32, float64 or bfloat16 (`ml_dtypes.bfloat16`).
    bias : numpy.ndarray, shape (K,), optional
        Added to every output position. In the dtype of weight, or float32.
    stride, padding, dilation, groups, activation
        As in `conv1d`.

    Attributes
    ----------
    weight, bias : numpy.ndarray
        The layer's own, read-only copies.

    Raises
    ------
    TypeError, ValueError
        As `conv1d` raises them for these arguments.

    See Also
    --------
    conv1d : The same for weights that change between calls.

    Examples
    --------
    >>> import numpy as np
    >>> import xsmmconv
    >>> layer = xsmmconv.Conv1d(np.array([[[1, 2, 3]]], np.float32), padding="same")
    >>> layer(np.array([[1, 0, 0, 1]], np.float32))
    array([[2., 1., 3., 2.]], dtype=float32)
    >>> layer.backward_data(np.array([[0, 1, 0, 0]], np.float32), 4)
    array([[1., 2., 3., 0.]], dtype=float32)
    """

    def __init__(
        self, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None
    ):
        weight = _problem.array("weight", weight)
        bias = None if bias is None else _problem.array("bias", bias)
        # As plain values: a list given as padding could change later.
        self._parameters = _problem.parameters(stride, padding, dilation, groups)
        self._activation = activation
        self._packs = {}
        if activation is not None:
            _problem.relu(activation)
        _problem.layer(weight, bias, self._parameters)
        self.weight = _own(weight)
        self.bias = None if bias is None else _own(bias)

    def __call__(self, x, out=None, threads=None):
        """Convolve x, shape (N, C, W) or (C, W), as `conv1d` does; the result is the same.

        Parameters
        ----------
        x : numpy.ndarray, shape (N, C, W) or (C, W)
            Input, in the dtype of the weights.
        out : numpy.ndarray, shape (N, K, Q) or (K, Q), optional
            Where to write the result; conditions as in `conv1d`.
        threads : int, optional
            At most how many threads to use; default `get_num_threads`.

        Returns
        -------
        numpy.ndarray, shape (N, K, Q) or (K, Q)
            `out` itself if it was given.
        """
        return _config.calls().forward(
            x, self.weight, self.bias, self._parameters, self._activation, out, threads, self._packs
        )

    def backward_data(self, grad_out, input_width, out=None, threads=None):
        """Gradient of the input, as `conv1d_backward_data` computes it (without activation).

        Parameters
        ----------
        grad_out : numpy.ndarray, shape (N, K, Q) or (K, Q)
            Gradient of the result before the activation.
        input_width : int
            W, the width of the input.
        out : numpy.ndarray, shape (N, C, W) or (C, W), optional
            Where to write the result; conditions as in `conv1d_backward_data`.
        threads : int, optional
            At most how many threads to use; default `get_num_threads`.

        Returns
        -------
        numpy.ndarray, shape (N, C, W) or (C, W)
            `out` itself if it was given.
        """
        return _config.calls().backward_data(
            grad_out, self.weight, input_width, self._parameters, out, threads, self._packs
        )

    def __getstate__(self):
        return {**self.__dict__, "_packs": {}}  # packed weights depend on the machine

    def __setstate__(self, state):
        self.__dict__.update(state)
        for array in (self.weight, self.bias):
            if array is not None:
                array.flags.writeable = False

    def __repr__(self):
        stride, padding, dilation, groups = self._parameters
        bias = "" if self.bias is None else ", bias"
        return (
            f"Conv1d(weight {self.weight.shape} {self.weight.dtype}{bias}, stride={stride}, "
            f"padding={padding!r}, dilation={dilation}, groups={groups}, "
            f"activation={self._activation!r})"
        )


def _own(array):
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy
