"""The callbacks: with doubles of the documented interfaces, and with the frameworks where they are installed."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
import unittest
from types import SimpleNamespace
from typing import Any, Dict, List
from unittest import mock

from support import Case, Server

import tidewatch


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class CallbackCase(Case):
    def load(self, name: str, doubles: Dict[str, types.ModuleType]) -> Any:
        """Imports tidewatch.NAME anew, with these modules in the place of the framework's."""
        self.addCleanup(sys.modules.pop, f"tidewatch.{name}", None)
        with mock.patch.dict(sys.modules, doubles):
            sys.modules.pop(f"tidewatch.{name}", None)
            return importlib.import_module(f"tidewatch.{name}")

    def events(self, server: Server) -> List[Any]:
        return [(row["kind"], row.get("message")) for row in server.rows("job_event")]


def module(name: str, **members: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(members)
    return made


class HuggingFaceTest(CallbackCase):
    """The Trainer's loop, as transformers/trainer.py runs it, without a model."""

    def double(self) -> Any:
        """A callback whose base class has no methods: what the Trainer calls beyond ours is not called here."""
        return self.load(
            "huggingface", {"transformers": module("transformers", TrainerCallback=object)}
        ).TidewatchCallback()

    def train(self, handle: Any, args: Any, state: Any, control: Any, loss: float = 2.0) -> None:
        """Three optimizer steps; the second is logged, evaluated and saved."""
        handle.on_train_begin(args, state, control)
        for step in (1, 2, 3):
            control.should_log = False
            handle.on_step_begin(args, state, control)
            state.global_step, state.epoch = step, step / 3
            if isinstance(control, SimpleNamespace):
                control.should_log = step == 2  # DefaultFlowCallback's part
            handle.on_step_end(args, state, control)
            if step == 2:
                self.assertTrue(control.should_log)
                handle.on_log(args, state, control, logs={"loss": loss, "grad_norm": 0.5, "learning_rate": 1e-4})
                handle.on_log(args, state, control, logs={"eval_loss": 1.5, "epoch": 2 / 3})
                handle.on_evaluate(args, state, control, metrics={"eval_loss": 1.5, "epoch": 2 / 3})
                handle.on_save(args, state, control)
        handle.on_log(args, state, control, logs={"train_loss": 2.0, "train_runtime": 1.0})
        handle.on_train_end(args, state, control)

    def check(self, server: Server, rank: int, loss: Any = 2.0) -> None:
        self.flush()
        rows = server.rows("train_step")
        self.assertEqual([row["step"] for row in rows], [1, 2, 3])
        self.assertEqual([row["rank"] for row in rows], [rank] * 3)
        self.assertEqual([row.get("loss") for row in rows], [None, loss, None])
        self.assertEqual([rows[1][name] for name in ("gradient_norm", "learning_rate")], [0.5, 1e-4])
        for row in rows:
            self.assertTrue(0 <= row["data_seconds"] <= row["step_seconds"] < 10)
        self.assertEqual(
            self.events(server),
            [
                ("start", None),
                ("evaluation", "step 2: eval_loss=1.5, epoch=0.666667"),
                ("checkpoint", "step 2"),
                ("end", "step 3"),
            ],
        )
        self.assertEqual(tidewatch.stats()["errors"], 0)

    def test_double(self) -> None:
        server = self.start(rank=None)
        args = SimpleNamespace(process_index=6)
        state = SimpleNamespace(global_step=0, epoch=0.0)
        self.train(self.double(), args, state, SimpleNamespace(should_log=False), loss=math.nan)
        self.check(server, rank=6, loss="NaN")

    def test_a_loss_that_comes_after_its_step_has_a_row_of_its_own(self) -> None:
        """`logging_strategy="epoch"`: the log comes after on_epoch_end."""
        server = self.start()
        callback = self.double()
        args, control = SimpleNamespace(process_index=0), SimpleNamespace(should_log=False)
        state = SimpleNamespace(global_step=9, epoch=1.0)
        callback.on_step_begin(args, state, control)
        callback.on_step_end(args, state, control)
        callback.on_log(args, state, control, logs={"loss": 2.0})
        self.flush()
        self.assertEqual([(row["step"], row.get("loss")) for row in server.rows()], [(9, None), (9, 2.0)])

    def test_inside_a_job_the_callback_leaves_start_and_end_to_it(self) -> None:
        server = self.start()
        callback = self.double()
        args, state = SimpleNamespace(process_index=0), SimpleNamespace(global_step=0, epoch=0.0)
        with self.assertRaises(RuntimeError), tidewatch.job():
            callback.on_train_begin(args, state, SimpleNamespace(should_log=False))
            raise RuntimeError("NCCL")
        self.flush()
        self.assertEqual(self.events(server), [("start", None), ("failed", "RuntimeError: NCCL")])

    def test_a_trainer_of_another_shape_does_no_harm(self) -> None:
        self.start()
        callback = self.double()
        for hook in (
            "on_train_begin",
            "on_step_begin",
            "on_step_end",
            "on_log",
            "on_evaluate",
            "on_save",
            "on_train_end",
        ):
            getattr(callback, hook)(None, None, None)
            getattr(callback, hook)()
        self.assertGreater(tidewatch.stats()["errors"], 0)

    def test_without_transformers_the_import_says_what_to_install(self) -> None:
        with self.assertRaisesRegex(ImportError, r"pip install 'tidewatch\[huggingface\]'"):
            self.load("huggingface", {"transformers": None})  # type: ignore[dict-item]

    @unittest.skipUnless(installed("transformers"), "transformers is not installed")
    def test_real_handler(self) -> None:
        """transformers' own CallbackHandler, flow, state and control; no model and no torch."""
        from transformers import TrainerControl, TrainerState
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        callback = self.load("huggingface", {}).TidewatchCallback()
        handler = CallbackHandler([DefaultFlowCallback, callback], None, None, None, None)
        args = SimpleNamespace(
            process_index=6,
            logging_first_step=False,
            logging_strategy="steps",
            eval_strategy="no",
            eval_delay=0,
            save_strategy="no",
        )
        state = TrainerState(logging_steps=2, max_steps=3)
        server = self.start(rank=None)
        self.train(handler, args, state, TrainerControl())
        self.check(server, rank=6)
        for hook in ("on_init_end", "on_epoch_begin", "on_substep_end", "on_epoch_end", "on_prediction_step"):
            getattr(handler, hook)(args, state, TrainerControl())

    @unittest.skipUnless(installed("transformers") and installed("torch"), "transformers with torch is not installed")
    def test_real_trainer(self) -> None:
        import tempfile

        import torch
        from transformers import Trainer, TrainingArguments

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)

            def forward(self, x: Any, labels: Any = None) -> Dict[str, Any]:
                return {"loss": ((self.layer(x) - labels) ** 2).mean()}

        data = [{"x": torch.ones(2), "labels": torch.ones(1)} for _ in range(12)]
        server = self.start(rank=None)
        callback = self.load("huggingface", {}).TidewatchCallback()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=3,
                per_device_train_batch_size=2,
                logging_steps=2,
                report_to=[],
                use_cpu=True,
            )
            Trainer(Model(), arguments, train_dataset=data, callbacks=[callback]).train()
        self.flush()
        rows = server.rows("train_step")
        self.assertEqual([row["step"] for row in rows], [1, 2, 3])
        self.assertEqual(["loss" in row for row in rows], [False, True, False])
        self.assertEqual([kind for kind, _ in self.events(server)], ["start", "checkpoint", "end"])


