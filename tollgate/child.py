"""A process of a stack: `python -m tollgate.child --lifeline FD [--migrate SERVICE] MODULE [ARGUMENT...]`.

Runs MODULE as its main program, and asks it to stop when the lifeline ends: a pipe whose other end only the parent
has, so that it ends however the parent dies, kill -9 included. A pipe works on every system and lets the child finish
what it began; prctl's parent-death signal is Linux's alone and follows the parent's thread, not its process.
"""

import argparse
import os
import runpy
import signal
import sys
import threading
import time

# An orphan may drain, but not for ever: whoever starts the stack again waits for it.
ORPHAN_GRACE_S = 30.0


def main() -> None:
    """Ties this process to its parent, and becomes MODULE."""
    parser = argparse.ArgumentParser(prog="tollgate.child")
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--migrate")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    threading.Thread(target=_follow_parent, args=(told.lifeline,), name="lifeline", daemon=True).start()
    if told.migrate:
        # In here, since this process loads the database's libraries anyway and the services do so side by side.
        from chassis.settings import SettingsInvalid
        from tollgate.failure import CommandFailed
        from tollgate.migrate import migrate_service

        try:
            migrate_service(told.migrate)
        except (CommandFailed, SettingsInvalid) as failure:
            sys.exit(f"{told.module} cannot start:\n{failure}")
    sys.argv = [told.module, *told.arguments]
    runpy.run_module(told.module, run_name="__main__", alter_sys=True)


def _follow_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes: this returns when the other end is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
