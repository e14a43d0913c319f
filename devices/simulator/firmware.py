"""The firmware around the agent on one node, whatever radio it has: what it keeps, judges, tries and reports.

Verdicts, slots, trial, confirmation and revert are the agent's alone: the shipped C code.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from devices.agent.native import CAUSES, STATES, Agent
from devices.simulator.flash import FileFlash, make_flash
from devices.simulator.health import Counters, fresh_counters
from devices.simulator.package import CODECS, IN_THE_AGENT, PayloadInvalid, decode_payload, node_path, replace
from devices.simulator.self_test import Outcome, SelfTestBench
from devices.simulator.spec import FirmwareSpec

_CONFIRMED = next(number for number, name in STATES.items() if name == "confirmed")


@dataclass
class Memory:
    """What the firmware keeps over a reset, besides flash."""

    reboots: int = 0
    mishap_done: bool = (
        False  # the one reboot of `reboot`, the leaving of `silent`, the lie of `liar`, the loss of `lost-previous`
    )
    report_id: int = 0
    counters: Counters = field(default_factory=Counters)


class Firmware:
    """State on disk is under `directory`/<endpoint>.*; a new Firmware over the same files is a reset of the node."""

    memory_type: ClassVar[type[Memory]] = Memory

    def __init__(self, spec: FirmwareSpec, *, image: bytes, public_keys: list[bytes], directory: Path) -> None:
        """`image`: what the node leaves the factory with, used once. Raises FlashMismatch."""
        self.spec = spec
        self.report_due = True
        self.trial_due = False
        self.contact_due = False
        self._public_keys = public_keys
        self._counted_until = 0.0
        self._memory_path = node_path(directory, spec.endpoint, ".json")
        self.memory = self._load_memory()
        path = node_path(directory, spec.endpoint, ".flash")
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

    def _agent(self, **start: Any) -> Agent:
        class_hash = bytes.fromhex(self.spec.class_hash)
        codecs = CODECS[self.spec.patch_decoder]
        return Agent(self.flash, class_hash=class_hash, public_keys=self._public_keys, codecs=codecs, **start)

    def _load_memory(self) -> Memory:
        if not self._memory_path.exists():
            return self.memory_type()
        fields = json.loads(self._memory_path.read_text())
        return self.memory_type(**{**fields, "counters": Counters(**fields["counters"])})

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

    def status(self) -> dict[str, Any]:
        """For status.json; digests are over the real slot bytes."""
        report = self.agent.state_report()  # a refusal is in the report alone, and a lie is not in this one
        return {
            "behaviour": self.spec.behaviour,
            "state": STATES[report[0] & 0x0F],
            "cause": CAUSES[report[1]],
            "active": self.active_digest,
            "active_slot": self.agent.active_slot,
            "slot_bytes": self.spec.slot_bytes,
            "standby": self.standby_digest,
            "sequence": self.agent.highest_sequence,
            "reboots": self.memory.reboots,
        }

    # The update

    def command(self, command: bytes) -> str:
        """The cause of the refusal, "none" where it was obeyed."""
        cause = self.agent.command(command)
        if cause == "none":
            self.trial_due = self.contact_due = False
            self._end("none")
        return cause

    def stage(self, payload: bytes) -> str:
        """Decode what has come and write it to the standby slot; the cause, "none" where it is ready to be tried."""
        agent = self.agent
        codec = agent.received_manifest_codec
        if codec in IN_THE_AGENT:
            cause = agent.stage_patch(payload)
        else:
            try:
                image = decode_payload(codec, agent.image(agent.active_slot), payload, agent.target_size)
            except PayloadInvalid:
                agent.stage_abort("patch-invalid")
                return "patch-invalid"
            cause = agent.stage_write(0, image)
        return agent.stage_finish() if cause == "none" else cause

    def lie(self) -> None:
        """From now on it claims the update that it never tried."""
        self.memory.mishap_done = True
        self._end("none")

    def trial_image(self) -> bytes | None:
        """Begin the trial; the image to test, None where the agent refuses."""
        self.trial_due = False
        cause = self.agent.trial_begin()
        if cause != "none":
            self._end(cause)
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
            self._end("self-test-failed")

    def confirm(self) -> None:
        """The server has answered the new image."""
        self.contact_due = False
        if self.agent.confirm() == "none":
            self._end("none")
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
            self._end("no-server-contact")

    async def health_report(self, bench: SelfTestBench, now: float, rng: random.Random) -> bytes:
        """The next health report, counted up to `now` (simulated seconds)."""
        active, memory = self.active_digest, self.memory
        outcome = await bench.run(self.agent.image(self.agent.active_slot))
        if memory.counters.active != active:
            memory.counters = fresh_counters(active, outcome.output_bytes if outcome else 0)
        memory.counters.add(now - self._counted_until, rng)
        self._counted_until = now
        memory.report_id = (memory.report_id + 1) % 256
        self.save()
        return memory.counters.encode(
            resets=memory.reboots,
            p99_us=int(rng.uniform(9000, 11000)),
            rate_error_ppm=int(rng.gauss(0, 300)),
            battery_mv=int(rng.uniform(3500, 3650)),
            arena_bytes=outcome.arena_bytes if outcome else 0,
        )

    def _end(self, cause: str) -> None:
        """An update, or what was left of one, has ended; "none": well. The server is told."""
        self.report_due = True
        self.save()
