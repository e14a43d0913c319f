"""Objects 5 and 26241 of a node (docs/nbiot.md): the LwM2M layer over the firmware."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from devices.simulator import coap
from devices.simulator.client import UriInvalid, Value, parse_uri
from devices.simulator.firmware import Firmware, Memory
from devices.simulator.network import Address
from devices.simulator.package import DownloadArea, node_path
from devices.simulator.spec import NodeSpec

IDLE, DOWNLOADING, DOWNLOADED, UPDATING = range(4)  # Object 5, resource 3

_NO_RESULT, _SUCCESS, _NO_ROOM, _INTEGRITY, _UNSUPPORTED, _BAD_URI, _FAILED = 0, 1, 2, 5, 6, 7, 8  # resource 5
_RESULT_OF = {
    "none": _SUCCESS,
    "no-memory": _NO_ROOM,
    "flash-failure": _NO_ROOM,
    "bad-signature": _INTEGRITY,
    "bad-digest": _INTEGRITY,
    "patch-invalid": _INTEGRITY,
    "bad-format": _INTEGRITY,
}


@dataclass
class Lwm2mMemory(Memory):
    package_state: int = IDLE
    package_result: int = _NO_RESULT


class Lwm2mFirmware(Firmware):
    memory_type: ClassVar[type[Memory]] = Lwm2mMemory
    memory: Lwm2mMemory
    spec: NodeSpec

    def __init__(
        self, spec: NodeSpec, *, image: bytes, public_keys: list[bytes], directory: Path, server: Address
    ) -> None:
        """`image`: what the node leaves the factory with, used once. Raises FlashMismatch."""
        self._server = server
        self.download = DownloadArea(node_path(directory, spec.endpoint, ".package"))
        super().__init__(spec, image=image, public_keys=public_keys, directory=directory)

    def boot(self, reset_cause: str) -> None:
        super().boot(reset_cause)
        if self.memory.package_state == UPDATING:
            self._finish(_SUCCESS if self.agent.state == "confirmed" else _FAILED)
        elif self.memory.package_state == DOWNLOADED and self.agent.state != "staged":
            self._finish(_FAILED)

    # Resources

    def read(self, path: str) -> Value | None:
        values: dict[str, Value] = {
            "/5/0/1": self.download.uri,
            "/5/0/3": self.memory.package_state,
            "/5/0/5": self.memory.package_result,
            "/5/0/7": self.active_digest,
            "/26241/0/0": bytes.fromhex(self.active_digest),
            "/26241/0/1": bytes.fromhex(self.standby_digest),
            "/26241/0/2": self.state_report(),
            "/26241/0/4": self.spec.firmware_build,
        }
        return values.get(path)

    def write(self, path: str, value: bytes) -> int:
        if path == "/5/0/1":
            return self._write_uri(value.decode("utf-8", "replace"))
        if path == "/26241/0/3":
            return self._command(value)
        return coap.NOT_FOUND if self.read(path) is None else coap.METHOD_NOT_ALLOWED

    def execute(self, path: str) -> int:
        if path != "/5/0/2":
            return coap.NOT_FOUND
        if self.memory.package_state != DOWNLOADED:
            return coap.METHOD_NOT_ALLOWED
        if self.spec.behaviour == "liar":
            self.lie()
        else:
            self._enter(UPDATING)
            self.trial_due = True
        return coap.CHANGED

    def _write_uri(self, uri: str) -> int:
        if self.memory.package_state == UPDATING:
            return coap.METHOD_NOT_ALLOWED
        if not uri:
            self.download.clear()
            self._enter(IDLE, _NO_RESULT)
            return coap.CHANGED
        try:
            parse_uri(uri, self._server)
        except UriInvalid:
            self._enter(IDLE, _BAD_URI)
            return coap.BAD_REQUEST
        if uri != self.download.uri or self.memory.package_state != DOWNLOADING:
            self.download.begin(uri)
            self._enter(DOWNLOADING, _NO_RESULT)
        return coap.CHANGED

    def _command(self, command: bytes) -> int:
        if self.command(command) != "none":
            return coap.FORBIDDEN
        self._enter(IDLE, _NO_RESULT)
        return coap.CHANGED

    # The package

    def take_block(self, data: bytes, *, last: bool) -> None:
        """The next bytes of the package. The manifest is judged as soon as it is whole: a refused package costs no
        more airtime."""
        judged = self.download.manifest is not None and self.agent.state == "receiving"
        self.download.append(data)
        if not judged and not self._begin():
            return
        if self.agent.state == "receiving" and len(self.download.payload) > self.agent.target_size:
            self.agent.stage_abort("patch-invalid")  # a patch is never larger than its image
            self._finish(_INTEGRITY)
        elif last:
            self._stage()

    def resume(self) -> bool:
        """After a reset: have the kept manifest judged again; False where there is nothing left to pull."""
        return self.download.manifest is None or self.agent.state == "receiving" or self._begin()

    def withdraw(self) -> None:
        """The server has the package no more. Not a failure of the update: the server may offer it again."""
        self._finish(_BAD_URI, report=False)

    def _begin(self) -> bool:
        """Whether the package is worth pulling on."""
        manifest = self.download.manifest
        if manifest is None:
            return True
        cause = self.agent.begin(manifest)
        if cause != "none":
            self._finish(_RESULT_OF.get(cause, _UNSUPPORTED))
            if self.agent.state == "staged":  # the refusal leaves what was staged before ready to be tried
                self._enter(DOWNLOADED)
        return cause == "none"

    def _stage(self) -> None:
        if self.agent.state != "receiving":  # the package ended before its manifest
            self._finish(_INTEGRITY)
            return
        cause = self.stage(self.download.payload)
        if cause == "none":
            self.download.clear()
            self._enter(DOWNLOADED)
            self.report_due = True
        else:
            self._end(cause)

    def _end(self, cause: str) -> None:
        self._finish(_RESULT_OF.get(cause, _FAILED))

    def _finish(self, result: int, *, report: bool = True) -> None:
        self.download.clear()
        self._enter(IDLE, result)
        self.report_due = self.report_due or report

    def _enter(self, state: int, result: int | None = None) -> None:
        self.memory.package_state = state
        if result is not None:
            self.memory.package_result = result
        self.save()
