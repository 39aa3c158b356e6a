"""onnxruntime, with its telemetry switched off."""

from __future__ import annotations

import os
from typing import Any


def load_onnxruntime() -> Any:
    """Import `onnxruntime` without its telemetry.

    On import, onnxruntime writes a device id and an event database into the user's cache
    directory unless ORT_DISABLE_TELEMETRY is set. A local cache should leave no such files;
    set ORT_DISABLE_TELEMETRY=0 to allow them.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
