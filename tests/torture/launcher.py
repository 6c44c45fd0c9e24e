"""A process of the torture: `python -m tests.torture.launcher MODULE`, with what TORTURE_* tells it.

Ends with its parent, however that ends. TORTURE_MUTATION names a way to break an invariant (mutations.py), which is
patched in from here before MODULE runs: the product itself has no hooks.
"""

import os
import runpy
import sys
import threading
from importlib import import_module

from tests.torture.mutations import MUTATIONS


def main() -> None:
    """Becomes MODULE."""
    threading.Thread(target=_follow_parent, args=(int(os.environ.pop("TORTURE_LIFELINE")),), daemon=True).start()
    name = os.environ.pop("TORTURE_MUTATION", "")
    if name:
        MUTATIONS[name].apply(setattr)
    sys.argv = sys.argv[1:]
    if sys.argv[0] == "edge":
        import_module("tests.torture.disk").copy_what_is_synced(setattr)  # of which the services need nothing
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _follow_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes: this returns when the other end is gone
    os._exit(1)


if __name__ == "__main__":
    main()
