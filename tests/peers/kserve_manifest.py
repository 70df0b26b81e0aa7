"""Holds manifests (JSON lines on stdin) to the models of KServe's client, which are made from its API."""

import json
import re
import sys
from typing import Any

from kserve import models

PLAIN = {"str": str, "int": int, "bool": bool, "object": object}


def read(value: Any, kind: str, at: str) -> Any:
    """The value as what its kind says; ends the program where it is something else."""
    if value is None:
        return None
    if inside := re.fullmatch(r"list\[(.*)\]", kind):
        return [read(each, inside[1], f"{at}[{index}]") for index, each in enumerate(value)]
    if kind in PLAIN:
        return value if isinstance(value, PLAIN[kind]) else sys.exit(f"{at}: {value!r} is no {kind}")
    if not hasattr(models, kind):  # Kubernetes' own, which kubernetes-validate knows
        return value
    model = getattr(models, kind)
    names = {there: here for here, there in model.attribute_map.items()}
    if unknown := value.keys() - names.keys():
        sys.exit(f"{at}: {kind} knows no {', '.join(sorted(unknown))}")
    read_in = {names[key]: read(each, model.openapi_types[names[key]], f"{at}.{key}") for key, each in value.items()}
    return model(**read_in)  # which itself refuses where something required is not given


if __name__ == "__main__":
    for line in sys.stdin:
        manifest = json.loads(line)
        version = manifest["apiVersion"].removeprefix("serving.kserve.io/")
        read(manifest, version.capitalize() + manifest["kind"], manifest["kind"])
        print(f"{manifest['kind']} {manifest['metadata']['name']} is as KServe's {version} says")
