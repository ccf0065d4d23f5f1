"""Unpacking, patching, compiling and keeping LIBXSMM; an installed copy in its place."""

import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

# A compiler that makes empty objects and writes down which.
COMPILER = """
[ "$1" = --version ] && cat "$0" && exit
while [ $# -gt 1 ]; do shift; done
: > "$1" && echo "$1" >> "$COMPILED"
"""

BEFORE = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n"

DIFF = """\
Why.

--- a/src/x.c
+++ b/src/x.c
@@ -1,3 +1,4 @@
 one
-two
+2
+2.5
 three
@@ -9,2 +10,1 @@
-nine
 ten
"""


@pytest.fixture
def compiled(build, archive, script, tmp_path, monkeypatch):
    """The log of the compiler in place of the machine's; the archive is in the folder."""
    log = tmp_path / "compiled"
    log.touch()
    script("cc", COMPILER)
    monkeypatch.setenv("COMPILED", str(log))
    monkeypatch.setenv("CC", "cc")
    shutil.copy(archive, build.KEPT)
    return log


def tar(path, *members):
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            member.size = 4 if member.isreg() else 0
            file.addfile(member, io.BytesIO(b"evil") if member.isreg() else None)
    return path


@pytest.mark.parametrize("name", ["../evil.c", "libxsmm-1.17/src/../../../evil.c", "/tmp/evil.c"])
def test_a_path_that_leads_out_of_the_archive_is_refused(build, tmp_path, name):
    path = tar(tmp_path / "evil.tar.gz", tarfile.TarInfo(name))
    with pytest.raises(build.VendoringError, match=f"'{name}' leads out of the archive"):
        build.unpack(path, tmp_path / "one" / "two" / "tree")
    assert not list(tmp_path.rglob("evil.c"))


def test_a_link_is_refused(build, tmp_path):
    link = tarfile.TarInfo("libxsmm-1.17/src/evil")
    link.type, link.linkname = tarfile.SYMTYPE, "/"
    with pytest.raises(build.VendoringError, match="evil' is not a regular file"):
        build.unpack(tar(tmp_path / "evil.tar.gz", link), tmp_path / "tree")


