"""The firmware around the agent on one node: Objects 5 and 26241, and what it does with a package.

Verdicts, slots, trial, confirmation and revert are the agent's alone: the shipped C code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from devices.agent.native import STATES, Agent
from devices.simulator import coap
from devices.simulator.client import UriInvalid, Value, parse_uri
from devices.simulator.flash import FileFlash, make_flash
from devices.simulator.health import Counters
from devices.simulator.network import Address
from devices.simulator.package import CODECS, IN_THE_AGENT, DownloadArea, PayloadInvalid, decode_payload, replace
from devices.simulator.self_test import Outcome
from devices.simulator.spec import NodeSpec

IDLE, DOWNLOADING, DOWNLOADED, UPDATING = range(4)  # Object 5, resource 3

_NO_RESULT, _SUCCESS, _NO_ROOM, _INTEGRITY, _UNSUPPORTED, _BAD_URI, _FAILED = 0, 1, 2, 5, 6, 7, 8  # resource 5
_RESULT_OF = {
    "no-memory": _NO_ROOM,
    "flash-failure": _NO_ROOM,
    "bad-signature": _INTEGRITY,
    "bad-digest": _INTEGRITY,
    "patch-invalid": _INTEGRITY,
    "bad-format": _INTEGRITY,
}
_CONFIRMED = next(number for number, name in STATES.items() if name == "confirmed")


@dataclass
class Memory:
    """What the firmware keeps over a reset, besides flash and download area."""

    package_state: int = IDLE
    package_result: int = _NO_RESULT
    reboots: int = 0
    mishap_done: bool = (
        False  # the one reboot of `reboot`, the leaving of `silent`, the lie of `liar`, the loss of `lost-previous`
    )
    report_id: int = 0
    counters: Counters = field(default_factory=Counters)


class Firmware:
    """State on disk is under `directory`/<endpoint>.*; a new Firmware over the same files is a reset of the node."""

    def __init__(
        self, spec: NodeSpec, *, image: bytes, public_keys: list[bytes], directory: Path, server: Address
    ) -> None:
        """`image`: what the node leaves the factory with, used once. Raises FlashMismatch."""
        self.spec = spec
        self.report_due = True
        self.trial_due = False
        self.contact_due = False
        self._server = server
        self._public_keys = public_keys
        base = directory / quote(spec.endpoint, safe="")
        self._memory_path = base.with_name(base.name + ".json")
        self.download = DownloadArea(base.with_name(base.name + ".package"))
        self.memory = self._load_memory()
        path = base.with_name(base.name + ".flash")
        if path.exists():
            self.flash = FileFlash(path, spec.slot_bytes)
            self.boot("rebooted")
        else:
            # Under another name until the journal is written: a kill in between leaves a node that was never made.
            unfinished = path.with_name(path.name + ".new")
            make_flash(unfinished, spec.slot_bytes, image)
            self.flash = FileFlash(unfinished, spec.slot_bytes)
            self.agent = self._agent(factory_size=len(image))
            unfinished.rename(path)

    def boot(self, reset_cause: str) -> None:
        """Start over from what flash and memory hold."""
        self.agent = self._agent(reset_cause=reset_cause)
        self.report_due, self.trial_due, self.contact_due = True, False, False
        if self.memory.package_state == UPDATING:
            self._finish(_SUCCESS if self.agent.state == "confirmed" else _FAILED)
        elif self.memory.package_state == DOWNLOADED and self.agent.state != "staged":
            self._finish(_FAILED)

    def _agent(self, **start: Any) -> Agent:
        class_hash = bytes.fromhex(self.spec.class_hash)
        codecs = CODECS[self.spec.patch_decoder]
        return Agent(self.flash, class_hash=class_hash, public_keys=self._public_keys, codecs=codecs, **start)

    def _load_memory(self) -> Memory:
        if not self._memory_path.exists():
            return Memory()
        fields = json.loads(self._memory_path.read_text())
        return Memory(**{**fields, "counters": Counters(**fields["counters"])})

    def save(self) -> None:
        replace(self._memory_path, json.dumps(asdict(self.memory)).encode())

    # What it holds

    @property
    def active_digest(self) -> str:
        """Over the real bytes of the active slot, in hex; "" where it has no image."""
        return self._digest(self.agent.active_slot)

    @property
    def standby_digest(self) -> str:
        return self._digest(1 - self.agent.active_slot)

    def _digest(self, slot: int) -> str:
        return self.flash.digest(slot, len(self.agent.image(slot)))

    @property
    def _lies(self) -> bool:
        return self.spec.behaviour == "liar" and self.memory.mishap_done

    def state_report(self) -> bytes:
        honest = self.agent.state_report()
        if not self._lies:
            return honest
        target, old = bytes.fromhex(self.standby_digest)[:4], bytes.fromhex(self.active_digest)[:4]
        return bytes([0x10 | _CONFIRMED, 0]) + target + old + honest[10:]

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
            self.memory.mishap_done = True
            self._finish(_SUCCESS)
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
        if self.agent.command(command) != "none":
            return coap.FORBIDDEN
        self.trial_due = self.contact_due = False
        self.download.clear()
        self._enter(IDLE, _NO_RESULT)
        self.report_due = True
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
        agent = self.agent
        if agent.state != "receiving":  # the package ended before its manifest
            self._finish(_INTEGRITY)
            return
        codec, payload = agent.received_manifest_codec, self.download.payload
        if codec in IN_THE_AGENT:
            cause = agent.stage_patch(payload)
        else:
            try:
                image = decode_payload(codec, agent.image(agent.active_slot), payload, agent.target_size)
            except PayloadInvalid:
                agent.stage_abort("patch-invalid")
                self._finish(_INTEGRITY)
                return
            cause = agent.stage_write(0, image)
        if cause == "none":
            cause = agent.stage_finish()
        if cause == "none":
            self.download.clear()
            self._enter(DOWNLOADED)
            self.report_due = True
        else:
            self._finish(_RESULT_OF.get(cause, _FAILED))

    def trial_image(self) -> bytes | None:
        """Begin the trial; the image to test, None where the agent refuses."""
        self.trial_due = False
        if self.agent.trial_begin() != "none":
            self._finish(_FAILED)
            return None
        return self.agent.image(1 - self.agent.active_slot)

    def judge_trial(self, outcome: Outcome | None) -> None:
        """What the new image computed; None: it hung or crashed, which the watchdog ends with a reset."""
        if self.agent.state != "trial":  # reverted by command meanwhile
            return
        if outcome is None:
            self.memory.reboots += 1
            self.boot("watchdog")
            return
        digest = outcome.digest
        if self.spec.behaviour == "failing-self-test":
            digest = bytes([digest[0] ^ 1]) + digest[1:]  # memory that flips a bit
        if self.agent.self_test_result(digest) == "none":
            self.contact_due = True
        else:
            self._finish(_FAILED)

    def confirm(self) -> None:
        """The server has answered the new image."""
        self.contact_due = False
        if self.agent.confirm() == "none":
            self._finish(_SUCCESS)
            if self.spec.behaviour == "lost-previous" and not self.memory.mishap_done:
                self._lose_previous()

    def _lose_previous(self) -> None:
        """The application took the standby slot for itself: the way back by command is gone."""
        standby = 1 - self.agent.active_slot
        self.flash.slots[standby][:] = b"\xff" * self.spec.slot_bytes
        self.flash.burn()
        self.memory.mishap_done = True
        self.save()

    def give_up_contact(self) -> None:
        self.contact_due = False
        if self.agent.trial_abort("no-server-contact") == "none":
            self._finish(_FAILED)

    def _finish(self, result: int, *, report: bool = True) -> None:
        self.download.clear()
        self._enter(IDLE, result)
        self.report_due = self.report_due or report

    def _enter(self, state: int, result: int | None = None) -> None:
        self.memory.package_state = state
        if result is not None:
            self.memory.package_result = result
        self.save()
