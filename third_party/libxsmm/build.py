"""Obtain, verify, unpack, patch and compile LIBXSMM: the only code that knows how.

    tarball()  ->  unpack()  ->  apply_patch()  ->  compile_archive()
                       library(), licence(), one_build_at_a_time(): what setup.py asks for

``python third_party/libxsmm/build.py`` builds the library and prints where it is.
Nothing but the standard library is needed. Switches (environment variables):

XSMMCONV_LIBXSMM_TARBALL   the source archive, already downloaded
XSMMCONV_LIBXSMM_ROOT      prefix of an installed LIBXSMM to use instead of building one
CC, AR                     compiler and archiver, by default those Python was built with
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

VERSION = "1.17"
SHA256 = "8b642127880e92e8a75400125307724635ecdf4020ca4481e5efe7640451bb92"
UPSTREAM = f"https://github.com/libxsmm/libxsmm/archive/{VERSION}.tar.gz"
DEBIAN = f"libxsmm_{VERSION}.orig.tar.gz"  # the same bytes under Debian's name

HERE = Path(__file__).resolve().parent
PATCHES = HERE / "patches"
BUILD = HERE.parent.parent / "build"
KEPT = HERE / f"libxsmm-{VERSION}.tar.gz"  # where a verified archive is kept
LICENCE = HERE / "LICENSE.md"  # extracted: must go with every binary

# Not compiled: nothing that we call needs it.
LEFT_OUT = (
    *("libxsmm_dnn*", "*_driver*", "libxsmm_ext*", "libxsmm_python.c"),
    *("generator_packed*", "generator_spgemm*", "libxsmm_*spmdm.c"),
    *("libxsmm_blocked_gemm.c", "libxsmm_perf.c", "libxsmm_rng.c", "libxsmm_trace.c"),
)
STAND_INS = HERE / "stand_ins.c"  # for what is called of it all the same

FLAGS = [
    *("-O2", "-fPIC", "-fvisibility=hidden", "-w", "-msse4.2", "-DNDEBUG", "-D__BLAS=0"),
    *("-Iinclude", "-Isrc"),
    "-DLIBXSMM_DEFAULT_CONFIG",  # no generated headers
    *("-DLIBXSMM_BUILD=1", "-Dpthread_yield=sched_yield"),  # no need of glibc
    "-DLIBXSMM_NO_CTOR",  # initialised when asked, not when the module is loaded
    "-DLIBXSMM_CACHE_MAXSIZE=0",  # its cache is shared, unlocked, beyond 1024 threads
    "-DLIBXSMM_MALLOC_LOCK_ONFAULT",  # else it locks 9 MB into physical memory
    "-DLIBXSMM_DENY_RETARGET",  # else small kernels (k * n <= 16) are AVX2 everywhere
]


class VendoringError(SystemExit):
    """Ends a build with one message; as a SystemExit it brings no traceback along."""


class Library(NamedTuple):
    """What the module that links it needs, under the names of setuptools' Extension."""

    include_dirs: list[str]
    extra_objects: list[str]
    define_macros: list[tuple[str, str | None]]
    libraries: list[str]
    extra_link_args: list[str]

    @classmethod
    def of(cls, include: Path, archives: list[Path], *macros: str) -> "Library":
        return cls(
            include_dirs=[str(include)],
            extra_objects=[str(path) for path in archives],
            define_macros=[
                ("XSMMCONV_LIBXSMM_VERSION", f'"{VERSION}"'),
                *((macro, None) for macro in macros),
            ],
            libraries=["pthread", "dl", "m", "rt"],
            extra_link_args=["-Wl,--exclude-libs,ALL"],  # none of its symbols leaves the module
        )


def library() -> Library:
    """The library to link with: an installed one if asked for, else ours, built if need be."""
    prefix = os.environ.get("XSMMCONV_LIBXSMM_ROOT")
    if prefix:
        return installed(Path(prefix))
    archive = tarball()
    compiler = _command("CC", "cc", "C compiler")
    done = BUILD / f"libxsmm-{VERSION}-{_fingerprint(compiler)}"
    one_build_at_a_time()
    if not done.is_dir():
        with tempfile.TemporaryDirectory(dir=BUILD, prefix="libxsmm-") as scratch:
            tree = Path(scratch, "tree")
            unpack(archive, tree)
            for patch in sorted(PATCHES.glob("*.patch")):
                apply_patch(patch, tree)
            compile_archive(tree, compiler)
            tree.rename(done)
    return Library.of(done / "include", [done / "libxsmm.a"], "LIBXSMM_DEFAULT_CONFIG")


def licence() -> Path:
    """Put LIBXSMM's licence text beside this file, where the packaging metadata names it."""
    prefix = os.environ.get("XSMMCONV_LIBXSMM_ROOT")
    if prefix:
        text = licence_of(Path(prefix)).read_bytes()
    else:
        with tarfile.open(tarball()) as archive:
            text = archive.extractfile(f"libxsmm-{VERSION}/LICENSE.md").read()
    if not LICENCE.is_file() or LICENCE.read_bytes() != text:
        _replace(LICENCE, text)
    return LICENCE


