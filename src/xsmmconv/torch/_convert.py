"""Swapping the layers of a model that exists already."""

from dataclasses import dataclass

import torch
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin

from xsmmconv.torch import _operators
from xsmmconv.torch._modules import Conv1d, ConvTranspose1d

_COUNTERPARTS = {torch.nn.Conv1d: Conv1d, torch.nn.ConvTranspose1d: ConvTranspose1d}


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` did.

    Attributes
    ----------
    converted : tuple of str
        Names of the layers that xsmmconv computes from now on, as in `named_modules`.
    left_alone : dict of str to str
        Names of the other convolutions, and why they are as before.
    """

    converted: tuple[str, ...]
    left_alone: dict[str, str]

    def __str__(self):
        lines = [f"{len(self.converted)} converted, {len(self.left_alone)} left alone"]
        lines += [f"  {name or '(the model)'}: {why}" for name, why in self.left_alone.items()]
        return "\n".join(lines)


def convert(model):
    """Let xsmmconv compute the 1-D convolutions of a model.

    Every `torch.nn.Conv1d` and `torch.nn.ConvTranspose1d` becomes a `Conv1d` or `ConvTranspose1d`
    in place: the same object, with the same parameters, buffers and hooks, under the same name.
    An optimizer that knows the parameters, and a checkpoint of the model, remain valid.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. It may itself be such a layer.

    Returns
    -------
    Conversion
        Which layers were converted, and which convolutions were left alone and why: subclasses
        (they may compute something else), two or three spatial axes, layers without parameters
        yet, other devices and dtypes, a replaced `forward`.

    Raises
    ------
    TypeError
        If model is not a torch.nn.Module.

    Examples
    --------
    >>> import torch
    >>> import xsmmconv.torch
    >>> model = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 15), torch.nn.LazyConv1d(8, 3))
    >>> print(xsmmconv.torch.convert(model))
    1 converted, 1 left alone
      1: has no parameters yet
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model should be a torch.nn.Module, not {type(model).__name__}")
    converted, left_alone = [], {}
    for name, module in model.named_modules():
        if not isinstance(module, _ConvNd) or type(module) in _COUNTERPARTS.values():
            continue
        reason = _reason_against(module)
        if reason:
            left_alone[name] = reason
        else:
            # The parameters, the hooks and whoever refers to the layer keep what they have.
            module.__class__ = _COUNTERPARTS[type(module)]
            converted.append(name)
    return Conversion(tuple(converted), left_alone)


def _reason_against(module):
    """Why a convolution has to be left alone, or None."""
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "has no parameters yet"
    if len(module.kernel_size) != 1:
        return f"has {len(module.kernel_size)} spatial axes"
    if type(module) not in _COUNTERPARTS:
        return f"{type(module).__qualname__} is a subclass, which may compute something else"
    if "forward" in vars(module):
        return "its forward has been replaced"
    if module.weight.device.type not in ("cpu", "meta"):
        return f"its parameters are on {module.weight.device}"
    if module.weight.dtype not in _operators.DTYPES:
        return f"its parameters are {module.weight.dtype}"
    return None
