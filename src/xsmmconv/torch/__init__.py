"""xsmmconv's convolutions in PyTorch: functions, layers, and `convert` for existing models.

    conv1d, conv_transpose1d -> operators of torch.library -> the functions of xsmmconv
        _functional.py              _operators.py                     _api.py

This package is the only one that imports torch: ``pip install 'xsmmconv[torch]'``.
"""

from xsmmconv.torch._convert import Conversion, convert
from xsmmconv.torch._functional import conv1d, conv_transpose1d
from xsmmconv.torch._modules import Conv1d, ConvTranspose1d

__all__ = ["Conv1d", "ConvTranspose1d", "Conversion", "conv1d", "conv_transpose1d", "convert"]
