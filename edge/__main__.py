"""The edge as a process: `python -m edge`. With several processes this one starts and watches the others."""

import argparse
import sys

from chassis import lifeline, lifetime, log, settings
from chassis.lifetime import Lifetime
from edge.assembly import open_edge
from edge.emptying import emptied
from edge.group import serve_group
from edge.group_folders import left_behind
from edge.settings import EdgeSettings


async def serve(configured: EdgeSettings, process: Lifetime, *, is_member: bool = False) -> None:
    """Serves until the process is told to stop, then drains."""
    async with open_edge(configured, process, is_member=is_member) as edge:
        lifetime.announce_ready(configured.ready_file, port=edge.port, metrics_port=edge.metrics_port)
        await process.until_stopped()


def main() -> int:
    """Returns the exit status; 2 for wrong settings."""
    parser = argparse.ArgumentParser(prog="edge")
    parser.add_argument("--lifeline", type=int, help="member of a group: the pipe that ends with its first process")
    parser.add_argument("--empty", action="store_true", help="ship the usage that is left in the data folder, and end")
    told = parser.parse_args()
    try:
        configured = settings.load(EdgeSettings)
    except settings.SettingsInvalid as error:
        return lifetime.fail(f"edge cannot start: its settings are wrong.\n{error}")
    log.configure(configured.log_level, "edge")
    if told.lifeline is not None:
        lifeline.hold(told.lifeline)
    if told.empty:
        return lifetime.run(lambda process: emptied(configured, process))
    is_member = told.lifeline is not None
    if not is_member and (configured.processes > 1 or left_behind(configured.data_dir, configured.processes)):
        return lifetime.run(lambda process: serve_group(configured, process))
    return lifetime.run(lambda process: serve(configured, process, is_member=is_member))


if __name__ == "__main__":
    sys.exit(main())
