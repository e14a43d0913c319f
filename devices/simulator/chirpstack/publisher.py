"""ChirpStack's HTTP integration: events are posted in the background; one that fails is logged and not repeated."""

from __future__ import annotations

import http.client
import logging
import queue
import random
import ssl
import threading
import zlib
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from chirpstack_api import api

_THREADS = 4
_TIMEOUT_S = 5.0
_WAITING_MAX = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Faults:
    """Shares of events, 0..1, that are posted twice, or after the next event of their device."""

    doubled: float = 0.0
    reordered: float = 0.0


@dataclass(frozen=True)
class _Post:
    url: str
    headers: dict[str, str]
    body: bytes


class Publisher:
    """Events of one device leave in order, those of different devices side by side."""

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self.posted = 0
        self.failed = 0
        self._faults, self._rng = faults, rng
        self._held: dict[str, list[_Post]] = {}
        self._queues: list[queue.Queue[_Post | None]] = [queue.Queue(_WAITING_MAX) for _ in range(_THREADS)]
        self._threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for waiting in self._queues]
        for thread in self._threads:
            thread.start()

    def post(self, integration: api.HttpIntegration, name: str, dev_eui: str, body: bytes) -> None:
        kind = "application/octet-stream" if integration.encoding == api.PROTOBUF else "application/json"
        headers = {**integration.headers, "Content-Type": kind}
        posts = [
            _Post(f"{url}{'&' if '?' in url else '?'}event={quote(name)}", headers, body)
            for url in map(str.strip, integration.event_endpoint_url.split(","))
        ]
        if self._rng.random() < self._faults.doubled:
            posts *= 2
        if dev_eui not in self._held and self._rng.random() < self._faults.reordered:
            self._held[dev_eui] = posts
            return
        waiting = self._queues[zlib.crc32(dev_eui.encode()) % _THREADS]
        for post in posts + self._held.pop(dev_eui, []):
            try:
                waiting.put_nowait(post)
            except queue.Full:
                self.failed += 1
                _log.warning("event dropped: %s events wait for %s", _WAITING_MAX, post.url)

    def close(self) -> None:
        """End the threads; what waits is posted first, within a few seconds."""
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    def _work(self, waiting: queue.Queue[_Post | None]) -> None:
        connections: dict[tuple[str, str], http.client.HTTPConnection] = {}
        while (post := waiting.get()) is not None:
            try:
                status = _send(post, connections)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed += 1
                _log.warning("posting to %s failed: %s", post.url, error)
                continue
            if status < 400:
                self.posted += 1
            else:
                self.failed += 1
                _log.warning("posting to %s failed: answered %s", post.url, status)
        for connection in connections.values():
            connection.close()


def _send(post: _Post, connections: dict[tuple[str, str], http.client.HTTPConnection]) -> int:
    """The status of the answer. Raises OSError, HTTPException; ValueError for what is no http address."""
    parts = urlsplit(post.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://HOST or https://HOST")
    target, key = f"{parts.path or '/'}?{parts.query}", (parts.scheme, parts.netloc)
    connection = connections.get(key)
    if connection is not None:
        try:
            return _exchange(connection, target, post)
        except (http.client.RemoteDisconnected, http.client.CannotSendRequest, ConnectionError):
            connection.close()  # the other side had closed it while it was idle: nothing was posted yet
    connections[key] = _connect(parts.scheme, parts.hostname, parts.port)
    return _exchange(connections[key], target, post)


def _exchange(connection: http.client.HTTPConnection, target: str, post: _Post) -> int:
    try:
        connection.request("POST", target, body=post.body, headers=post.headers)
        answer = connection.getresponse()
        answer.read()
    except Exception:
        connection.close()  # or the next event would meet the rest of this exchange
        raise
    return answer.status


def _connect(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
