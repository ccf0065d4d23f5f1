"""What is linked into the package, as a CycloneDX document; wheels carry it in .dist-info/sboms.

It says which archive of LIBXSMM was compiled and what our patches change in it. It holds no date
and no random number: the same sources give the same document.
"""


def document(package, version, build):
    """The document as a dictionary; `build` is the module build.py, which knows the pin."""
    ours, theirs = f"pkg:pypi/{package}@{version}", f"pkg:github/libxsmm/libxsmm@{build.VERSION}"
    patches = [
        {"type": "unofficial", "diff": {"text": {"content": path.read_text()}}}
        for path in sorted(build.PATCHES.glob("*.patch"))
    ]
    libxsmm = _component("libxsmm", build.VERSION, theirs) | {
        "externalReferences": [
            {
                "type": "source-distribution",
                "url": build.UPSTREAM,
                "hashes": [{"alg": "SHA-256", "content": build.SHA256}],
            }
        ],
        "pedigree": {"patches": patches},
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(package, version, ours)},
        "components": [libxsmm],
        "dependencies": [{"ref": ours, "dependsOn": [theirs]}, {"ref": theirs}],
    }


def _component(name, version, purl):
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "BSD-3-Clause"}}],
    }