def one_build_at_a_time() -> None:
    """Wait until no other process builds this tree; the lock ends with this process."""
    BUILD.mkdir(exist_ok=True)
    descriptor = os.open(BUILD / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)


# ---------------------------------------------------------------- obtaining and verifying


def tarball() -> Path:
    """Path of the verified source archive, which then lies in this folder.

    Sought in this order: the environment variable, this folder, upstream, Debian. One with
    a wrong hash is never passed over in silence: it ends the build.
    """
    given = os.environ.get("XSMMCONV_LIBXSMM_TARBALL")
    if given:
        if not Path(given).is_file():
            raise VendoringError(f"XSMMCONV_LIBXSMM_TARBALL={given}: no such file")
        return _keep(Path(given), given)
    if KEPT.is_file():
        verify(KEPT, str(KEPT))
        return KEPT
    failures = ["XSMMCONV_LIBXSMM_TARBALL: not set", f"{KEPT}: not there"]
    for name, fetch in ((UPSTREAM, from_upstream), ("Debian's source package", from_debian)):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found = fetch(Path(scratch))
            except (OSError, subprocess.SubprocessError) as error:
                failures.append(f"{name}: {error}")
                continue
            return _keep(found, name)
    raise VendoringError(
        f"LIBXSMM {VERSION} could not be obtained. Tried, in this order:\n  "
        + "\n  ".join(failures)
    )


