"""A callback for Lightning, under either of its names: `lightning` and `pytorch_lightning`."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Optional

from ._process import current, guarded
from ._rows import describe
from ._steps import StepClock, adopt_rank, job_event


def _callback_class() -> Any:
    """The base class of the name that the program already uses, else of the one that is installed."""
    names = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)
    causes = []
    for name in names:
        try:
            return importlib.import_module(f"{name}.callbacks").Callback
        except ImportError as error:
            causes.append(error)
    raise ImportError("tidewatch.lightning needs Lightning: pip install 'tidewatch[lightning]'") from causes[0]


_Callback: Any = _callback_class()


class TidewatchCallback(_Callback):  # type: ignore[misc]  # known only at run time
    """`Trainer(..., callbacks=[TidewatchCallback()])`: a row for each optimizer step of a rank, and the job's events.

    read_every: of how many steps one has its loss and gradient norm read, since to read a tensor on an accelerator
    waits for it. None: as often as the trainer logs (`log_every_n_steps`). The gradient norm is the metric "grad_norm"
    of `LightningModule.log`, if there is one. With accumulated gradients the loss is that of the step's last batch.
    """

    def __init__(self, read_every: Optional[int] = None) -> None:
        self._read_every = read_every
        self._clock = StepClock()
        self._step = 0
        self._training = False

    @guarded()
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        adopt_rank(trainer.global_rank)
        job_event("start")
        self._training = True
        self._step = trainer.global_step
        self._clock = StepClock()

    @guarded()
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._clock.begin()

    @guarded()
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._clock.end()
        if trainer.global_step == self._step:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        row = {"step": self._step, "epoch": trainer.current_epoch, **self._clock.take()}
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        row["learning_rate"] = groups[0]["lr"] if groups else None
        if self._step % max(1, self._read_every or trainer.log_every_n_steps) == 0:
            row["loss"] = _loss(outputs, trainer.accumulate_grad_batches)
            row["gradient_norm"] = _read(trainer.callback_metrics.get("grad_norm"))
        current().put("train_step", **row)
        self._clock.wait()

    @guarded()
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            current().put("job_event", kind="evaluation", message=f"step {trainer.global_step}")
        self._clock.wait()

    @guarded()
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        # Lightning tells nobody when the file is complete; a write that fails ends in on_exception.
        current().put("job_event", kind="checkpoint", message=f"step {trainer.global_step}, being written")

    @guarded()
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._training = False
        job_event("end", f"step {trainer.global_step}")

    @guarded()
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._training:
            self._training = False
            job_event("failed", describe(exception))


def _loss(outputs: Any, accumulated_batches: int) -> Optional[float]:
    """The batch's loss; Lightning hands it over divided by the number of batches that it accumulates."""
    loss = _read(outputs.get("loss") if isinstance(outputs, dict) else outputs)
    return None if loss is None else loss * accumulated_batches


def _read(value: Any) -> Optional[float]:
    return None if value is None else float(value)
