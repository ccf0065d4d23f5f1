"""What the installed package says is linked into it: the pin of build.py and our patches."""

import importlib.metadata
import json

import pytest


@pytest.fixture
def sbom():
    text = importlib.metadata.distribution("xsmmconv").read_text("sboms/libxsmm.cdx.json")
    assert text is not None, "no SBOM in the installed package's .dist-info"
    return json.loads(text)


def test_it_names_the_pinned_archive(sbom, build):
    (libxsmm,) = sbom["components"]
    assert (libxsmm["name"], libxsmm["version"]) == ("libxsmm", build.VERSION)
    (archive,) = libxsmm["externalReferences"]
    assert archive["url"] == build.UPSTREAM
    assert archive["hashes"] == [{"alg": "SHA-256", "content": build.SHA256}]


def test_it_contains_our_patches(sbom, build):
    (libxsmm,) = sbom["components"]
    contained = [patch["diff"]["text"]["content"] for patch in libxsmm["pedigree"]["patches"]]
    assert contained == [path.read_text() for path in sorted(build.PATCHES.glob("*.patch"))]


def test_it_describes_this_package(sbom):
    ours = sbom["metadata"]["component"]
    assert ours["version"] == importlib.metadata.version("xsmmconv")
    (theirs,) = sbom["components"]
    assert {"ref": ours["bom-ref"], "dependsOn": [theirs["bom-ref"]]} in sbom["dependencies"]


def test_licence_texts_are_installed():
    texts = [
        path.read_text()
        for path in importlib.metadata.files("xsmmconv")
        if "licenses" in path.parts
    ]
    assert len(texts) == 2
    assert any("Intel Corporation" in text for text in texts)  # LIBXSMM's
