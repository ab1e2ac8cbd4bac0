"""Values and rows: what a caller may hand over, and how a row is written."""

from __future__ import annotations

import json
import math
import operator
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterable, Mapping

JOB_EVENT_KINDS = ("start", "checkpoint", "checkpoint_failed", "evaluation", "end", "failed")

# A message is for people. An endless one would have its whole batch refused for its size.
MESSAGE_LIMIT_CHARACTERS = 4_000

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def number(value: Any) -> float:
    """A number as a float; NaN and infinities are numbers. Raises TypeError, and whatever the value itself raises."""
    if type(value) is float:
        return value
    kind = type(value)
    if kind is bool or not hasattr(kind, "__float__"):
        raise TypeError(f"is a {kind.__name__}, not a number")
    _on_host(value)
    return float(value)


def integer(value: Any) -> int:
    """A whole number of 64 bits. Raises TypeError or ValueError, and whatever the value itself raises."""
    kind = type(value)
    if kind is bool or not (hasattr(kind, "__index__") or hasattr(kind, "__float__")):
        raise TypeError(f"is a {kind.__name__}, not a whole number")
    _on_host(value)
    whole = operator.index(value) if hasattr(kind, "__index__") else int(value)
    if whole != value or not -(2**63) <= whole < 2**63:
        raise ValueError("is not a whole number of 64 bits")
    return whole


def _on_host(value: Any) -> None:
    """Reading a tensor that lives on an accelerator waits for all work queued there, and `step` must never wait."""
    device = getattr(value, "device", None)
    if device is not None and "cpu" not in str(device).lower():
        raise TypeError(f"is on {device}: to read it would make the training wait; pass value.item() if it may")


def text(value: Any) -> str:
    """A string that any JSON reader takes: no lone surrogates, not endless. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"is a {type(value).__name__}, not a string")
    clean = value.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= MESSAGE_LIMIT_CHARACTERS else clean[: MESSAGE_LIMIT_CHARACTERS - 1] + "…"


def kind_of_event(value: Any) -> str:
    """One of the kinds that the table job_event knows. Raises ValueError."""
    if value not in JOB_EVENT_KINDS:
        raise ValueError(f"is none of {', '.join(JOB_EVENT_KINDS)}")
    return str(value)


def describe(error: BaseException) -> str:
    """An exception's type and text."""
    try:
        words = str(error)
    except Exception:  # an exception of the caller's own making may do anything
        words = "(its text could not be made)"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


# The columns that a caller fills, as in the registry's tables train_step and job_event.
COLUMNS: Dict[str, Callable[[Any], Any]] = {
    "step": integer,
    "epoch": number,
    "loss": number,
    "gradient_norm": number,
    "learning_rate": number,
    "step_seconds": number,
    "data_seconds": number,
    "tokens": integer,
    "samples": integer,
    "kind": kind_of_event,
    "message": text,
}


def encode(rows: Iterable[Mapping[str, Any]], identity: Mapping[str, Any]) -> bytes:
    """One JSON object a line. `ts` is microseconds since the epoch in a row, and RFC 3339 on the wire."""
    lines = (json.dumps({**identity, **{name: _wire(name, value) for name, value in row.items()}}) for row in rows)
    return "".join(line + "\n" for line in lines).encode("ascii")


def _wire(name: str, value: Any) -> Any:
    if name == "ts":
        return (_EPOCH + timedelta(microseconds=value)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if type(value) is float and not math.isfinite(value):
        # JSON has no word for these; the server takes the strings for a Float64 column.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
