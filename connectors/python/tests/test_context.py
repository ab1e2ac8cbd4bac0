"""Who speaks, from the environments of the launchers."""

from __future__ import annotations

import math
import os
import socket
import unittest
from datetime import datetime, timezone
from unittest import mock

from support import Case

import tidewatch
from tidewatch import _process
from tidewatch._context import DEFAULT_URL, job_name, pod_job, rank_number, read_context
from tidewatch._rows import encode, integer, number, text
from tidewatch._transport import Answer, Transport, backoff_seconds, parse_retry_after

KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


class ContextTest(unittest.TestCase):
    def test_the_job_of_each_environment(self) -> None:
        everything = {
            "TIDEWATCH_JOB": "mine",
            "SLURM_JOB_ID": "4711",
            "PBS_JOBID": "12.server",
            "LSB_JOBID": "99",
            "TORCHELASTIC_RUN_ID": "run-1",
            **KUBERNETES,
            "HOSTNAME": "bert-worker-3",
        }
        with mock.patch("sys.argv", ["/home/me/pretrain.py"]):
            found = []
            while everything:
                found.append(job_name(everything))
                everything.pop(next(iter(everything)))
        self.assertEqual(found[:6], ["mine", "4711", "12.server", "99", "run-1", "bert"])
        self.assertEqual(found[-1], "pretrain")

    def test_a_run_id_of_none_is_no_name(self) -> None:
        with mock.patch("sys.argv", ["train.py"]):
            self.assertEqual(job_name({"TORCHELASTIC_RUN_ID": "none"}), "train")

    def test_without_a_script_the_job_is_called_python(self) -> None:
        for arguments in ([], [""], ["-c"], ["-m"]):
            with mock.patch("sys.argv", arguments):
                self.assertEqual(job_name({}), "python")

    def test_pods_of_one_job_share_its_name(self) -> None:
        def check(expected: object, pod: str, **more: str) -> None:
            self.assertEqual(pod_job({**KUBERNETES, "HOSTNAME": pod, **more}), expected)

        check("bert", "bert-master-0")
        check("bert", "bert-worker-17")
        check("bert", "bert-x7k2p")
        check("bert", "bert-4-x7k2p", JOB_COMPLETION_INDEX="4")
        check("bert", "bert-4", JOB_COMPLETION_INDEX="4")
        check("bert-2", "bert-2-x7k2p")  # the job's own number stays
        check("train-small", "train-small")  # has a vowel: not made up by Kubernetes
        check("named", "node-1", POD_NAME="named-worker-0")
        self.assertIsNone(pod_job({"HOSTNAME": "bert-worker-3"}))

    def test_the_rank_of_each_launcher(self) -> None:
        everything = {"RANK": "1", "SLURM_PROCID": "2", "OMPI_COMM_WORLD_RANK": "3", "PMI_RANK": "4"}
        found = []
        while everything:
            found.append(rank_number(everything))
            everything.pop(next(iter(everything)))
        self.assertEqual(found, [1, 2, 3, 4])
        self.assertIsNone(rank_number({"RANK": "many"}))
        self.assertEqual(rank_number({"RANK": "", "PMI_RANK": "7"}), 7)

    def test_arguments_then_environment_then_defaults(self) -> None:
        environment = {"TIDEWATCH_URL": "http://a:1", "TIDEWATCH_TOKEN": "t", "TIDEWATCH_DISABLED": "1", "RANK": "5"}
        found = read_context(environment, url="http://b:2", rank=0, disabled=False)
        self.assertEqual((found.url, found.token, found.rank, found.disabled), ("http://b:2", "t", 0, False))
        found = read_context(environment)
        self.assertEqual((found.url, found.rank, found.disabled), ("http://a:1", 5, True))
        found = read_context({"TIDEWATCH_DISABLED": "0"})
        self.assertEqual(
            (found.url, found.token, found.rank, found.host, found.disabled),
            (DEFAULT_URL, None, None, socket.gethostname(), False),
        )


