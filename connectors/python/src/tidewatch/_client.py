"""A queue of rows and the thread that empties it. Nothing here waits for the server in a caller's thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Set, Tuple, cast

from ._context import Context
from ._rows import COLUMNS, describe, encode
from ._transport import Transport, backoff_seconds

QUEUE_LIMIT_ROWS = 10_000
BATCH_LIMIT_ROWS = 500
BATCH_WAIT_SECONDS = 1.0
ANSWER_TIMEOUT_SECONDS = 5.0

_logger = logging.getLogger("tidewatch")
Row = Dict[str, Any]


class Client:
    """Takes rows at once, and sends them when it can: in order, at least once, the oldest given up first.

    The one lock is re-entrant, so that a signal handler may call in while the thread that it interrupted is inside.
    It is never held while anything is sent or logged.
    """

    def __init__(self, context: Context, queue_rows: int = QUEUE_LIMIT_ROWS) -> None:
        self.context = context
        self.jobs_open = 0  # how many `with tidewatch.job()` this process is inside of
        self._queue: Deque[Tuple[str, Row]] = deque(maxlen=queue_rows)
        self._in_flight = 0  # rows that the thread took and has not yet accounted for
        self._counts = {"sent": 0, "dropped": 0, "refused": 0, "errors": 0}
        self._last_error: Optional[str] = None
        self._changed = threading.Condition()
        self._flushing = 0  # how many calls of flush wait
        self._hurry = False  # a flush began: do not sit out the backoff
        self._closing = False
        self._warned: Set[str] = set()
        self._last_step: Optional[float] = None
        self._thread: Optional[threading.Thread] = None
        self._transport: Optional[Transport] = None  # None: disabled
        if not context.disabled:
            try:
                self._transport = Transport(context.url, context.token, ANSWER_TIMEOUT_SECONDS)
            except ValueError as error:
                self.fault("configuration", f"{error}; no row will be sent")

    # The caller's side: some microseconds, whatever the server does.

    def put(self, table: str, **values: Any) -> None:
        """Queues one row of the table, of this moment. A value of a wrong type is left out, and counted."""
        if self._transport is None:
            return
        row: Row = {"ts": time.time_ns() // 1_000}
        for name, value in values.items():
            if value is not None:
                try:
                    row[name] = COLUMNS[name](value)
                except Exception as error:
                    self.fault(f"argument {name}", f"{name}: {describe(error)}; the value is left out")
        if table == "job_event" and "kind" not in row:
            return  # without its kind an event says nothing
        with self._changed:
            full = len(self._queue) == self._queue.maxlen
            self._counts["dropped"] += full
            self._queue.append((table, row))  # the deque lets its oldest go
            if len(self._queue) == BATCH_LIMIT_ROWS:
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tidewatch", daemon=True)
                self._thread.start()
        if full:
            self._warn_once("full", f"{self._queue.maxlen} rows wait: from now on the oldest are dropped")

    def since_last_step(self) -> Optional[float]:
        """Seconds since this was last asked; None the first time."""
        now, before = time.perf_counter(), self._last_step
        self._last_step = now
        return None if before is None else now - before

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until every row was stored, refused or dropped: True. False when the time was over before."""
        with self._changed:
            self._flushing += 1
            self._hurry = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(self.is_empty, timeout_seconds)
            finally:
                self._flushing -= 1

    def close(self) -> None:
        """Lets the thread try each waiting row once more and end. Does not wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def is_empty(self) -> bool:
        """No row waits."""
        return not self._queue and not self._in_flight

    def stats(self) -> Dict[str, Any]:
        """What became of the rows so far."""
        with self._changed:
            return {**self._counts, "queued": len(self._queue) + self._in_flight, "last_error": self._last_error}

    def fault(self, key: str, words: str) -> None:
        """Counts a fault, and tells the log once for each key."""
        with self._changed:
            self._counts["errors"] += 1
            self._last_error = words
        self._warn_once(key, words)

    def _warn_once(self, key: str, words: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            _logger.warning("%s", words)

    def forget_connection(self) -> None:
        """Closes this process's end of the connection."""
        if self._transport is not None:
            self._transport.close()

    # The thread's side: may wait as long as it likes.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_due, BATCH_WAIT_SECONDS)
                table, rows = self._take()
                if not rows and self._closing:
                    break
            if not rows:
                continue
            try:
                outcome = self._deliver(table, rows)
            except Exception as error:  # a fault of ours costs a batch, and not the thread
                outcome = "dropped"
                self.fault("bug", f"a batch of {table} was dropped: {describe(error)}")
            with self._changed:
                self._counts[outcome] += len(rows)
                self._in_flight = 0
                self._changed.notify_all()
        self.forget_connection()

    def _is_due(self) -> bool:
        """A batch need not wait any longer."""
        asked = self._flushing and self._queue
        return bool(asked or self._closing or len(self._queue) >= BATCH_LIMIT_ROWS)

    def _take(self) -> Tuple[str, List[Row]]:
        """The oldest rows, as many as one table and one batch hold."""
        rows: List[Row] = []
        table = self._queue[0][0] if self._queue else ""
        while self._queue and self._queue[0][0] == table and len(rows) < BATCH_LIMIT_ROWS:
            rows.append(self._queue.popleft()[1])
        self._in_flight = len(rows)
        return table, rows

    def _deliver(self, table: str, rows: List[Row]) -> str:
        """Sends one batch until something has become of it: sent, refused, or dropped because the client was closed."""
        context, transport = self.context, cast(Transport, self._transport)
        body = encode(rows, {"job": context.job, "rank": context.rank or 0, "host": context.host})
        failures = 0
        while True:
            failures += 1
            try:
                answer = transport.post(table, body)
            except Exception as error:
                self.fault("no answer", f"no answer from {transport.address}: {describe(error)}; rows wait")
                wait_seconds, asked = backoff_seconds(failures), False
            else:
                if answer.stored:
                    return "sent"
                words = f"{transport.address} answered {answer.status} to rows of {table}: {answer.text}"
                self.fault(f"answer {answer.status}", words)
                if answer.refused:
                    return "refused"
                wait_seconds, asked = answer.wait_seconds(failures), answer.asked_wait_seconds is not None
            with self._changed:
                # A flush cuts our own backoff short, but not the wait that the server asked for.
                self._changed.wait_for(lambda: self._closing or (self._hurry and not asked), wait_seconds)
                self._hurry = False
                if self._closing:
                    return "dropped"
