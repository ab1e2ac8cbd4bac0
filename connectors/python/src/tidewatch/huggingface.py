"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ._process import current, guarded
from ._steps import StepClock, adopt_rank, job_event

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("tidewatch.huggingface needs transformers: pip install 'tidewatch[huggingface]'") from error


class TidewatchCallback(TrainerCallback):
    """`Trainer(..., callbacks=[TidewatchCallback()])`: a row for each optimizer step of a rank, and the job's events.

    Loss, gradient norm and learning rate are known only every `logging_steps`; the loss is then the mean since the last
    time, and over all ranks. The Trainer hides a NaN unless it is given `logging_nan_inf_filter=False`. It tells its
    callbacks of no exception: `with tidewatch.job():` around `train()` does.
    """

    def __init__(self) -> None:
        self._clock = StepClock()
        self._row: Optional[Dict[str, Any]] = None

    @guarded()
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        adopt_rank(args.process_index)
        job_event("start")
        self._clock = StepClock()

    @guarded()
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._send()  # a row that was held for a log that did not come
        self._clock.begin()

    @guarded()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._clock.end()
        self._row = {"step": state.global_step, "epoch": state.epoch, **self._clock.take()}
        # When the Trainer is about to log, the row waits that moment for the loss.
        if not control.should_log:
            self._send()

    @guarded()
    def on_log(self, args: Any, state: Any, control: Any, logs: Optional[Dict[str, Any]] = None, **kwargs: Any) -> None:
        # The log of an evaluation and the summary at the end have no "loss".
        if logs and "loss" in logs:
            self._row = self._row or {"step": state.global_step, "epoch": state.epoch}
            self._row.update(
                loss=logs["loss"], gradient_norm=logs.get("grad_norm"), learning_rate=logs.get("learning_rate")
            )
        self._send()
        self._clock.wait()

    @guarded()
    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Optional[Dict[str, Any]] = None, **kwargs: Any
    ) -> None:
        values = [f"{name}={value:.6g}" for name, value in (metrics or {}).items() if isinstance(value, (int, float))]
        current().put("job_event", kind="evaluation", message=f"step {state.global_step}: {', '.join(values)}")
        self._clock.wait()

    @guarded()
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        current().put("job_event", kind="checkpoint", message=f"step {state.global_step}")
        self._clock.wait()

    @guarded()
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._send()
        job_event("end", f"step {state.global_step}")

    def _send(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            current().put("train_step", **row)
