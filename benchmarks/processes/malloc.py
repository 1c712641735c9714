"""What the C library's allocator has given out and not got back, where that can be asked: with glibc."""

from __future__ import annotations

import ctypes


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def given_out_bytes() -> int:
    """Of all arenas, and what was mapped apart; 0 where nobody tells."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _MallInfo
    told = ask()
    return int(told.uordblks + told.hblkhd)