class ValuesTest(unittest.TestCase):
    def test_a_row_on_the_wire(self) -> None:
        row = {"ts": 1_700_000_000_000_001, "step": 7, "loss": math.nan, "gradient_norm": math.inf, "epoch": -math.inf}
        self.assertEqual(
            encode([row], {"job": "é", "rank": 0}),
            b'{"job": "\\u00e9", "rank": 0, "ts": "2023-11-14T22:13:20.000001Z", "step": 7, '
            b'"loss": "NaN", "gradient_norm": "Infinity", "epoch": "-Infinity"}\n',
        )

    def test_what_is_a_number(self) -> None:
        class Scalar:
            device = "cpu"

            def __float__(self) -> float:
                return 2.5

        self.assertEqual([number(1), number(1.5), number(Scalar())], [1.0, 1.5, 2.5])
        self.assertEqual([integer(3), integer(4.0), integer(-(2**63))], [3, 4, -(2**63)])
        for value in (True, "1", None, 1j, [1.0], 10**400):
            with self.subTest(value=str(value)[:9]), self.assertRaises((TypeError, OverflowError)):
                number(value)
        for value in (True, "1", 1.5, math.nan, math.inf, 2**63):
            with self.subTest(value=value), self.assertRaises((TypeError, ValueError, OverflowError)):
                integer(value)

    def test_a_tensor_on_an_accelerator_is_never_read(self) -> None:
        class Tensor:
            device = "cuda:0"

            def __float__(self) -> float:
                raise AssertionError("this would wait for the device")

            __index__ = __float__

        for convert in (number, integer):
            with self.assertRaisesRegex(TypeError, "cuda:0"):
                convert(Tensor())

    def test_text_is_clean_and_ends(self) -> None:
        self.assertEqual(text("a\ud800b"), "a?b")
        self.assertEqual(len(text("x" * 10_000)), 4_000)


class AnswerTest(unittest.TestCase):
    def test_what_each_status_means(self) -> None:
        for status in (200, 204):
            self.assertTrue(Answer(status, None, "").stored)
        for status in (400, 413, 415, 422):
            self.assertTrue(Answer(status, None, "").refused)
        for status in (401, 403, 404):
            self.assertEqual(Answer(status, 1.0, "").wait_seconds(1), 30.0)
        for status in (429, 503):
            self.assertTrue(7.0 <= Answer(status, 7.0, "").wait_seconds(1) <= 7.7)
            self.assertTrue(0.25 <= Answer(status, None, "").wait_seconds(1) <= 0.5)
        self.assertTrue(Answer(500, 7.0, "").wait_seconds(1) <= 0.5)

    def test_backoff_grows_to_its_bound(self) -> None:
        for failures, bound in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (10_000, 30.0)):
            for _ in range(20):
                self.assertTrue(bound / 2 <= backoff_seconds(failures) <= bound)

    def test_retry_after(self) -> None:
        now = datetime(2024, 1, 1, tzinfo=timezone.utc)
        for header, expected in (
            (None, None),
            ("3", 3.0),
            ("-3", 0.0),
            ("soon", None),
            ("999999", 3600.0),
            ("Mon, 01 Jan 2024 00:00:05 GMT", 5.0),
        ):
            self.assertEqual(parse_retry_after(header, now), expected, header)

    def test_addresses_and_tokens_that_cannot_be(self) -> None:
        for url in ("", "nonsense", "ftp://a", "http://", "http://a:port", "http://["):
            with self.subTest(url=url), self.assertRaises(ValueError):
                Transport(url, None, 1.0)
        with self.assertRaises(ValueError) as caught:
            Transport("http://a", "secr\net", 1.0)
        self.assertNotIn("secr", str(caught.exception))


class DisabledTest(Case):
    def test_disabled_takes_no_row_and_starts_no_thread(self) -> None:
        os.environ["TIDEWATCH_DISABLED"] = "1"
        server = self.start()
        with tidewatch.job():
            tidewatch.step(1, loss=1.0)
        self.assertTrue(tidewatch.flush(0))
        self.assertEqual(tidewatch.stats()["sent"] + tidewatch.stats()["queued"], 0)
        self.assertIsNone(_process.current()._thread)
        self.assertEqual(server.requests, [])


if __name__ == "__main__":
    unittest.main()