def verify(path: Path, origin: str) -> None:
    """End the build unless `path`, which came from `origin`, is the archive we know."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise VendoringError(
            f"{origin}: not the archive of LIBXSMM {VERSION}: sha256 is\n  {found}, expected\n"
            f"  {SHA256}"
        )


def from_upstream(folder: Path) -> Path:
    path = folder / KEPT.name
    with urllib.request.urlopen(UPSTREAM, timeout=20) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
    return path


def from_debian(folder: Path) -> Path:
    """Let apt fetch the source package from wherever this machine's binary packages come.

    Neither root nor deb-src lines are needed: all of apt's state is kept in `folder`, and
    the deb-src lines are made from the deb lines, which apt can list once it has fetched
    their indices.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise OSError("apt-get is not installed")
    folder.chmod(0o755)  # started by root, apt downloads as a user of its own
    for name in ("lists", "cache/archives"):
        (folder / name / "partial").mkdir(parents=True)
    config, sources = folder / "apt.conf", folder / "sources.list"
    config.write_text(
        f'Dir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
        'Acquire::Retries "1";\nAcquire::http::Timeout "20";\nAcquire::https::Timeout "20";\n'
        # What the administrator hung onto `apt-get update` is not ours to trigger.
        "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess:
        # The status is not looked at: one broken repository of many makes it an error.
        return subprocess.run(
            [apt, "-c", str(config), *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    # trusted=yes: a key that is bound to the deb lines is not known here; our hash decides.
    line = "deb-src [trusted=yes] $(SITE) $(RELEASE) $(COMPONENT)"
    update = run("update")
    targets = run("indextargets", "--format", line).stdout.splitlines()
    sources.write_text("".join(f"{target}\n" for target in sorted(set(targets))))
    only = ("-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-")
    update_sources = run(*only, "update")
    source = run(*only, "source", "--download-only", "--tar-only", "libxsmm")
    if not (folder / DEBIAN).is_file():
        said = (update.stderr + update_sources.stderr + source.stderr).splitlines()
        errors = [text for text in said if text.startswith(("E:", "W: Failed"))]
        raise OSError(f"apt-get did not bring {DEBIAN} ({(errors or ['no reason given'])[0]})")
    return folder / DEBIAN


def _keep(found: Path, origin: str) -> Path:
    verify(found, origin)
    if not KEPT.is_file() or KEPT.read_bytes() != found.read_bytes():
        _replace(KEPT, found.read_bytes())
    return KEPT


def _replace(path: Path, content: bytes) -> None:
    """Write a file at once, so that a parallel build never sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


# ------------------------------------------------------------------ unpacking and patching


def unpack(archive: Path, tree: Path) -> None:
    """Write the headers and sources of `archive`, and nothing else, to `tree`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise VendoringError(f"{archive}: '{member.name}' leads out of the archive")
            if member.isdir() or path.parts[1:2] not in (("include",), ("src",)):
                continue
            if not member.isreg():
                raise VendoringError(f"{archive}: '{member.name}' is not a regular file")
            target = tree.joinpath(*path.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())


def apply_patch(patch: Path, tree: Path) -> None:
    """Apply a unified diff, strictly: each hunk fits at its line, or the build ends.

    (``patch`` may be missing on a machine that has a compiler, and it is forgiving.)
    """
    path, content, shift = None, [], 0
    lines = iter(patch.read_bytes().splitlines(keepends=True))
    for line in lines:
        if line.startswith(b"--- a/"):
            path = tree / line[6:].decode().strip()
            content, shift = path.read_bytes().splitlines(keepends=True), 0
        elif line.startswith(b"@@ "):
            start, old_count, new_count = _hunk_range(line)
            old, new = [], []
            while len(old) < old_count or len(new) < new_count:
                line = next(lines, b"")
                mark, text = line[:1], line[1:]
                if mark not in (b" ", b"-", b"+"):
                    raise VendoringError(f"{patch}: not a line of a hunk: {line!r}")
                if mark != b"+":
                    old.append(text)
                if mark != b"-":
                    new.append(text)
            first = start - 1 + shift
            if content[first : first + len(old)] != old:
                raise VendoringError(f"{patch}: does not match {path.name} at line {start}")
            content[first : first + len(old)] = new
            shift += len(new) - len(old)
            path.write_bytes(b"".join(content))


def _hunk_range(header: bytes) -> tuple[int, int, int]:
    """First line and number of lines before, number of lines after: @@ -75,23 +75,12 @@."""
    before, after = (part[1:].split(b",") for part in header.split()[1:3])
    return int(before[0]), int(before[1]), int(after[1])


# ------------------------------------------------------------------------------- compiling


def compile_archive(tree: Path, compiler: list[str]) -> None:
    """Compile the patched `tree` on all cores into `tree`/libxsmm.a."""
    archiver = _command("AR", "ar", "archiver (binutils)")
    shutil.copy(STAND_INS, tree / "src")
    sources = [
        path.relative_to(tree)
        # The largest first: no core is then left alone with one at the end.
        for path in sorted(tree.glob("src/*.c"), key=lambda path: -path.stat().st_size)
        if not any(path.match(pattern) for pattern in LEFT_OUT)
    ]
    cores = len(os.sched_getaffinity(0))
    print(f"compiling LIBXSMM {VERSION}: {len(sources)} files, {cores} at a time", file=sys.stderr)

    def compile_one(source: Path) -> str:
        # Relative paths: whatever finds its way into an object is the same everywhere.
        target = source.with_suffix(".o").name
        _run([*compiler, *FLAGS, "-c", str(source), "-o", target], tree)
        return target

    with ThreadPoolExecutor(cores) as pool:
        try:
            objects = list(pool.map(compile_one, sources))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _run([*archiver, "rcsD", "libxsmm.a", *sorted(objects)], tree)
    for name in objects:
        (tree / name).unlink()


def _fingerprint(compiler: list[str]) -> str:
    """Changes with whatever the library is made from: pin, flags, patches, compiler."""
    version = _run([*compiler, "--version"], HERE)
    parts = [SHA256, *FLAGS, *LEFT_OUT, *compiler, version]
    files = [STAND_INS, *sorted(PATCHES.glob("*.patch"))]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _command(variable: str, default: str, what: str) -> list[str]:
    """A tool's command line: from the environment, else the one Python was built with."""
    command = shlex.split(os.environ.get(variable) or sysconfig.get_config_var(variable) or default)
    if shutil.which(command[0]) is None:
        raise VendoringError(
            f"no {what}: '{command[0]}' was not found; install one or name it by {variable}"
        )
    return command


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.splitlines()
        errors = [line for line in said if "error" in line] or said[-1:] or ["no reason given"]
        raise VendoringError(f"'{shlex.join(command)}' failed: {errors[0]}")
    return done.stdout


# ------------------------------------------------------------------------ an installed copy


def installed(prefix: Path) -> Library:
    """The copy under `prefix` (upstream's ``make install``, or a package), if it is ours."""
    header = prefix / "include" / "libxsmm_version.h"
    folder = prefix / ("lib" if (prefix / "lib" / "libxsmm.a").is_file() else "lib64")
    if not header.is_file() or not (folder / "libxsmm.a").is_file():
        raise VendoringError(
            f"XSMMCONV_LIBXSMM_ROOT={prefix}: expected include/libxsmm.h,"
            " include/libxsmm_version.h and lib/libxsmm.a below it"
        )
    version = next(
        (line.split('"')[1] for line in header.read_text().splitlines() if '_VERSION "' in line),
        "unknown",
    )
    if version != VERSION:
        raise VendoringError(
            f"XSMMCONV_LIBXSMM_ROOT={prefix}: that is LIBXSMM {version};"
            f" only {VERSION} is supported"
        )
    # Unless it was built with BLAS=0 it needs a BLAS, for functions that we do not call.
    archives = [folder / name for name in ("libxsmm.a", "libxsmmnoblas.a")]
    return Library.of(prefix / "include", [path for path in archives if path.is_file()])


def licence_of(prefix: Path) -> Path:
    installed(prefix)
    for pattern in ("LICENSE.md", "share/libxsmm/LICENSE.md", "share/doc/libxsmm*/copyright"):
        for path in prefix.glob(pattern):
            return path
    raise VendoringError(
        f"XSMMCONV_LIBXSMM_ROOT={prefix}: no licence text (LICENSE.md) below it;"
        " it must go with every binary"
    )


if __name__ == "__main__":
    print(library().extra_objects[0])
