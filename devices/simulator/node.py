"""One simulated node over time: it wakes, talks to its server, works off what is due, and sleeps again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path
from typing import Any

from devices.simulator import client, coap
from devices.simulator.client import Lwm2mClient, RegistrationRefused
from devices.simulator.clock import Clock
from devices.simulator.coap import Message
from devices.simulator.exchange import Answer, CoapEndpoint, NoAnswer
from devices.simulator.health import split
from devices.simulator.lwm2m_firmware import DOWNLOADING, Lwm2mFirmware
from devices.simulator.network import Address, RadioPath
from devices.simulator.self_test import SelfTestBench
from devices.simulator.spec import NodeSpec, Spec

_BOOT_S = 5.0
_CONTACT_WAKES = 5  # a new image that hears nothing from the server in so many windows is undone


class _Reset(Exception):
    """The node loses what is in RAM."""


class _Gone(Exception):
    """The node leaves for good."""


class Node:
    def __init__(
        self,
        spec: NodeSpec,
        whole: Spec,
        *,
        clock: Clock,
        server: Address,
        seed: int,
        directory: Path,
        bench: SelfTestBench,
    ) -> None:
        """Raises FlashMismatch where `directory` holds another flash."""
        self.spec = spec
        self._clock, self._bench = clock, bench
        self._rng = random.Random(f"{seed}/{spec.endpoint}/node")
        self.firmware = Lwm2mFirmware(
            spec, image=whole.images[spec.active], public_keys=whole.public_keys, directory=directory, server=server
        )
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        network_rng = random.Random(f"{seed}/{spec.endpoint}/network")
        self.path = RadioPath(clock, spec.radio, network_rng, self._hear, family)
        # Message ids and tokens differ from run to run: a server keeps them for 247 s and would take a restarted
        # simulator with the same seed for a repetition.
        self._endpoint = CoapEndpoint(
            clock,
            random.Random(),
            self.path.send,
            self._serve,
            ack_timeout_s=spec.ack_timeout_s,
            deduplicate=spec.deduplicate,
        )
        self._client = Lwm2mClient(self._endpoint, server, spec.endpoint, spec.lifetime_s, spec.lwm2m)
        self._heard = asyncio.Event()
        self._registered_until = 0.0
        self._wakes = 0
        self._contact_tries = 0
        self.problem = ""  # why the last window ended early

    async def run(self) -> None:
        """Live until cancelled; returns early where the behaviour is to be gone."""
        gone = self.spec.behaviour == "silent" and self.firmware.memory.mishap_done
        if self.spec.behaviour == "never" or gone:
            return
        await self._clock.sleep(self._rng.uniform(0, self.spec.wake_interval_s))
        while True:
            woken = self._clock.now()
            try:
                await self._window()
                self.problem = ""
            except (NoAnswer, RegistrationRefused) as error:
                self.problem = str(error)
            except _Reset:
                await self._clock.sleep(_BOOT_S)
                continue
            except _Gone:
                return
            finally:
                self.path.awake = False
            interval = self.spec.wake_interval_s * self._rng.uniform(0.95, 1.05)
            await self._clock.sleep(woken + interval - self._clock.now())

    def status(self) -> dict[str, Any]:
        """For status.json; digests are over the real slot bytes."""
        memory = self.firmware.memory
        return {
            **self.firmware.status(),
            "package_state": memory.package_state,
            "package_result": memory.package_result,
            "package_bytes": len(self.firmware.download.data),
            "awake": self.path.awake,
            "registered": self._client.location is not None,
            "problem": self.problem,
            "wakes": self._wakes,
            **vars(self.path.traffic),
        }

    async def _window(self) -> None:
        self.path.awake = True
        self._wakes += 1
        self._endpoint.last_exchange = self._clock.now()
        if self.firmware.contact_due:
            self._contact_tries += 1
        if self._clock.now() >= self._registered_until:
            self._client.location = None
        await self._client.update()
        self._registered_until = self._clock.now() + self.spec.lifetime_s
        if self._client.can_send and self._wakes % self.spec.health_every_wakes == 0:
            await self._send_health()
        while True:
            self._heard.clear()
            if await self._work():
                continue
            left = self._endpoint.last_exchange + self.spec.awake_s - self._clock.now()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), self._clock.wall(left))

    async def _work(self) -> bool:
        """One thing that is due; whether there was one."""
        firmware = self.firmware
        if firmware.trial_due:
            image = firmware.trial_image()
            if image is not None:
                self._contact_tries = 0
                firmware.judge_trial(await self._bench.run(image))
        elif firmware.contact_due:
            await self._prove_contact()
        elif firmware.report_due:
            firmware.report_due = False
            await self._send_report()
        elif firmware.memory.package_state == DOWNLOADING:
            if self.spec.behaviour == "silent":
                firmware.memory.mishap_done = True
                firmware.save()
                raise _Gone
            await self._pull_block()
        else:
            return False
        return True

    async def _send_report(self) -> None:
        if not self._client.can_send:
            return
        taken = False
        try:
            taken = await self._client.send("/26241/0/2", self.firmware.state_report())
        finally:
            if not taken:
                self.firmware.report_due = True  # in the next window
        if not taken:
            raise NoAnswer("the server did not take the state report")

    async def _prove_contact(self) -> None:
        if self._contact_tries >= _CONTACT_WAKES:
            self.firmware.give_up_contact()
            return
        if not self._client.can_send:
            await self._client.update()
        elif not await self._client.send("/26241/0/2", self.firmware.state_report()):
            raise NoAnswer("the server did not take the report of the trial")
        self.firmware.confirm()

    async def _send_health(self) -> None:
        report = await self.firmware.health_report(self._bench, self._clock.now(), self._rng)
        for part in split(report, self.firmware.memory.report_id):
            await self._client.send("/26241/0/5", part)

    async def _pull_block(self) -> None:
        firmware, size = self.firmware, self.spec.block_bytes
        download = firmware.download
        if len(download.data) % size:
            # The server sent smaller blocks before the reset: go on from the last whole one.
            download.truncate(len(download.data) - len(download.data) % size)
        if not firmware.resume():
            return
        uri = download.uri
        while firmware.memory.package_state == DOWNLOADING and download.uri == uri:
            offset = len(download.data)
            answer = await self._client.block(uri, offset, size)
            if firmware.memory.package_state != DOWNLOADING or download.uri != uri:
                return  # the server wrote another address meanwhile
            if answer.code >> 5 == 5:
                raise NoAnswer(f"package: answered 5.{answer.code & 31:02}")  # the server is in trouble, not the offer
            at, more, given = answer.block2 or (0, False, size)
            whole = at == offset and (not more or len(answer.payload) == given)
            if answer.code != coap.CONTENT or not whole:
                firmware.withdraw()
                return
            size = given
            etag = b"".join(answer.values(coap.ETAG)[:1])
            if offset and etag != download.etag:  # other bytes under the same address (RFC 7959, 2.4)
                download.begin(uri)
                continue
            if not offset:
                download.begin(uri, etag)
            firmware.take_block(answer.payload, last=not more)
            if more and self._reset_is_due(answer):
                self._reset()

    def _reset_is_due(self, answer: Message) -> bool:
        if self.spec.behaviour != "reboot" or self.firmware.memory.mishap_done:
            return False
        total = answer.uint(coap.SIZE2)
        return total is None or 2 * len(self.firmware.download.data) >= total

    def _reset(self) -> None:
        self.firmware.memory.mishap_done = True
        self.firmware.memory.reboots += 1
        self.firmware.boot("rebooted")
        self.firmware.save()
        self._client.location = None
        self._endpoint.forget()
        self.path.close()
        raise _Reset

    def _hear(self, data: bytes, address: Address) -> None:
        self._endpoint.receive(data, address)
        self._heard.set()

    def _serve(self, request: Message) -> Answer:
        return client.serve(self.firmware, request)
