"""Sizes of the bundled pair's models, and of larger ones for a GPU."""

from __future__ import annotations

from outrider.training.network import Shape

SHAPES = {
    "full": Shape(256, 704, 6, 8, 4),
    "draft": Shape(128, 352, 2, 4, 2),
    "full-gpu": Shape(384, 1024, 8, 12, 4),
    "draft-gpu": Shape(192, 512, 3, 6, 2),
}
