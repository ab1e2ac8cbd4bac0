"""What becomes of rows: over a real connection, with a server that is well, busy, strict, down, or hangs."""

from __future__ import annotations

import math
import os
import threading
import time
import unittest
from datetime import datetime, timedelta, timezone

from support import Case, Reply

import tidewatch
from tidewatch import _process


class RowsTest(Case):
    def test_a_step_and_an_event_as_the_server_sees_them(self) -> None:
        server = self.start(token="secret")
        before = datetime.now(timezone.utc)
        tidewatch.step(
            7,
            loss=math.nan,
            gradient_norm=math.inf,
            learning_rate=1e-4,
            data_seconds=0.1,
            tokens=8192,
            samples=4,
            epoch=0.5,
        )
        tidewatch.step(8, loss=-math.inf, step_seconds=0.25)
        tidewatch.event("evaluation", "loss 2.1")
        self.flush()
        first, second, event = server.rows()
        identity = {"job": "bert", "rank": 3, "host": "node-1"}
        at = datetime.strptime(first.pop("ts"), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        rounding = timedelta(microseconds=1)
        self.assertTrue(before - rounding <= at <= datetime.now(timezone.utc))
        self.assertEqual(
            first,
            {
                **identity,
                "step": 7,
                "epoch": 0.5,
                "loss": "NaN",
                "gradient_norm": "Infinity",
                "learning_rate": 1e-4,
                "data_seconds": 0.1,
                "tokens": 8192,
                "samples": 4,
            },
        )
        self.assertEqual((second["loss"], second["step_seconds"]), ("-Infinity", 0.25))
        event.pop("ts")
        self.assertEqual(event, {**identity, "kind": "evaluation", "message": "loss 2.1"})
        self.assertEqual(
            [request.path for request in server.requests], ["/api/v1/rows/train_step", "/api/v1/rows/job_event"]
        )
        for request in server.requests:
            self.assertEqual(request.headers["Content-Type"], "application/x-ndjson")
            self.assertEqual(request.headers["Authorization"], "Bearer secret")
        self.assertEqual(len({request.client_port for request in server.requests}), 1, "the connection was not kept")
        expected = {"sent": 3, "dropped": 0, "refused": 0, "queued": 0, "errors": 0, "last_error": None}
        self.assertEqual(tidewatch.stats(), expected)

    def test_everything_from_the_environment(self) -> None:
        server = self.server()
        os.environ.update(TIDEWATCH_URL=server.url + "/behind/a/proxy/", TIDEWATCH_TOKEN="t", SLURM_JOB_ID="4711")
        os.environ.update(SLURM_PROCID="12")
        tidewatch.init()
        tidewatch.step(1)
        self.flush()
        self.assertEqual(server.requests[0].path, "/behind/a/proxy/api/v1/rows/train_step")
        self.assertEqual(server.requests[0].headers["Authorization"], "Bearer t")
        self.assertEqual((server.rows()[0]["job"], server.rows()[0]["rank"]), ("4711", 12))

    def test_step_seconds_is_the_time_since_the_last_call(self) -> None:
        server = self.start()
        begun = time.perf_counter()
        tidewatch.step(1)
        tidewatch.step(2)
        tidewatch.step(3, step_seconds=9.0)
        passed = time.perf_counter() - begun
        self.flush()
        first, second, third = server.rows()
        self.assertNotIn("step_seconds", first)
        self.assertTrue(0 < second["step_seconds"] <= passed)
        self.assertEqual(third["step_seconds"], 9.0)

    def test_batches_are_bounded_and_in_order(self) -> None:
        server = self.start()
        for step in range(2_300):
            tidewatch.step(step)
        self.flush()
        self.assertEqual([row["step"] for row in server.rows()], list(range(2_300)))
        self.assertTrue(all(len(request.rows) <= 500 for request in server.requests))

    def test_rows_leave_by_themselves(self) -> None:
        server = self.start()
        tidewatch.step(1)
        server.wait_for(lambda: len(server.requests) == 1)

    def test_threads_lose_and_double_nothing(self) -> None:
        server = self.start()

        def train(first: int) -> None:
            for step in range(first, first + 500):
                tidewatch.step(step)

        threads = [threading.Thread(target=train, args=(500 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.flush()
        self.assertEqual(sorted(row["step"] for row in server.rows()), list(range(4_000)))


class TroubleTest(Case):
    def test_when_the_queue_is_full_the_oldest_go_and_are_counted(self) -> None:
        server = self.start(queue_rows=100)
        server.gate.clear()
        tidewatch.step(0)
        server.wait_for(lambda: len(server.requests) == 1)  # step 0 is with the server, and no longer in the queue
        for step in range(1, 251):
            tidewatch.step(step)
        stats = tidewatch.stats()
        self.assertEqual((stats["dropped"], stats["queued"]), (150, 101))
        server.gate.set()
        self.flush()
        self.assertEqual([row["step"] for row in server.rows()], [0, *range(151, 251)])
        self.assertEqual(tidewatch.stats()["sent"], 101)
        self.assertEqual(self.told.count("the oldest are dropped"), 1)

    def test_the_default_queue_holds_ten_thousand_rows(self) -> None:
        self.start(listen=False)
        for step in range(10_600):
            tidewatch.step(step)
        stats = tidewatch.stats()
        self.assertEqual(stats["queued"] + stats["dropped"], 10_600)
        self.assertTrue(10_000 <= stats["queued"] <= 10_500, stats)  # with or without the batch that is being tried

    def test_retry_after_is_honoured_even_when_a_flush_waits(self) -> None:
        for status in (429, 503):
            with self.subTest(status=status):
                server = self.start(Reply(status, {"Retry-After": "1"}))
                tidewatch.step(1)
                self.flush()
                first, second = server.requests
                self.assertGreaterEqual(second.at - first.at, 1.0)
                self.assertEqual(first.rows, second.rows)
                self.assertEqual((tidewatch.stats()["sent"], tidewatch.stats()["refused"]), (1, 0))

    def test_a_server_that_fails_gets_the_same_rows_again(self) -> None:
        server = self.start(Reply(500, body=b"disk full"), Reply(502))
        tidewatch.step(1)
        server.wait_for(lambda: len(server.requests) == 3)  # without a flush: by its own backoff
        self.flush()
        self.assertEqual(server.requests[0].rows, server.requests[2].rows)
        self.assertEqual((tidewatch.stats()["sent"], tidewatch.stats()["errors"]), (1, 2))
        self.assertEqual(self.told.count("answered 500 to rows of train_step: disk full"), 1)

    def test_a_server_that_comes_up_later_gets_everything(self) -> None:
        server = self.start(listen=False)
        for step in range(1_200):
            tidewatch.step(step)
        self.told.wait_for("no answer")
        self.assertEqual(tidewatch.stats()["queued"], 1_200)
        server.listen()
        self.flush()
        self.assertEqual([row["step"] for row in server.rows()], list(range(1_200)))
        self.assertEqual((tidewatch.stats()["sent"], tidewatch.stats()["dropped"]), (1_200, 0))
        self.assertEqual(self.told.count("no answer"), 1)

    def test_refused_rows_are_dropped_counted_and_told_once(self) -> None:
        server = self.start(*[Reply(status, body=b"no such column") for status in (400, 413, 415, 422, 400)])
        for step in range(5):
            tidewatch.step(step)
            self.flush()
        tidewatch.step(5)
        self.flush()
        self.assertEqual([row["step"] for row in server.rows()], list(range(6)))
        self.assertEqual((tidewatch.stats()["refused"], tidewatch.stats()["sent"]), (5, 1))
        self.assertEqual(self.told.count("answered 400"), 1)

    def test_a_wrong_token_keeps_the_rows_and_is_told_once(self) -> None:
        server = self.start(Reply(401), Reply(401), token="hush-hush")
        tidewatch.step(1)
        self.told.wait_for("answered 401")
        self.assertFalse(tidewatch.flush(0))
        server.wait_for(lambda: len(server.requests) == 2)  # the flush did not sit out the 30 s
        self.flush()
        self.assertEqual((tidewatch.stats()["sent"], self.told.count("answered 401")), (1, 1))
        self.assertEqual(self.told.count("hush"), 0)

    def test_a_connection_that_was_closed_while_idle_is_no_fault(self) -> None:
        server = self.start(Reply(hang_up=True), Reply(200, {"Connection": "close"}, b"{}"), Reply(hang_up=True))
        for step in range(5):
            tidewatch.step(step)
            self.flush()
        self.assertEqual([row["step"] for row in server.rows()], [0, 1, 2, 3, 4])
        self.assertEqual(tidewatch.stats()["errors"], 0)

    def test_a_server_that_hangs_does_not_slow_a_step(self) -> None:
        server = self.start()
        server.gate.clear()
        tidewatch.step(0)
        server.wait_for(lambda: len(server.requests) == 1)  # and now the sender waits for its answer
        costs = []
        for step in range(5_000):
            begun = time.perf_counter()
            tidewatch.step(step, loss=1.0)
            costs.append(time.perf_counter() - begun)
        costs.sort()
        self.assertLess(costs[len(costs) // 2], 1e-3)
        self.assertLess(sum(costs), 2.0)
        self.assertFalse(tidewatch.flush(0.01))
        self.assertEqual(tidewatch.stats()["queued"], 5_001)

    def test_an_address_that_cannot_be_sends_nothing_and_says_so(self) -> None:
        tidewatch.init("nonsense")
        tidewatch.step(1)
        self.assertTrue(tidewatch.flush(0))
        self.assertEqual(self.told.count("no row will be sent"), 1)


class CallsTest(Case):
    def test_garbage_never_raises_and_is_told_once(self) -> None:
        class Evil:
            def __float__(self) -> float:
                raise RuntimeError(self)

            __index__ = __str__ = __repr__ = __eq__ = __float__  # type: ignore[assignment]
            __hash__ = None  # type: ignore[assignment]

        server = self.start()
        garbage = [Evil(), object(), "1.5", "", b"x", [1], {}, (), True, 10**400, 1j, math.nan, print, Evil]
        for _ in range(2):
            for value in garbage:
                tidewatch.step(value, loss=value, tokens=value, epoch=value, samples=value)  # type: ignore[arg-type]
                tidewatch.event(value, value)  # type: ignore[arg-type]
                tidewatch.event("checkpoint", value)  # type: ignore[arg-type]
                tidewatch.flush(value) if isinstance(value, str) else None  # type: ignore[arg-type]
        tidewatch.step()  # type: ignore[call-arg]
        tidewatch.step(1, lss=2.0)  # type: ignore[call-arg]
        tidewatch.event()  # type: ignore[call-arg]
        with tidewatch.job(1, 2, 3):  # type: ignore[call-arg, arg-type]
            with tidewatch.checkpoint(Evil()):  # type: ignore[arg-type]
                pass
        self.flush()
        self.assertEqual(len(server.rows("train_step")), 2 * len(garbage))
        self.assertGreater(tidewatch.stats()["errors"], 2 * len(garbage))
        self.assertEqual(sum(line.startswith("loss: ") for line in self.told.lines), 1)
        self.assertEqual(tidewatch.stats()["refused"], 0)

    def test_garbage_in_init_never_raises(self) -> None:
        server = self.server()
        os.environ["TIDEWATCH_URL"] = server.url
        for value in (object(), 1.5, [], -1, "x", b"", math.nan):
            tidewatch.init(value, value, value, value, token=value, queue_rows=value)  # type: ignore[arg-type]
            tidewatch.step(1)
        tidewatch.init(1, 2, 3, 4, 5, 6, nonsense=7)  # type: ignore[call-arg, arg-type]
        tidewatch.init(object())  # type: ignore[arg-type]
        tidewatch.step(1)
        self.flush()
        self.assertEqual(tidewatch.stats()["sent"], 1)

    def test_exceptions_go_through_untouched(self) -> None:
        server = self.start()
        error = KeyError("gpu-17")
        with self.assertRaises(KeyError) as caught:
            with tidewatch.job():
                with tidewatch.checkpoint("step 10"):
                    pass
                with tidewatch.checkpoint():
                    raise error
        self.assertIs(caught.exception, error)
        self.assertIsNone(error.__cause__)
        self.assertIsNone(error.__context__)
        self.flush()
        found = [(row["kind"], row.get("message")) for row in server.rows("job_event")]
        self.assertEqual(
            found,
            [
                ("start", None),
                ("checkpoint", "step 10"),
                ("checkpoint_failed", "KeyError: 'gpu-17'"),
                ("failed", "KeyError: 'gpu-17'"),
            ],
        )

    def test_how_a_job_ends(self) -> None:
        server = self.start()
        for error, kind in (
            (None, "end"),
            (SystemExit(0), "end"),
            (SystemExit(1), "failed"),
            (KeyboardInterrupt(), "failed"),
        ):
            try:
                with tidewatch.job("run"):
                    if error is not None:
                        raise error
            except BaseException as caught:
                self.assertIs(caught, error)
            self.flush()
            self.assertEqual(server.rows()[-1]["kind"], kind, error)

        @tidewatch.job()
        def train() -> int:
            return 42

        self.assertEqual(train(), 42)
        self.flush()
        self.assertEqual([row["kind"] for row in server.rows()][-2:], ["start", "end"])

    def test_a_signal_handler_may_call_in_while_a_call_is_inside(self) -> None:
        self.start()
        with _process.current()._changed:  # as if a signal came in the middle of step()
            tidewatch.step(1)
            tidewatch.event("checkpoint")
        self.flush()
        self.assertEqual(tidewatch.stats()["sent"], 2)


if __name__ == "__main__":
    unittest.main()
