"""A small client of the REST API: the demo drives the product as a CI job would."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any


class ApiError(Exception):
    """An answer that is not 2xx, with the problem details that came with it."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    def __init__(self, *, base_url: str, token: str) -> None:
        self.base_url, self.token = base_url, token

    def get(self, path: str) -> Any:
        return json.loads(self._send("GET", path))

    def get_bytes(self, path: str) -> bytes:
        return self._send("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return json.loads(self._send("POST", path, json.dumps(body or {}).encode(), "application/json") or b"null")

    def upload(self, path: str, *, fields: Mapping[str, str], files: Mapping[str, bytes]) -> Any:
        """Multipart form data (RFC 7578)."""
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        for name, data in files.items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            parts += [f"{head}Content-Type: application/octet-stream\r\n\r\n".encode(), data, b"\r\n"]
        parts.append(f"--{boundary}--\r\n".encode())
        return json.loads(self._send("POST", path, b"".join(parts), f"multipart/form-data; boundary={boundary}"))

    def _send(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        # The address is this machine's own web process, never one from outside.
        request = urllib.request.Request(f"{self.base_url}/api/v1{path}", data=body, method=method)  # noqa: S310
        request.add_header("Authorization", f"Bearer {self.token}")
        if content_type:
            request.add_header("Content-Type", content_type)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            raise ApiError(f"{method} {path}: {error.code} {detail}", status=error.code) from error


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str, every_s: float = 0.5) -> None:
    """Raises TimeoutError that names what did not happen."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within_s:.0f} s")
        time.sleep(every_s)
