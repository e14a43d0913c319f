"""A LoRaWAN node over time: it joins, reports in its rhythm, takes fragments, and works off what they bring.

What the bytes of ports 26 and 201 mean is in docs/lorawan.md.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.agent.native import CAUSES
from devices.simulator.chirpstack.air import Air, Link
from devices.simulator.chirpstack.timeline import Timeline
from devices.simulator.firmware import Firmware
from devices.simulator.health import PART_BYTES, split
from devices.simulator.lorawan.fragments import FragmentTransport, Session
from devices.simulator.lorawan.modem import Modem, Window
from devices.simulator.lorawan.spec import LorawanNodeSpec, LorawanSpec
from devices.simulator.self_test import SelfTestBench

AGENT_PORT, FRAGMENT_PORT = 26, 201

_REVERT, _TELL = 0x01, 0x02  # down, port 26
_STATE, _DIGEST, _ANSWER = 0x10, 0x30, 0x40  # up, port 26: the high half of byte 0
_BOOT_S = 5.0
_JOIN_WAIT_S = (20.0, 60.0)  # between two tries, on top of what the duty cycle asks for
_POLL_WAIT_S = (1.0, 3.0)  # spread, so that polls of two nodes do not meet again and again
_SILENT_POLLS = 4  # fruitless ones in a row: then the node sleeps until its own next wake
_CONTACT_TRIES, _TRIES_A_WAKE = 32, 4  # a new image whose report is not acknowledged so often is undone
_MANIFEST_MAX = 192
_NUMBERS = {name: number for number, name in CAUSES.items()}


@dataclass
class _Message:
    port: int
    data: bytes
    confirmed: bool = False
    is_contact: bool = False  # its acknowledgement proves that the new image reaches the server


class LorawanNode:
    def __init__(
        self,
        spec: LorawanNodeSpec,
        whole: LorawanSpec,
        *,
        air: Air,
        timeline: Timeline,
        seed: int,
        directory: Path,
        bench: SelfTestBench,
        links: Mapping[str, Link],
    ) -> None:
        """Raises FlashMismatch where `directory` holds another flash."""
        self.spec = spec
        self.problem = ""
        self._timeline, self._bench = timeline, bench
        self._rng = random.Random(f"{seed}/{spec.endpoint}/node")
        self.firmware = Firmware(
            spec, image=whole.images[spec.active], public_keys=whole.public_keys, directory=directory
        )
        self.transport = FragmentTransport(
            spec.forward_error_correction, spec.limits, missing_are_losses=spec.missing_are_losses
        )
        # Nonces differ from run to run: a server refuses one that it has seen.
        self.modem = Modem(
            air,
            timeline,
            random.Random(),
            dev_eui=spec.eui,
            key=spec.root_key,
            data_rate=spec.data_rate,
            adr=spec.adr,
            links=links,
            joined=self._joined,
            window=self._heard,
        )
        self._outbox: deque[_Message] = deque()
        self._sent: _Message | None = None
        self._next_wake = 0.0
        self._wakes = 0
        self._pending = False  # the last downlink said that more wait
        self._silent_polls = 0
        self._contact_tries = 0
        self._judged: Session | None = None  # whose manifest was taken
        self._last_revert = b""
        self._plan = 0  # the latest event that this node waits for; earlier ones are void
        self._gone = False
        self._tasks: set[asyncio.Task[None]] = set()

    # Rhythm

    def start(self) -> None:
        gone = self.spec.behaviour == "silent" and self.firmware.memory.mishap_done
        if self.spec.behaviour == "never" or gone:
            return
        now = self._timeline.catch_up()
        for when, data_rate in self.spec.data_rates:
            self._timeline.at(max(now, when), lambda _, rate=data_rate: self._change_rate(rate))  # type: ignore[misc]
        self._next_wake = now + self._rng.uniform(0, self.spec.wake_interval_s)
        self._after(self._next_wake, self._join)

    def stop(self) -> None:
        self._gone = True
        for task in self._tasks:
            task.cancel()

    def _change_rate(self, data_rate: int) -> None:
        self.modem.data_rate = data_rate

    def _after(self, time_s: float, what: Callable[[float], None]) -> None:
        """Do this next, in place of what was planned."""
        self._plan += 1
        plan = self._plan

        def due(now: float) -> None:
            if plan == self._plan and not self._gone:
                what(now)

        self._timeline.at(time_s, due)

    def _join(self, time_s: float) -> None:
        self._next_wake = time_s + self._interval()
        self.modem.join(time_s)

    def _joined(self, time_s: float, done: bool) -> None:
        if done:
            self.problem = ""
            self._tell_all()
            self._go_on(time_s)
        else:
            self.problem = "the network did not accept the join"
            self._after(max(time_s, self.modem.free_at) + self._rng.uniform(*_JOIN_WAIT_S), self._join)

    def _interval(self) -> float:
        return self.spec.wake_interval_s * self._rng.uniform(0.95, 1.05)

    def _go_on(self, time_s: float) -> None:
        """Plan the next uplink: what is to be said, a poll, or the wake to come."""
        if self._gone or self.modem.busy or self.modem.dev_addr is None:
            return
        if self._outbox:
            self._after(max(time_s, self.modem.free_at), self._send)
        elif self.modem.must_ack or (self._pending and self._silent_polls < _SILENT_POLLS):
            self._after(max(time_s, self.modem.free_at) + self._rng.uniform(*_POLL_WAIT_S), self._send)
        else:
            self._after(max(time_s, self._next_wake, self.modem.free_at), self._wake)

    def _wake(self, time_s: float) -> None:
        self._next_wake = time_s + self._interval()
        self._wakes += 1
        self._silent_polls = 0
        if self.firmware.contact_due:
            self._ask_for_contact()
            self._send(time_s)
        elif self._wakes % self.spec.health_every_wakes == 0 and self.transport.session is None:
            self._run(self._tell_health())
        else:
            self._say(self.firmware.state_report())
            self._send(time_s)

    def _send(self, time_s: float) -> None:
        if self.modem.busy:
            return
        if not self._outbox:
            self._sent = None
            self.modem.send(time_s, None, None)
            return
        message = self._outbox.popleft()
        self._sent = message
        self.modem.send(time_s, message.port, message.data, confirmed=message.confirmed)

    # What it says

    def _say(self, data: bytes, *, port: int = AGENT_PORT, confirmed: bool = False, is_contact: bool = False) -> None:
        self._outbox.append(_Message(port, data, confirmed, is_contact))

    def _tell_all(self) -> None:
        """Digest, then state report; those that still wait to be sent are out of date."""
        self.firmware.report_due = False
        self._outbox = deque(kept for kept in self._outbox if not _is_report(kept))
        digest = bytes.fromhex(self.firmware.active_digest)
        room = self.modem.payload_max - 2
        pieces = [digest[at : at + room] for at in range(0, len(digest), room)]
        for index, piece in enumerate(pieces):
            self._say(bytes([_DIGEST | index, len(pieces)]) + piece)
        if not pieces:
            self._say(bytes([_DIGEST, 1]))
        self._say(self.firmware.state_report())

    async def _tell_health(self) -> None:
        report = await self.firmware.health_report(self._bench, self._timeline.catch_up(), self._rng)
        for part in split(report, self.firmware.memory.report_id, min(PART_BYTES, self.modem.payload_max)):
            self._say(part)

    def _run(self, work: Any) -> None:
        """Something that takes as long as it takes, after which the node goes on."""

        async def finish() -> None:
            await work
            self._work_off(self._timeline.catch_up())

        task = asyncio.create_task(finish(), name=self.spec.endpoint)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._timeline.failure = task.exception()

    # What it hears

    def _heard(self, window: Window) -> None:
        if self._gone:
            return
        sent, self._sent = self._sent, None
        if sent is not None and sent.is_contact and self.firmware.contact_due:
            if window.acknowledged:
                self.firmware.confirm()
            else:
                self._contact_failed()
        frame = window.frame
        if frame is None or frame.port is None:  # an empty frame that says "more" brought nothing either
            self._silent_polls += sent is None
        else:
            self._silent_polls = 0
        if frame is not None:
            self._pending = frame.pending
            if frame.port == FRAGMENT_PORT:
                self._take_fragments(frame.data or b"")
            elif frame.port == AGENT_PORT:
                self._take_command(frame.data or b"")
        self._work_off(window.time_s)

    def _work_off(self, time_s: float) -> None:
        """What is due in the firmware, then the next uplink."""
        firmware = self.firmware
        if self._gone:
            return
        if firmware.trial_due:
            self._begin_trial()
        if firmware.report_due:
            self._tell_all()
        self._go_on(time_s)

    def _begin_trial(self) -> None:
        self._say(self.firmware.state_report())  # staged
        image = self.firmware.trial_image()
        if image is not None:
            self._contact_tries = 0
            self._run(self._try(image))

    async def _try(self, image: bytes) -> None:
        before = self.firmware.memory.reboots
        self.firmware.judge_trial(await self._bench.run(image))
        if self.firmware.contact_due:
            self._ask_for_contact()
        if self.firmware.memory.reboots != before:  # the watchdog bit
            self._lose_ram(self._timeline.catch_up())

    def _contact_failed(self) -> None:
        self._contact_tries += 1
        if self._contact_tries >= _CONTACT_TRIES:
            self.firmware.give_up_contact()
        elif self._contact_tries % _TRIES_A_WAKE:
            self._ask_for_contact()

    def _ask_for_contact(self) -> None:
        self._say(self.firmware.state_report(), confirmed=True, is_contact=True)

    def _take_command(self, command: bytes) -> None:
        if command == bytes([_TELL]):
            self._tell_all()
            return
        cause = "bad-format"
        if command[:1] == bytes([_REVERT]):
            # The same command again: the answer to the first was lost, and the image that it undid runs no more.
            repeated = command == self._last_revert and self.firmware.agent.state == "reverted"
            cause = "none" if repeated else self.firmware.command(command)
            if cause == "none":
                self._last_revert = command
                self.transport.forget()
        self._outbox.appendleft(_Message(AGENT_PORT, bytes([_ANSWER, (command or b"\0")[0], _NUMBERS[cause]])))

    # Fragments

    def _take_fragments(self, payload: bytes) -> None:
        opened = self.transport.opened
        # While two networks are tried their arena takes the RAM.
        answers = self.transport.take(payload, busy=self.firmware.agent.state == "trial")
        session = self.transport.session
        if answers:
            self._say(answers, port=FRAGMENT_PORT)
        if self.transport.opened != opened:
            self._judged = None
            if self.spec.behaviour == "silent":
                self._leave()
                return
        if session is None or session.ended:
            return
        if self._reset_is_due(session):
            self.firmware.memory.mishap_done = True
            self.firmware.memory.reboots += 1
            self.firmware.boot("rebooted")
            self.firmware.save()
            self._lose_ram(self._timeline.now())
            return
        self._take_package(session)

    def _take_package(self, session: Session) -> None:
        if self._judged is not session:
            manifest = _manifest(session.front())
            if manifest is None:
                return
            if self.firmware.agent.begin(manifest) != "none":
                session.end()
                self.firmware.report_due = True  # refused: the state report tells why
                return
            self._judged = session
        if not session.complete:
            return
        block = session.block()
        session.end()
        cause = self.firmware.stage(block[2 + int.from_bytes(block[:2], "big") :])
        if cause != "none":
            self.firmware.report_due = True
        elif self.spec.behaviour == "liar":
            self.firmware.lie()
        else:
            self.firmware.trial_due = True

    def _reset_is_due(self, session: Session) -> bool:
        if self.spec.behaviour != "reboot" or self.firmware.memory.mishap_done:
            return False
        return 2 * session.received >= session.count

    def _lose_ram(self, time_s: float) -> None:
        self.transport.forget()
        self.modem.reset()
        self._outbox.clear()
        self._sent, self._judged, self._pending, self._silent_polls = None, None, False, 0
        self._after(max(time_s + _BOOT_S, self.modem.free_at), self._join)

    def _leave(self) -> None:
        self.firmware.memory.mishap_done = True
        self.firmware.save()
        self._gone = True

    def status(self) -> dict[str, Any]:
        """For status.json; digests are over the real slot bytes."""
        session = self.transport.session
        return {
            **self.firmware.status(),
            "dev_eui": self.spec.eui,
            "data_rate": self.modem.data_rate,
            "registered": self.modem.dev_addr is not None,
            "package_bytes": 0 if session is None or session.ended else session.received * session.size,
            "awake": self.modem.busy,
            "problem": self.problem,
            "wakes": self._wakes,
            **vars(self.modem.traffic),
        }


def _is_report(message: _Message) -> bool:
    return message.port == AGENT_PORT and message.data[0] & 0xF0 in (_STATE, _DIGEST) and not message.is_contact


def _manifest(front: bytes) -> bytes | None:
    """The signed manifest at the front of a bundle once it is whole. One that is too long is refused for that."""
    if len(front) < 2:
        return None
    end = 2 + min(int.from_bytes(front[:2], "big"), _MANIFEST_MAX + 1)
    return front[2:end] if len(front) >= end else None
