"""What Tollgate costs, measured against a bare aiohttp pass-through in the same run: `python -m bench`.

Absolute figures drift with the machine; the ratios of one run are what counts. CPU is user and system time of all
the target's processes, which queueing and a busy neighbour do not change the way they change wall time.
"""
