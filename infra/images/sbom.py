"""What is in an image: its Python and Debian packages, as a CycloneDX 1.6 document.

`docker run --rm IMAGE python -m infra.images.sbom` prints that of any image of ARCO. Standard library only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from arco_core import __version__

Component = dict[str, Any]

_LONGEST_LICENSE = 100
"""Letters; some packages give a license's whole text where its name belongs."""


def bill_of_materials() -> dict[str, Any]:
    """The document about the environment that this runs in.

    Its time is `SOURCE_DATE_EPOCH`, where that is set, so that the same image has the same document.

    Raises:
        OSError: there is no `dpkg-query`: the image is no Debian.
        CalledProcessError: it fails.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(int(seconds), UTC)
    found = {one["bom-ref"]: one for one in [_python(), *_python_packages(), *_debian_packages()]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": __name__, "version": __version__}]},
            "component": {"type": "container", "bom-ref": "image", "name": "arco", "version": __version__},
        },
        "components": [found[reference] for reference in sorted(found)],
    }


def _python() -> Component:
    """The interpreter, which is no Debian package in Docker's own Python images."""
    version = platform.python_version()
    return _component("python", version, f"pkg:generic/python@{version}") | {"type": "application"}


def _python_packages() -> Iterator[Component]:
    for package in importlib.metadata.distributions():
        name = package.metadata["Name"]
        url = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(package.version, safe='')}"
        yield _component(name, package.version, url) | _licenses(package.metadata)


def _debian_packages() -> Iterator[Component]:
    fields = ("db:Status-Abbrev", "Package", "Version", "Architecture", "source:Package", "source:Version")
    form = "\t".join(f"${{{field}}}" for field in fields) + "\n"
    answer = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}"], check=True, capture_output=True, text=True
    )
    release = platform.freedesktop_os_release()
    distribution = f"{release['ID']}-{release.get('VERSION_ID', '')}"
    for line in answer.stdout.splitlines():
        status, name, version, architecture, source, source_version = line.split("\t")
        if not status.startswith("ii"):
            continue
        url = f"pkg:deb/{release['ID']}/{quote(name)}@{quote(version, safe='')}"
        url += f"?arch={architecture}&distro={distribution}"
        # Debian's security tracker speaks of source packages.
        properties = [{"name": "debian:source", "value": f"{source} {source_version}"}]
        yield _component(name, version, url) | {"properties": properties}


def _component(name: str, version: str, url: str) -> Component:
    return {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def _licenses(metadata: importlib.metadata.PackageMetadata) -> dict[str, Any]:
    """What a package's metadata says, in the order of how exactly it says it."""
    for expression in metadata.get_all("License-Expression") or []:
        return {"licenses": [{"expression": expression}]}
    stated = "".join(metadata.get_all("License") or []).strip()
    if 0 < len(stated) <= _LONGEST_LICENSE and "\n" not in stated and stated != "UNKNOWN":
        return {"licenses": [{"license": {"name": stated}}]}
    classes = [text.split(" :: ") for text in metadata.get_all("Classifier") or []]
    names = sorted({parts[-1] for parts in classes if parts[0] == "License"})
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


if __name__ == "__main__":
    print(json.dumps(bill_of_materials(), indent=2))
