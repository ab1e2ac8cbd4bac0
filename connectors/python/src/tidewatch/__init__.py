"""Tells Tidewatch what a training job does: its steps, checkpoints, evaluations and its end.

    import tidewatch

    with tidewatch.job():
        for step, batch in enumerate(batches):
            loss = train(batch)
            tidewatch.step(step, loss=loss)

No call waits for the server, and none raises: rows are queued and a thread of its own sends them. `stats` tells what
became of them, and the logger "tidewatch" tells once of each kind of trouble.
"""

from __future__ import annotations

import importlib
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, Dict, Optional, Type

from ._process import current, guarded, replace
from ._rows import describe

__all__ = ["checkpoint", "event", "flush", "init", "job", "stats", "step"]
__version__ = "0.1.0"


@guarded()
def init(
    url: Optional[str] = None,
    job: Optional[str] = None,
    rank: Optional[int] = None,
    host: Optional[str] = None,
    *,
    token: Optional[str] = None,
    queue_rows: Optional[int] = None,
    disabled: Optional[bool] = None,
) -> None:
    """Sets what the environment should not decide. Optional; what is None comes from the environment, else a default.

    url: the server, TIDEWATCH_URL, else http://127.0.0.1:7575.
    job, rank, host: who speaks; README.md says in which order the environment is asked.
    token: sent as `Authorization: Bearer`; TIDEWATCH_TOKEN.
    queue_rows: how many rows wait at most, 10,000; beyond that the oldest are dropped.
    disabled: True sends nothing; TIDEWATCH_DISABLED=1.
    """
    names = ("url", "job", "rank", "host", "token", "queue_rows", "disabled")
    replace(dict(zip(names, (url, job, rank, host, token, queue_rows, disabled))))


@guarded()
def step(
    step: int,
    *,
    loss: Optional[float] = None,
    gradient_norm: Optional[float] = None,
    learning_rate: Optional[float] = None,
    step_seconds: Optional[float] = None,
    data_seconds: Optional[float] = None,
    tokens: Optional[int] = None,
    samples: Optional[int] = None,
    epoch: Optional[float] = None,
) -> None:
    """One row of `train_step`, at the moment of the call.

    step: the number of the step in the job. epoch: epochs, fractions allowed.
    loss, gradient_norm: as the trainer computes them; NaN and infinities are data.
    step_seconds: seconds that the step took, waiting for data included; else the time since the last call.
    data_seconds: seconds of it spent waiting for data. tokens, samples: how many this rank took in this step.

    A number of any kind is taken, a tensor in the host's memory too. A tensor on an accelerator is left out and
    counted: to read it would wait for the device.
    """
    client = current()
    since = client.since_last_step()
    client.put(
        "train_step",
        step=step,
        epoch=epoch,
        loss=loss,
        gradient_norm=gradient_norm,
        learning_rate=learning_rate,
        step_seconds=since if step_seconds is None else step_seconds,
        data_seconds=data_seconds,
        tokens=tokens,
        samples=samples,
    )


@guarded()
def event(kind: str, message: Optional[str] = None) -> None:
    """One row of `job_event`, at the moment of the call.

    kind: start, checkpoint, checkpoint_failed, evaluation, end or failed; another is counted and left out.
    message: words for people, cut after 4,000 characters.
    """
    current().put("job_event", kind=kind, message=message)


class _Span(ContextDecorator):
    """Tells how a block ended: `done`, or `failed` with the exception, which goes on as it came."""

    done, failed = "end", "failed"
    _message: Optional[str] = None

    @guarded()
    def __init__(self, message: Optional[str] = None) -> None:
        self._message = message

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        # sys.exit() and sys.exit(0) are ways to end well.
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            event(self.done, self._message)
        else:
            event(self.failed, describe(error))


class job(_Span):
    """Emits `start`, and then `end`, or `failed` with the exception's type and text. Also a decorator."""

    @guarded()
    def __enter__(self) -> None:
        current().jobs_open += 1
        event("start", self._message)

    @guarded()
    def __exit__(self, *outcome: Any) -> None:
        current().jobs_open -= 1
        super().__exit__(*outcome)


class checkpoint(_Span):
    """Emits `checkpoint` when the block has ended, or `checkpoint_failed` with the exception's type and text."""

    done, failed = "checkpoint", "checkpoint_failed"


@guarded(otherwise=False)
def flush(timeout: float = 10.0) -> bool:
    """True when every row was stored, refused or dropped within `timeout` seconds, for which this waits."""
    return current().flush(timeout)


def stats() -> Dict[str, Any]:
    """Counts since the start of this process or the last `init`.

    sent: rows stored. dropped: rows given up for want of room. refused: rows that the server would not have.
    queued: rows that wait. errors: tries that failed, and wrong arguments. last_error: the last of these, or None.
    """
    return current().stats()


def __getattr__(name: str) -> Any:
    """`tidewatch.huggingface` and `tidewatch.lightning` import their frameworks only when they are asked for."""
    if name in ("huggingface", "lightning"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
