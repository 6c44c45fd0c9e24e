"""How often Python looks for garbage: cycles, that is, since all other memory is given back at once.

It looks again for every 700 new objects, at first. What starts makes half a million that stay, and looking through them
takes a sixth of a start; what serves requests makes no cycles to speak of.
"""

import gc

_YOUNG_OBJECTS = 50_000


def look_seldom() -> None:
    """From now on, after 50,000 new objects."""
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


def keep_what_is_there() -> None:
    """What there is by now stays as long as the process (modules, classes, stubs): no look needs to go through it."""
    gc.collect()
    gc.freeze()
