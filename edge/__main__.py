"""The edge as a process: `python -m edge`."""

import sys

from chassis import lifetime, log, settings
from chassis.lifetime import Lifetime
from edge.assembly import open_edge
from edge.settings import EdgeSettings


async def serve(configured: EdgeSettings, process: Lifetime) -> None:
    """Serves until the process is told to stop, then drains."""
    async with open_edge(configured, process) as edge:
        lifetime.announce_ready(configured.ready_file, port=edge.port, metrics_port=edge.metrics_port)
        await process.until_stopped()


def main() -> int:
    """Returns the exit status; 2 for wrong settings."""
    try:
        configured = settings.load(EdgeSettings)
    except settings.SettingsInvalid as error:
        return lifetime.fail(f"edge cannot start: its settings are wrong.\n{error}")
    log.configure(configured.log_level, "edge")
    return lifetime.run(lambda process: serve(configured, process))


if __name__ == "__main__":
    sys.exit(main())