def test_a_patch_is_applied(build, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.c").write_text(BEFORE)
    (tmp_path / "x.patch").write_text(DIFF)
    build.apply_patch(tmp_path / "x.patch", tmp_path)
    after = BEFORE.replace("two", "2\n2.5").replace("nine\n", "")
    assert (tmp_path / "src" / "x.c").read_text() == after


@pytest.mark.parametrize(
    ("find", "replace", "message"),
    [
        (" three\n", " drei\n", r"does not match x\.c at line 1"),
        ("-nine\n", "-neun\n", r"does not match x\.c at line 9"),
        ("@@ -9,2 +10,1 @@", "@@ -8,2 +9,1 @@", r"does not match x\.c at line 8"),
        (" ten\n", "", "not a line of a hunk: b''"),
    ],
)
def test_a_patch_that_does_not_match_ends_the_build(build, tmp_path, find, replace, message):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.c").write_text(BEFORE)
    assert find in DIFF
    (tmp_path / "x.patch").write_text(DIFF.replace(find, replace))
    with pytest.raises(build.VendoringError, match=message):
        build.apply_patch(tmp_path / "x.patch", tmp_path)


def test_a_patch_is_part_of_the_build(build, compiled):
    (build.PATCHES / "9999-late.patch").write_text(DIFF.replace("x.c", "libxsmm_main.c"))
    with pytest.raises(build.VendoringError, match=r"9999-late.patch: does not match libxsmm_main"):
        build.library()


def test_a_second_build_compiles_nothing(build, compiled):
    first = build.library()
    objects = compiled.read_text().split()
    assert "libxsmm_main.o" in objects
    assert "libxsmm_dnn.o" not in objects
    assert build.library() == first
    assert compiled.read_text().split() == objects


@pytest.mark.parametrize("changed", ["patch", "flags", "compiler"])
def test_a_changed_input_compiles_again(build, compiled, script, changed):
    first = build.library()
    objects = compiled.read_text().split()
    if changed == "patch":
        patch = next(build.PATCHES.glob("*.patch"))
        patch.write_text(f"Another reason.\n{patch.read_text()}")
    elif changed == "flags":
        build.FLAGS.append("-DANOTHER")
    else:
        script("cc", f"# version 2\n{COMPILER}")
    assert build.library() != first
    assert len(compiled.read_text().split()) == 2 * len(objects)


def test_parallel_builds_of_one_tree_compile_once(build, compiled):
    command = [sys.executable, str(build.HERE / "build.py")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert printed == {build.library().extra_objects[0] + "\n"}
    objects = compiled.read_text().split()
    assert len(objects) == len(set(objects))


def test_no_compiler(build, compiled, monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc -m64")
    with pytest.raises(build.VendoringError, match="no C compiler: 'no-such-cc' was not found"):
        build.library()


def test_no_archiver(build, compiled, monkeypatch):
    monkeypatch.setenv("AR", "no-such-ar")
    with pytest.raises(build.VendoringError, match=r"no archiver .*: 'no-such-ar' was not found"):
        build.library()


def test_the_first_error_of_the_compiler_is_passed_on(build, compiled, script):
    script("cc", '[ "$1" = --version ] || { echo "x.c:1: error: no space" >&2; exit 1; }')
    with pytest.raises(build.VendoringError, match=r"'cc .*' failed: x\.c:1: error: no space"):
        build.library()
    assert not list(build.BUILD.glob("libxsmm-1.17-*"))


def test_as_a_program_it_ends_with_one_message(build, compiled, monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc")
    command = [sys.executable, str(build.HERE / "build.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "no C compiler: 'no-such-cc' was not found; install one or name it by CC\n"
    )


def test_the_licence_is_that_of_the_archive_and_in_the_installed_package(build, compiled, archive):
    with tarfile.open(archive) as file:
        text = file.extractfile("libxsmm-1.17/LICENSE.md").read()
    assert build.licence().read_bytes() == text
    installed = importlib.metadata.distribution("xsmmconv")
    (path,) = (path for path in installed.files if path.name == "LICENSE.md")
    assert path.read_binary() == text


@pytest.fixture
def prefix(build, tmp_path, monkeypatch):
    """An installed copy as upstream's `make install` leaves it."""
    root = tmp_path / "prefix"
    for name in ("include", "lib", "share/libxsmm"):
        (root / name).mkdir(parents=True)
    (root / "include" / "libxsmm_version.h").write_text('#define LIBXSMM_CONFIG_VERSION "1.17"\n')
    (root / "lib" / "libxsmm.a").touch()
    (root / "share" / "libxsmm" / "LICENSE.md").write_text("the licence\n")
    monkeypatch.setenv("XSMMCONV_LIBXSMM_ROOT", str(root))
    return root


def test_an_installed_copy_is_used(build, prefix):
    library = build.library()
    assert library.include_dirs == [str(prefix / "include")]
    assert library.extra_objects == [str(prefix / "lib" / "libxsmm.a")]
    assert library.define_macros == [("XSMMCONV_LIBXSMM_VERSION", '"1.17"')]
    assert build.licence().read_text() == "the licence\n"


def test_an_installed_copy_brings_its_dummy_blas(build, prefix):
    (prefix / "lib").rename(prefix / "lib64")
    (prefix / "lib64" / "libxsmmnoblas.a").touch()
    names = [path.rpartition("/")[2] for path in build.library().extra_objects]
    assert names == ["libxsmm.a", "libxsmmnoblas.a"]


def test_an_installed_copy_of_another_version_is_refused(build, prefix):
    header = prefix / "include" / "libxsmm_version.h"
    header.write_text('#define LIBXSMM_CONFIG_VERSION "1.16.3"\n')
    with pytest.raises(build.VendoringError, match=r"is LIBXSMM 1\.16\.3; only 1\.17 is supported"):
        build.library()


@pytest.mark.parametrize("missing", ["include/libxsmm_version.h", "lib/libxsmm.a"])
def test_an_incomplete_installed_copy_is_refused(build, prefix, missing):
    (prefix / missing).unlink()
    for ask in (build.licence, build.library):
        with pytest.raises(build.VendoringError, match=f"ROOT={prefix}: expected .*{missing}"):
            ask()


def test_an_installed_copy_without_its_licence_is_refused(build, prefix):
    shutil.rmtree(prefix / "share")
    with pytest.raises(build.VendoringError, match="no licence text"):
        build.licence()


def test_no_path_of_the_building_machine_is_in_the_modules():
    installed = importlib.metadata.distribution("xsmmconv")
    modules = [path.locate() for path in installed.files if path.suffix == ".so"]
    assert modules
    for module in modules:
        told = subprocess.check_output(["readelf", "-d", module], text=True)
        assert "NEEDED" in told
        paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", told)
        assert all(path.startswith("$ORIGIN") for path in paths)
