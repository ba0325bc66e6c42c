"""Units of test_device.py, which run in child processes."""

from __future__ import annotations

import os
import time
from typing import Any


def number(value: int) -> dict[str, Any]:
    return {"value": value, "process": os.getpid()}


def mistake() -> dict[str, Any]:
    raise ValueError("a mistake\nand more about it")


def crash() -> dict[str, Any]:
    os.abort()


def hang() -> dict[str, Any]:
    time.sleep(60)
    return {}
