"""A process of a stack: `python -m tollgate.child --lifeline FD [--migrate SERVICE] MODULE [ARGUMENT...]`.

Runs MODULE as its main program, and asks it to stop when the lifeline ends (chassis/lifeline.py).
"""

import argparse
import runpy
import sys

from chassis import lifeline


def main() -> None:
    """Ties this process to its parent, and becomes MODULE."""
    parser = argparse.ArgumentParser(prog="tollgate.child")
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--migrate")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    lifeline.hold(told.lifeline)
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


if __name__ == "__main__":
    main()
