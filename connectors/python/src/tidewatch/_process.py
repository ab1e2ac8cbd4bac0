"""The one client of this process: made when first needed, made anew after a fork, flushed at exit."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
from typing import Any, Callable, Dict, Optional, TypeVar, cast

from ._client import QUEUE_LIMIT_ROWS, Client
from ._context import read_context
from ._rows import describe, integer, text

EXIT_FLUSH_SECONDS = 2.0

_arguments: Dict[str, Any] = {}
_client: Optional[Client] = None
_making = threading.RLock()

Function = TypeVar("Function", bound=Callable[..., Any])


def current() -> Client:
    """The client of this process."""
    global _client
    client = _client
    if client is None:
        with _making:
            client = _client = _client or _make(dict(_arguments))
    return client


def replace(arguments: Dict[str, Any]) -> None:
    """Makes a new client of these arguments of `init`; the one before sends what it has and ends."""
    global _arguments, _client
    with _making:
        before, _client, _arguments = _client, None, arguments
        if before is not None:
            before.close()
        current()


def _make(arguments: Dict[str, Any]) -> Client:
    """What is wrong among the arguments is counted, and its default used."""
    checks: Dict[str, Callable[[Any], Any]] = {"rank": integer, "queue_rows": _positive, "disabled": bool}
    faults = []
    for name, value in arguments.items():
        check: Callable[[Any], Any] = checks.get(name, text)
        try:
            arguments[name] = None if value is None else check(value)
        except Exception as error:
            arguments[name] = None
            faults.append(f"init: {name}: {describe(error)}; the default is used")
    queue_rows = arguments.pop("queue_rows", None)
    client = Client(read_context(os.environ, **arguments), queue_rows or QUEUE_LIMIT_ROWS)
    for words in faults:
        client.fault(words, words)
    return client


def _positive(value: Any) -> int:
    if integer(value) < 1:
        raise ValueError("is not above 0")
    return integer(value)


def guarded(otherwise: Any = None) -> Callable[[Function], Function]:
    """What goes wrong in the function is counted and logged once, and `otherwise` returned: training never sees it."""

    def guard(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                with contextlib.suppress(Exception):
                    name = function.__qualname__
                    current().fault(f"call {name}", f"{name}: {describe(error)}")
                return otherwise

        return cast(Function, call)

    return guard


def _after_fork_in_child() -> None:
    """Queue, thread and connection are the parent's. Its locks may have been held, and would be for ever."""
    global _client, _making
    parents, _client, _making = _client, None, threading.RLock()
    if parents is not None:
        with contextlib.suppress(Exception):
            parents.forget_connection()


@guarded()
def _at_exit() -> None:
    if _client is not None and not _client.is_empty():
        _client.flush(EXIT_FLUSH_SECONDS)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
