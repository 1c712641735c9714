"""The choice as machine code, for who has the extra ``outrider[compiled]``. Pure.

Law: what ``speculation.choice`` gives, these give. ``docs/choice-rule.md`` is the rule; here it is loops over the rows of a
pass, compiled by Numba for the processor at hand and kept on disk. They hold no interpreter while they run.
"""

from __future__ import annotations

import importlib.util

from speculation import choice


def use_compiled() -> bool:
    """Let this process choose by machine code from now on; False where Numba is not installed, and nothing changes.

    For a process that serves; never called by a library. Takes 15 seconds the first time on a machine, then half of one, and
    120 MB of memory. Raises ``ImportError`` where Numba is there and cannot be loaded, as beside a NumPy that it does not know.
    """
    if importlib.util.find_spec("numba") is None:
        return False
    from speculation.compiled.calls import CompiledRule

    choice.choose_by(CompiledRule())
    return True
