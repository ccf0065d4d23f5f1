"""Where the archive of LIBXSMM comes from, and that no other than the right one is used."""

import hashlib
import re
import shutil

import pytest


def spoiled(archive, path, how):
    data = archive.read_bytes()
    if how == "tampered":
        data = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
    else:
        data = data[: len(data) // 2]
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def unreachable(name):
    def fetch(folder):
        raise OSError(f"{name} is unreachable")

    return fetch


def unexpected(folder):
    raise AssertionError("the archive was there already")


@pytest.mark.parametrize("how", ["tampered", "truncated"])
def test_a_given_archive_with_a_wrong_hash_ends_the_build(
    build, archive, tmp_path, monkeypatch, how
):
    path = tmp_path / "given.tar.gz"
    found = spoiled(archive, path, how)
    monkeypatch.setenv("XSMMCONV_LIBXSMM_TARBALL", str(path))
    with pytest.raises(build.VendoringError) as error:
        build.tarball()
    for part in (str(path), found, build.SHA256):
        assert part in str(error.value)
    assert not build.KEPT.exists()


@pytest.mark.parametrize("how", ["tampered", "truncated"])
def test_an_archive_in_the_folder_with_a_wrong_hash_ends_the_build(build, archive, how):
    found = spoiled(archive, build.KEPT, how)
    with pytest.raises(build.VendoringError) as error:
        build.tarball()
    for part in (str(build.KEPT), found, build.SHA256):
        assert part in str(error.value)


def test_a_download_with_a_wrong_hash_ends_the_build(build, archive, monkeypatch):
    def fetch(folder):
        spoiled(archive, folder / "download", "truncated")
        return folder / "download"

    monkeypatch.setattr(build, "from_upstream", fetch)
    monkeypatch.setattr(build, "from_debian", unexpected)
    with pytest.raises(build.VendoringError, match=re.escape(build.UPSTREAM)):
        build.tarball()
    assert not build.KEPT.exists()


def test_a_given_archive_that_does_not_exist_is_named(build, monkeypatch):
    monkeypatch.setenv("XSMMCONV_LIBXSMM_TARBALL", "/not/there.tar.gz")
    with pytest.raises(build.VendoringError, match=r"/not/there\.tar\.gz: no such file"):
        build.tarball()


def test_a_given_archive_comes_first_and_is_kept(build, archive, monkeypatch):
    build.KEPT.write_bytes(b"something else")
    monkeypatch.setenv("XSMMCONV_LIBXSMM_TARBALL", str(archive))
    assert build.tarball() == build.KEPT
    assert build.KEPT.read_bytes() == archive.read_bytes()


def test_an_archive_in_the_folder_needs_no_network(build, archive, monkeypatch):
    shutil.copy(archive, build.KEPT)
    monkeypatch.setattr(build, "from_upstream", unexpected)
    monkeypatch.setattr(build, "from_debian", unexpected)
    assert build.tarball() == build.KEPT


def test_upstream_comes_before_debian(build, archive, monkeypatch):
    monkeypatch.setattr(build, "from_upstream", lambda folder: archive)
    monkeypatch.setattr(build, "from_debian", unexpected)
    assert build.tarball().read_bytes() == archive.read_bytes()


def test_debian_comes_last(build, archive, monkeypatch):
    monkeypatch.setattr(build, "from_upstream", unreachable("upstream"))
    monkeypatch.setattr(build, "from_debian", lambda folder: archive)
    assert build.tarball().read_bytes() == archive.read_bytes()


def test_every_source_that_failed_has_a_line(build, monkeypatch):
    monkeypatch.setattr(build, "from_upstream", unreachable("upstream"))
    monkeypatch.setattr(build, "from_debian", unreachable("Debian"))
    with pytest.raises(build.VendoringError) as error:
        build.tarball()
    first, *lines = str(error.value).splitlines()
    assert first == "LIBXSMM 1.17 could not be obtained. Tried, in this order:"
    assert [line.strip() for line in lines] == [
        "XSMMCONV_LIBXSMM_TARBALL: not set",
        f"{build.KEPT}: not there",
        f"{build.UPSTREAM}: upstream is unreachable",
        "Debian's source package: Debian is unreachable",
    ]


# What apt-get is asked for, by a program in its place.
APT = """
config=$2; shift 2
while [ "$1" = -o ]; do
    case "$2" in Dir::Etc::SourceList=*) sources=${2#*=} ;; esac
    shift 2
done
case "$1" in
indextargets) printf '%s\\n' 'deb-src B' 'deb-src A' 'deb-src B' ;;
update) grep -q 'Dir::State::Lists "/' "$config" || exit 9 ;;
source) SOURCE ;;
esac
"""


def test_apt_gets_deb_src_lines_and_its_own_folders(build, script, tmp_path):
    script("apt-get", APT.replace("SOURCE", f'cp "$sources" {build.DEBIAN}'))
    folder = tmp_path / "private state"
    folder.mkdir()
    assert build.from_debian(folder).read_text() == "deb-src A\ndeb-src B\n"


def test_the_reason_of_apt_is_passed_on(build, script, tmp_path):
    script("apt-get", APT.replace("SOURCE", "echo 'E: Unable to find it' >&2"))
    with pytest.raises(OSError, match=r"did not bring libxsmm_1\.17.*\(E: Unable to find it\)"):
        build.from_debian(tmp_path)


def test_a_machine_without_apt(build, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="apt-get is not installed"):
        build.from_debian(tmp_path)
