"""Print a set-up command as the README states it: `readme_command.py demo` or `readme_command.py tests`."""

import re
import sys
from pathlib import Path

MARKS = {"demo": "keras-opt demo", "tests": "-m pytest"}


def readme_command(kind: str) -> str:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("python3 -m venv")]
    return next(line for line in commands if line.endswith(MARKS[kind]))


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
