"""Names the extension modules; all metadata is in pyproject.toml.

Switches (environment variables), besides those of third_party/libxsmm/build.py:
XSMMCONV_SANITIZE=address,undefined   compile with these sanitizers
XSMMCONV_COVERAGE=1                   make the lines of Cython code visible to coverage.py
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.egg_info import egg_info


def vendoring(name):
    """A module of third_party/libxsmm."""
    path = f"third_party/libxsmm/{name}.py"
    spec = importlib.util.spec_from_file_location(f"libxsmm_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


libxsmm, sbom = vendoring("build"), vendoring("sbom")

SANITIZE = os.environ.get("XSMMCONV_SANITIZE", "")
COVERAGE = os.environ.get("XSMMCONV_COVERAGE") == "1"
CORES = len(os.sched_getaffinity(0))
# A report ends the process: pytest would not show what a passing test has printed.
CHECKS = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
CHECKS *= bool(SANITIZE)
ENGINE = ["-O3", "-fopenmp", "-mavx2", "-mfma", "-ffp-contract=off"]
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
# coverage.py reads what Cython traces in the older of its two ways.
MACROS += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] * COVERAGE
DIRECTIVES = {"language_level": 3, "cdivision": True, "linetrace": COVERAGE}
DIRECTIVES |= dict.fromkeys(("boundscheck", "wraparound", "initializedcheck"), False)

# _dispatch alone links LIBXSMM, and it is baseline x86-64: it can be imported on any such
# processor and says what is missing.
ENGINES = "_memory", "_correlate", "_row_filter", "_weight_gradient", "_row_gradient"
ENGINES += "_unfolded", "_fold", "_peak"
FLAGS = dict.fromkeys(ENGINES, ENGINE)
MODULES = [
    Extension(
        f"xsmmconv.{name}",
        [f"src/xsmmconv/{name}.pyx"],
        include_dirs=["src/xsmmconv", numpy.get_include()],
        define_macros=list(MACROS),
        extra_compile_args=["-g0", *flags, *CHECKS],
        extra_link_args=[*flags, *CHECKS],
    )
    for name, flags in {"_dispatch": [], "_call": [], **FLAGS}.items()
]


def forget_earlier_builds():
    """Keep LIBXSMM alone: time stamps do not tell what else could be used again, and a file that
    is no longer there would stay in the wheel."""
    for name in ("bdist.*", "cython", "lib.*", "temp.*"):
        for folder in Path("build").glob(name):
            shutil.rmtree(folder)


class BuildExtensions(build_ext):
    def run(self):
        for setting, values in libxsmm.library()._asdict().items():
            getattr(MODULES[0], setting).extend(values)
        translated = cythonize(
            self.extensions,
            build_dir=None if COVERAGE else "build/cython",  # coverage.py looks beside the .pyx
            compiler_directives=DIRECTIVES,
            nthreads=CORES,
            force=True,
        )
        for module, source in zip(self.extensions, translated, strict=True):
            module.sources = source.sources
        self.parallel = CORES
        self.force = True  # time stamps do not tell which switches a file was made with
        super().run()

    def build_extensions(self):
        # Some Pythons tell every module where their own libraries lie. Ours need none of these, and
        # a wheel should not know the machine it was built on.
        linker = self.compiler.linker_so
        linker[:] = [option for option in linker if not option.startswith("-Wl,-rpath")]
        super().build_extensions()


class EggInfo(egg_info):
    """What lies here is copied to the .dist-info of a wheel."""

    def run(self):
        super().run()
        path = Path(self.egg_info, "sboms", "libxsmm.cdx.json")
        path.unlink(missing_ok=True)
        if "XSMMCONV_LIBXSMM_ROOT" in os.environ:
            return  # that is a copy of which we know nothing but the version
        path.parent.mkdir(exist_ok=True)
        document = sbom.document(self.egg_name, self.egg_version, libxsmm)
        path.write_text(json.dumps(document, indent=2) + "\n")


class BuildWheel(bdist_wheel):
    """The same bytes wherever it is built, if SOURCE_DATE_EPOCH says when."""

    def write_wheelfile(self, folder, *rest):
        super().write_wheelfile(folder, *rest)
        for path in Path(self.bdist_dir).rglob("*"):  # a checkout has the modes its owner likes
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


libxsmm.one_build_at_a_time()
forget_earlier_builds()
libxsmm.licence()
if "sdist" in sys.argv:
    libxsmm.tarball()  # building from the sdist then needs no network
setup(
    ext_modules=MODULES if os.uname().machine == "x86_64" else [],
    cmdclass={"build_ext": BuildExtensions, "egg_info": EggInfo, "bdist_wheel": BuildWheel},
)
