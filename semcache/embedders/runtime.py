"""onnxruntime, with its telemetry switched off."""

from __future__ import annotations

import os
from typing import Any


def load_onnxruntime() -> Any:
    """The module `onnxruntime`.

    On import it writes a device id and a database of events into the user's cache directory,
    unless the environment says not to. A cache that runs on the user's own machine leaves
    nothing of the kind; set ORT_DISABLE_TELEMETRY=0 to have it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