class LightningTest(CallbackCase):
    """Lightning's fit loop, as loops/training_epoch_loop.py runs it, without a model."""

    def double(self, name: str = "lightning.pytorch", **arguments: Any) -> Any:
        class Callback:
            """The base class; hooks that are not overridden do nothing."""

        parts = name.split(".")
        modules: Dict[str, Any] = {"lightning": None, "lightning.pytorch": None, "pytorch_lightning": None}
        for end in range(1, len(parts) + 1):
            modules[".".join(parts[:end])] = module(".".join(parts[:end]), __path__=[])
        modules[f"{name}.callbacks"] = module(f"{name}.callbacks", Callback=Callback)
        return self.load("lightning", modules).TidewatchCallback(**arguments)

    def trainer(self, **changes: Any) -> Any:
        values: Dict[str, Any] = dict(
            global_rank=2,
            global_step=0,
            current_epoch=0,
            sanity_checking=False,
            accumulate_grad_batches=1,
            log_every_n_steps=2,
            callback_metrics={"grad_norm": 0.5},
            optimizers=[SimpleNamespace(param_groups=[{"lr": 1e-3}])],
        )
        return SimpleNamespace(**{**values, **changes})

    def fit(self, callback: Any, trainer: Any, batches: int, outputs: Any = None) -> None:
        for index in range(batches):
            callback.on_train_batch_start(trainer, None, "batch", index)
            trainer.global_step = (index + 1) // trainer.accumulate_grad_batches
            callback.on_train_batch_end(trainer, None, outputs, "batch", index)

    def test_double(self) -> None:
        for name in ("lightning.pytorch", "pytorch_lightning"):
            with self.subTest(name=name):
                server = self.start(rank=None)
                callback, trainer = self.double(name), self.trainer()
                trainer.sanity_checking = True
                callback.on_validation_end(trainer, None)
                trainer.sanity_checking = False
                callback.on_train_start(trainer, None)
                self.fit(callback, trainer, 3, {"loss": math.nan})
                callback.on_validation_end(trainer, None)
                callback.on_save_checkpoint(trainer, None, {})
                callback.on_train_end(trainer, None)
                self.flush()
                rows = server.rows("train_step")
                self.assertEqual([(row["step"], row["rank"]) for row in rows], [(1, 2), (2, 2), (3, 2)])
                self.assertEqual([row.get("loss") for row in rows], [None, "NaN", None])
                self.assertEqual([row.get("gradient_norm") for row in rows], [None, 0.5, None])
                for row in rows:
                    self.assertEqual((row["learning_rate"], row["epoch"]), (1e-3, 0.0))
                    self.assertTrue(0 <= row["data_seconds"] <= row["step_seconds"] < 10)
                self.assertEqual(
                    self.events(server),
                    [
                        ("start", None),
                        ("evaluation", "step 3"),
                        ("checkpoint", "step 3, being written"),
                        ("end", "step 3"),
                    ],
                )
                self.assertEqual(tidewatch.stats()["errors"], 0)

    def test_accumulated_gradients_make_one_row_a_step_with_the_whole_loss(self) -> None:
        server = self.start()
        callback, trainer = self.double(read_every=1), self.trainer(accumulate_grad_batches=4)
        callback.on_train_start(trainer, None)
        self.fit(callback, trainer, 8, {"loss": 0.5})
        self.flush()
        self.assertEqual([(row["step"], row["loss"]) for row in server.rows("train_step")], [(1, 2.0), (2, 2.0)])

    def test_a_loss_on_an_accelerator_is_read_only_as_often_as_asked(self) -> None:
        class Loss:
            device = "cuda:0"
            reads = 0

            def __float__(self) -> float:
                Loss.reads += 1
                return 3.0

        server = self.start()
        callback, trainer = self.double(read_every=5), self.trainer()
        callback.on_train_start(trainer, None)
        self.fit(callback, trainer, 10, {"loss": Loss()})
        self.flush()
        self.assertEqual(Loss.reads, 2)
        self.assertEqual([row["step"] for row in server.rows("train_step") if "loss" in row], [5, 10])

    def test_an_exception_in_training_is_a_failure_and_one_elsewhere_is_none(self) -> None:
        server = self.start()
        callback, trainer = self.double(), self.trainer()
        callback.on_exception(trainer, None, ValueError("while validating"))
        callback.on_train_start(trainer, None)
        callback.on_exception(trainer, None, RuntimeError("CUDA out of memory"))
        self.flush()
        self.assertEqual(self.events(server), [("start", None), ("failed", "RuntimeError: CUDA out of memory")])

    def test_a_trainer_of_another_shape_does_no_harm(self) -> None:
        self.start()
        callback = self.double()
        for hook in ("on_train_start", "on_train_end", "on_validation_end", "on_save_checkpoint", "on_train_batch_end"):
            getattr(callback, hook)(None, None)
        self.assertGreater(tidewatch.stats()["errors"], 0)

    def test_without_lightning_the_import_says_what_to_install(self) -> None:
        missing: Dict[str, Any] = {"lightning": None, "lightning.pytorch": None, "pytorch_lightning": None}
        with self.assertRaisesRegex(ImportError, r"pip install 'tidewatch\[lightning\]'"):
            self.load("lightning", missing)

    @unittest.skipUnless(installed("lightning") or installed("pytorch_lightning"), "Lightning is not installed")
    def test_real_trainer(self) -> None:
        import torch

        library: Any = importlib.import_module("lightning.pytorch" if installed("lightning") else "pytorch_lightning")

        class Model(library.LightningModule):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                return self.layer(batch).mean()

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=1e-3)

        server = self.start(rank=None)
        callback = self.load("lightning", {}).TidewatchCallback(read_every=2)
        trainer = library.Trainer(
            max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[callback]
        )
        trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(12, 2), batch_size=2))
        self.flush()
        rows = server.rows("train_step")
        self.assertEqual([row["step"] for row in rows], [1, 2, 3])
        self.assertEqual(["loss" in row for row in rows], [False, True, False])
        self.assertEqual([kind for kind, _ in self.events(server)], ["start", "end"])


if __name__ == "__main__":
    unittest.main()
