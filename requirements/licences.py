"""Turns a CycloneDX document into requirements/licences.md: what the image carries, and under which licence.

usage: licences.py SBOM.json > licences.md
"""

import json
import sys
from pathlib import Path
from typing import Any

CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def declared(component: dict[str, Any]) -> str:
    """The licence in a component's own words, by SPDX identifier where it has one."""
    found: dict[str, None] = {}
    for choice in component.get("licenses", []):
        named = choice.get("license", {})
        words = choice.get("expression") or named.get("id") or CLASSIFIERS.get(named["name"], named["name"])
        found[words] = None
    return ", ".join(found) or "none declared; the package's files say"


def page(document: dict[str, Any]) -> str:
    """The Markdown page."""
    rows = sorted((each["name"].lower(), each["version"], declared(each)) for each in document["components"])
    return "\n".join(
        [
            "# Third-party packages of the service",
            "What `requirements/serve.txt` installs on Linux, with the licence that each package declares. "
            "`make sbom` writes this page anew,",
            "and `build/sbom.json`, the same in CycloneDX.",
            "",
            "| package | version | licence |",
            "|---|---|---|",
            *(f"| {name} | {version} | {licence} |" for name, version, licence in rows),
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text("utf-8"))) + "\n")
