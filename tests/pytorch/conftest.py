"""The layers for PyTorch. Collected only where torch is installed: see tests/conftest.py."""

import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "denoise"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def example(monkeypatch):
    """The folder of the denoising example, whose modules can be imported."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    return EXAMPLE
