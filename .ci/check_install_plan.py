"""Fail where installing the package would move a package that Colab and others have tuned to one another."""

import json
import sys
from pathlib import Path

MUST_STAY = {"tensorflow", "keras", "numpy", "protobuf"}

plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
moved = {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in plan["install"]}
print(f"would install {len(moved)} packages")
if MUST_STAY & moved.keys():
    sys.exit(f"Installing keras_opt moves {', '.join(f'{name} to {moved[name]}' for name in MUST_STAY & moved.keys())}")
