"""`python -m components.attended HOME BEAT MODULE …` runs a module that ends when nobody waits for it.

So do the steps in their Ray clusters: a pipeline's step that was killed outright removes no cluster.
"""

from __future__ import annotations

import runpy
import sys

from infra.heartbeat import end_without
from infra.storage import Store


def main(arguments: list[str]) -> None:
    """Run a module with its arguments, watched by the object `beat` of the store `home`."""
    home, beat, module, *rest = arguments
    end_without(Store(home), beat)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
