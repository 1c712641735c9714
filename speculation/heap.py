"""What a process that serves has loaded, kept out of garbage collections.

Commands ask for it; a library never does, for it changes the process that it is in.
"""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Leave what is there now out of the garbage collector's sight. Call it once, when all is loaded.

    Modules and models are a hundred thousand objects and more that are never garbage, and a whole collection would look at each
    of them while sessions wait. What comes later is looked at as ever, and sooner: a whole collection is due when as much came
    as a quarter of what the last one saw.
    """
    gc.collect()
    gc.freeze()
