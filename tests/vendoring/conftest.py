"""The build module, loaded from a copy of third_party/libxsmm that a test may spoil."""

import importlib.util
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2] / "third_party" / "libxsmm"


def load(folder):
    spec = importlib.util.spec_from_file_location("libxsmm_build", folder / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def archive():
    """The verified archive; whoever installed the package has it in the checkout already."""
    return load(CHECKOUT).tarball()


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The build module of a tree of its own, without an archive and without switches."""
    folder = tmp_path / "a tree" / "third_party" / "libxsmm"
    folder.mkdir(parents=True)
    for name in ("build.py", "stand_ins.c"):
        shutil.copy(CHECKOUT / name, folder)
    shutil.copytree(CHECKOUT / "patches", folder / "patches")
    for name in ("XSMMCONV_LIBXSMM_TARBALL", "XSMMCONV_LIBXSMM_ROOT", "CC", "AR"):
        monkeypatch.delenv(name, raising=False)
    return load(folder)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Make programs that are found before the machine's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name, body):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    return make
