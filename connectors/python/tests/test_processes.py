"""Forks and exits: what a process leaves behind, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
import warnings

from support import PATIENCE_SECONDS, SOURCE, Case, Server

import tidewatch
from tidewatch import _process


class ForkTest(Case):
    @unittest.skipUnless(hasattr(os, "fork"), "this system has no fork")
    def test_a_child_has_a_queue_and_a_thread_of_its_own(self) -> None:
        server = self.server()
        os.environ.update(TIDEWATCH_URL=server.url, TIDEWATCH_JOB="bert", RANK="0")
        tidewatch.init()
        tidewatch.step(0)
        self.flush()
        server.gate.clear()
        for step in (1, 2, 3):  # these wait in the parent while the child is born
            tidewatch.step(step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the test
            child = os.fork()
        if child == 0:
            os.environ["RANK"] = "1"
            tidewatch.step(100)
            well = tidewatch.flush(PATIENCE_SECONDS) and tidewatch.stats()["sent"] == 1
            os._exit(0 if well else 1)
        server.wait_for(lambda: any(row["rank"] == 1 for row in server.rows()))
        server.gate.set()
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        tidewatch.step(4)
        self.flush()
        found = sorted((row["rank"], row["step"]) for row in server.rows())
        self.assertEqual(found, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 100)])

    @unittest.skipUnless(hasattr(os, "fork"), "this system has no fork")
    def test_a_lock_that_was_held_at_the_fork_does_not_stop_the_child(self) -> None:
        server = self.start()
        tidewatch.step(0)
        self.flush()
        client = _process.current()
        with client._changed, _process._making, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                tidewatch.step(1)
                os._exit(0 if tidewatch.flush(PATIENCE_SECONDS) else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual([row["step"] for row in server.rows()], [0, 1])


class ExitTest(Case):
    def run_program(self, server: Server, program: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": SOURCE, "TIDEWATCH_URL": server.url, "TIDEWATCH_JOB": "bert"}
        return subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
        )

    def test_what_waits_at_exit_is_sent(self) -> None:
        server = self.server()
        done = self.run_program(server, "import tidewatch\nfor step in range(1200): tidewatch.step(step)")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual([row["step"] for row in server.rows()], list(range(1200)))

    def test_the_words_of_a_failure_arrive(self) -> None:
        server = self.server()
        done = self.run_program(server, "import tidewatch\nwith tidewatch.job():\n    raise ValueError('no data')")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ValueError: no data", done.stderr)
        found = [(row["kind"], row.get("message")) for row in server.rows("job_event")]
        self.assertEqual(found, [("start", None), ("failed", "ValueError: no data")])

    def test_a_server_that_hangs_holds_up_the_exit_for_two_seconds(self) -> None:
        server = self.server()
        server.gate.clear()
        # Exit functions run in reverse: this one, registered first, comes after tidewatch's.
        program = (
            "import atexit, time\n"
            "atexit.register(lambda: print(time.monotonic() - ended))\n"
            "import tidewatch\n"
            "tidewatch.step(1)\n"
            "ended = time.monotonic()\n"
        )
        done = self.run_program(server, program)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(1.9 < float(done.stdout) < 4.0, done.stdout)

    def test_importing_needs_the_standard_library_only(self) -> None:
        program = (
            "import sys, tidewatch\n"
            "found = {'torch', 'transformers', 'lightning', 'pyarrow', 'numpy'} & set(sys.modules)\n"
            "assert not found, found\n"
        )
        done = self.run_program(self.server(), program)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
