"""A child process ends with its parent, however that dies, kill -9 included.

The lifeline is a pipe whose other end only the parent has. A pipe works on every system and lets the child finish what
it began; prctl's parent-death signal is Linux's alone and follows the parent's thread, not its process.
"""

import os
import signal
import threading
import time

# An orphan may drain, but not for ever: whoever starts its like again waits for it.
ORPHAN_GRACE_S = 30.0


def hold(lifeline: int) -> None:
    """Asks this process to stop when the pipe's other end is gone, and ends it if it does not."""
    threading.Thread(target=_follow, args=(lifeline,), name="lifeline", daemon=True).start()


def _follow(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes: this returns when the other end is gone
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)
