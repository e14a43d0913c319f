"""A client that outlives what it talks to: while parts of the product are being killed, it asks again."""

from __future__ import annotations

import time

from demo.client import ApiError, Client


class PatientClient(Client):
    """Repeats a request that found nobody, for up to `patience_s`. Only for requests that may be repeated."""

    patience_s = 60.0

    def _send(self, method: str, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                return super()._send(method, path, body, content_type)
            except (OSError, ApiError) as error:
                final = isinstance(error, ApiError) and error.status < 500
                if final or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
