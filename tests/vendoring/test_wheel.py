"""The whole package, built by other users, in other places, and in place."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
WHEEL = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
ONE_CONVOLUTION = """
import numpy as np
import xsmmconv
print(xsmmconv.__file__, xsmmconv.conv1d(np.ones((1, 4, 5), "f4"), np.ones((1, 4, 3), "f4")))
"""
ITS_RESULT = " [[[12. 12. 12.]]]"


def copy_of_the_tree(folder, archive):
    """What a build needs of the checkout, and nothing that an earlier one has left."""
    ignore = shutil.ignore_patterns("*.egg-info", "*.so", "*.c", "__pycache__", "LICENSE.md")
    folder.mkdir(parents=True)
    for name in NEEDED:
        shutil.copy(CHECKOUT / name, folder)
    shutil.copytree(CHECKOUT / "src", folder / "src", ignore=ignore)
    third_party = folder / "third_party" / "libxsmm"
    shutil.copytree(CHECKOUT / "third_party" / "libxsmm", third_party, ignore=ignore)
    shutil.copy(CHECKOUT / "third_party" / "libxsmm" / "stand_ins.c", third_party)
    shutil.copy(archive, third_party)
    return folder


def with_libxsmm(tree):
    """Compiled already, by whoever installed the package."""
    for compiled in CHECKOUT.glob("build/libxsmm-*"):
        shutil.copytree(compiled, tree / "build" / compiled.name)
    return tree


def run(*command, folder, **environment):
    variables = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1700000000", **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-1000:]}{done.stderr[-3000:]}"
    return done.stdout


def as_nobody():
    """What to put before a command so that a user without privileges runs it: if that is what we
    are, nothing."""
    if os.geteuid() != 0:
        return []
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    used = "import numpy, setuptools.command.build_ext"
    if subprocess.run([*nobody, sys.executable, "-c", used], capture_output=True).returncode == 0:
        return nobody
    # This Python lies where only root may look, as in root's home.
    return [*nobody, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.fixture(scope="module")
def without_make(archive, tmp_path_factory):
    """Built with a compiler and an archiver, and no other program on the path, where an earlier
    build has left what is no longer true."""
    folder = tmp_path_factory.mktemp("without make")
    named = (shlex.split(sysconfig.get_config_var(name))[0] for name in ("CC", "LDSHARED", "AR"))
    (folder / "bin").mkdir()
    for tool in {"cc", "as", "ld", *named}:
        (folder / "bin" / tool).symlink_to(shutil.which(tool))
    tree = with_libxsmm(copy_of_the_tree(folder / "a tree", archive))
    modules = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for stale in (f"{modules}/xsmmconv/removed.py", "cython/src/xsmmconv/_pack.h"):
        path = tree / "build" / stale
        path.parent.mkdir(parents=True)
        path.touch()
    run(sys.executable, "-c", WHEEL, folder=tree, PATH=str(folder / "bin"))
    return next(tree.glob("dist/*.whl"))


@pytest.fixture(scope="module")
def by_nobody(archive):
    """Built by a user who may write to the tree alone, whose files nobody else may read."""
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder) / "tree", archive)
        Path(folder).chmod(0o755)
        nobody = as_nobody()
        for path in (tree, *tree.rglob("*")):
            path.chmod(path.stat().st_mode & 0o700)
            if nobody:
                os.chown(path, 65534, 65534)
        masked = f"import os; os.umask(0o077); {WHEEL}"
        run(*nobody, sys.executable, "-c", masked, folder=tree, HOME="/nonexistent", TZ="UTC-9")
        yield next(tree.glob("dist/*.whl"))


@pytest.mark.parametrize("built", ["without_make", "by_nobody"])
def test_a_wheel_works(built, request, tmp_path):
    with zipfile.ZipFile(request.getfixturevalue(built)) as wheel:
        wheel.extractall(tmp_path)
    assert not (tmp_path / "xsmmconv" / "removed.py").exists()
    path = os.pathsep.join([str(tmp_path), *sys.path])
    printed = run(sys.executable, "-c", ONE_CONVOLUTION, folder=tmp_path, PYTHONPATH=path)
    assert printed == f"{tmp_path / 'xsmmconv' / '__init__.py'}{ITS_RESULT}\n"


def test_a_wheel_is_the_same_wherever_and_by_whomever_it_is_built(without_make, by_nobody):
    assert without_make.name == by_nobody.name
    assert without_make.read_bytes() == by_nobody.read_bytes()


def test_an_editable_installation(archive, tmp_path):
    tree = with_libxsmm(copy_of_the_tree(tmp_path / "a tree", archive))
    run("git", "init", "--quiet", folder=tree)
    run("git", "add", "--all", folder=tree)
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    packages = Path(run(python, "-c", "import site; print(*site.getsitepackages())", folder=tree))
    # What the build and the package need is taken from this environment, and comes later.
    (Path(str(packages).strip()) / "zz.pth").write_text("\n".join(filter(None, sys.path)))
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed")
    run(python, "-m", "pip", "install", *options, "--editable", ".", folder=tree)
    printed = run(python, "-c", ONE_CONVOLUTION, folder=tmp_path)
    assert printed == f"{tree / 'src' / 'xsmmconv' / '__init__.py'}{ITS_RESULT}\n"
    changed = [
        line
        for line in run("git", "status", "--porcelain", folder=tree).splitlines()
        if not line.startswith("A  ")
    ]
    assert changed == []
