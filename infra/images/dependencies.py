"""Print what a `pyproject.toml` depends on, a requirement a line: the layer of libraries needs no code.

Runs within the build, on the base image's Python: standard library only.
"""

import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    print(*tomllib.loads(Path(sys.argv[1]).read_text())["project"]["dependencies"], sep="\n")
