"""What the callbacks of both frameworks share."""

from __future__ import annotations

import time
from typing import Dict, Optional

from ._process import current


class StepClock:
    """Splits the time of a step into waiting for data and the rest. Times are seconds; a step may have several batches.

    What happens between a batch's end and the next `wait`, such as logging, evaluation and saving, belongs to no step.
    """

    def __init__(self) -> None:
        self._mark = time.perf_counter()
        self._data_seconds = 0.0
        self._work_seconds = 0.0

    def _lap(self) -> float:
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before

    def wait(self) -> None:
        """From now on the training waits for data."""
        self._lap()

    def begin(self) -> None:
        """The batch is there."""
        self._data_seconds += self._lap()

    def end(self) -> None:
        """The batch is done; from now on the training waits for data, unless `wait` is called later."""
        self._work_seconds += self._lap()

    def take(self) -> Dict[str, float]:
        """The times since the last call of this."""
        data, work = self._data_seconds, self._work_seconds
        self._data_seconds = self._work_seconds = 0.0
        return {"step_seconds": data + work, "data_seconds": data}


def adopt_rank(rank: int) -> None:
    """Takes the framework's word for the rank when neither `init` nor the environment said."""
    context = current().context
    if context.rank is None:
        context.rank = rank


def job_event(kind: str, message: Optional[str] = None) -> None:
    """Emits the event, unless `with tidewatch.job()` around the training tells of its start and end already."""
    client = current()
    if client.jobs_open < 1:
        client.put("job_event", kind=kind, message=message)
