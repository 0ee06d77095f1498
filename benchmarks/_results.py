"""How a benchmark ends: one line a metric, and the committed result file."""

import datetime
import json
import os
import platform
from pathlib import Path

from keras_opt.core.files import write_atomic
from keras_opt.recipes.figures import versions

RESULTS = Path(__file__).parent / "results"


def report(name: str, claim: str, metrics: dict[str, float], rows: list[dict], *, write: bool) -> None:
    """Write `results/NAME.json` with a row a pair, unless this was a quick run; print each metric as `name=value`."""
    if write:
        result = {
            "claim": claim,
            "metrics": metrics,
            "pairs": len(rows),
            "versions": versions(),
            "device": _cpu(),
            "cores": os.cpu_count(),
            "date": datetime.date.today().isoformat(),
            "rows": rows,
        }
        RESULTS.mkdir(exist_ok=True)
        write_atomic(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")
    for metric, value in metrics.items():
        print(f"{metric}={value:.6g}")


def _cpu() -> str:
    """The processor as Linux names it, elsewhere its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
