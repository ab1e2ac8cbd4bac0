"""One HTTP connection to the server, and what its answers mean."""

from __future__ import annotations

import http.client
import random
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Dict, NamedTuple, Optional
from urllib.parse import urlsplit

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
CONFIGURATION_RETRY_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 3_600.0  # one mistaken header must not silence a job for good
ANSWER_LIMIT_BYTES = 4_096

REFUSED = (400, 413, 415, 422)
# What a connection that the server closed while it was idle looks like at its next use.
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


class Answer(NamedTuple):
    """What the server said to one batch."""

    status: int
    retry_after_seconds: Optional[float]
    text: str

    @property
    def stored(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """The rows themselves are at fault: sending them again cannot help."""
        return self.status in REFUSED

    @property
    def asked_wait_seconds(self) -> Optional[float]:
        """How long the server asks to be left alone; None when it does not ask."""
        return self.retry_after_seconds if self.status in (429, 503) else None

    def wait_seconds(self, failures: int) -> float:
        """How long to wait before the batch is sent again, after so many failures in a row."""
        if self.asked_wait_seconds is not None:
            # Never earlier than asked, and a thousand ranks that were asked at once do not come back at once.
            return self.asked_wait_seconds * random.uniform(1.0, 1.1)
        if self.status >= 500 or self.status == 429:
            return backoff_seconds(failures)
        return CONFIGURATION_RETRY_SECONDS  # 401, 403, or a server that does not know the path: a person must act


def backoff_seconds(failures: int) -> float:
    """Doubles with each failure in a row up to a bound; the upper half is left to chance."""
    bound = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16))
    return random.uniform(bound / 2, bound)


def parse_retry_after(header: Optional[str], now: datetime) -> Optional[float]:
    """Seconds from now, of either form in RFC 9110, section 10.2.3; None for anything else."""
    if header is None:
        return None
    try:
        wait = float(int(header))
    except ValueError:
        try:
            wait = (parsedate_to_datetime(header) - now).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(wait, 0.0), LONGEST_RETRY_AFTER_SECONDS)


class Transport:
    """Posts batches over one connection that is kept open. Only the sender's thread uses it."""

    def __init__(self, url: str, token: Optional[str], timeout_seconds: float) -> None:
        """Raises ValueError for an address or a token that cannot be one; the token is never part of the text."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url is not http://HOST:PORT or https://HOST:PORT")
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token has characters that no HTTP header can hold")
        self.address = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._headers: Dict[str, str] = {"Content-Type": "application/x-ndjson"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection: Optional[http.client.HTTPConnection] = None

    def post(self, table: str, body: bytes) -> Answer:
        """Sends one batch. Raises OSError or HTTPException when no answer came: the rows may or may not be stored."""
        while True:
            reused = self._connection is not None
            try:
                return self._exchange(f"{self._prefix}/api/v1/rows/{table}", body)
            except Exception as error:
                self.close()
                if not (reused and isinstance(error, _STALE)):
                    raise

    def _exchange(self, path: str, body: bytes) -> Answer:
        if self._connection is None:
            self._connection = self._kind(self._host, self._port, timeout=self._timeout_seconds)
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        words = response.read(ANSWER_LIMIT_BYTES).decode("utf-8", "replace")
        if response.will_close or not response.isclosed():
            self.close()  # not kept open, or an answer too long to read to its end
        wait = parse_retry_after(response.getheader("Retry-After"), datetime.now(timezone.utc))
        return Answer(response.status, wait, " ".join(words.split())[:200])

    def close(self) -> None:
        """Closes this process's end; the next batch opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
