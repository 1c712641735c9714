"""Models, and what runs them. Nothing here tells anybody that they run."""

import os

# Written, not read, and before any module below loads ONNX Runtime, whose official builds otherwise keep an identifier of this
# machine on its disk and send events about models and their use to their maker. It has no other switch that comes in time.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251
