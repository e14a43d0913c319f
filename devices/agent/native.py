"""The shipped node code under Python: a simulated node's flash and the agent that runs over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from devices.agent import _agent  # type: ignore[attr-defined]  # compiled by devices.agent.build

_ffi: Any = _agent.ffi
_lib: Any = _agent.lib

CAUSES = {
    number: name.removeprefix("MF_").lower().replace("_", "-")
    for number, name in _ffi.typeof("mf_cause").elements.items()
}
STATES = {
    number: name.removeprefix("MF_").lower().replace("_", "-")
    for number, name in _ffi.typeof("mf_state").elements.items()
}
_CAUSE_NUMBERS = {name: number for number, name in CAUSES.items()}
RECORD_BYTES: int = _lib.MF_RECORD
HEALTH_PART_BYTES: int = _lib.MF_HEALTH_PART


@dataclass
class Flash:
    """What survives a reset: two slots of slot_size bytes, two journal places.

    `fuse` counts down with each erase, program and journal write; at 0 the operation and all later ones fail, as on a
    worn flash or a power cut. None: never.
    """

    slot_size: int
    slots: list[bytearray] = field(default_factory=list)
    journal: list[bytearray] = field(default_factory=lambda: [bytearray(), bytearray()])
    fuse: int | None = None

    def __post_init__(self) -> None:
        if not self.slots:
            self.slots = [bytearray(b"\xff" * self.slot_size) for _ in range(2)]

    def burn(self) -> bool:
        """Whether the next change of the flash may happen."""
        if self.fuse is None:
            return True
        self.fuse -= 1
        return self.fuse >= 0


@_ffi.def_extern(error=-1)
def port_read(context: Any, slot: int, offset: int, out: Any, count: int) -> int:
    _ffi.memmove(out, _ffi.from_handle(context).slots[slot][offset : offset + count], count)
    return 0


@_ffi.def_extern(error=-1)
def port_erase(context: Any, slot: int) -> int:
    flash = _ffi.from_handle(context)
    if not flash.burn():
        return -1
    flash.slots[slot][:] = b"\xff" * flash.slot_size
    return 0


@_ffi.def_extern(error=-1)
def port_program(context: Any, slot: int, offset: int, data: Any, count: int) -> int:
    flash = _ffi.from_handle(context)
    # Flash with error correction takes each unit once after an erase; a second program would corrupt it.
    if offset + count > flash.slot_size or flash.slots[slot][offset : offset + count] != b"\xff" * count:
        return -1
    if not flash.burn():
        return -1
    flash.slots[slot][offset : offset + count] = _ffi.buffer(data, count)[:]
    return 0


@_ffi.def_extern(error=-1)
def port_record_read(context: Any, place: int, out: Any) -> int:
    record = _ffi.from_handle(context).journal[place]
    if len(record) != _lib.MF_RECORD:
        return -1
    _ffi.memmove(out, record, len(record))
    return 0


@_ffi.def_extern(error=-1)
def port_record_write(context: Any, place: int, data: Any) -> int:
    flash = _ffi.from_handle(context)
    whole = bytes(_ffi.buffer(data, _lib.MF_RECORD)[:])
    if not flash.burn():
        flash.journal[place] = bytearray(whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2))  # torn
        return -1
    flash.journal[place] = bytearray(whole)
    return 0


class Agent:
    """One node's agent. A reset is a new Agent over the same Flash. Methods return the cause; "none" is success."""

    def __init__(
        self,
        flash: Flash,
        *,
        class_hash: bytes,
        public_keys: Sequence[bytes],
        codecs: Sequence[int] = (0, 1),
        factory_size: int | None = None,
        reset_cause: str = "rebooted",
    ) -> None:
        """With factory_size the node is new and slot 0 holds an image of that size; else it boots from the journal.

        `class_hash`: 4 bytes. `public_keys`: 1 or 2 of 32 bytes. `codecs`: what the firmware decodes. The outcome of
        the boot is in `boot_cause`. Raises ValueError for wrong lengths.
        """
        if len(class_hash) != 4 or not 1 <= len(public_keys) <= 2 or any(len(key) != 32 for key in public_keys):
            raise ValueError("class_hash must have 4 bytes, public_keys must be 1 or 2 of 32 bytes")
        self.flash = flash
        self._handle = _ffi.new_handle(flash)
        self._config = _ffi.new("mf_config *")
        self._config.class_hash = class_hash
        for index, key in enumerate(public_keys):
            self._config.keys[index] = list(key)
        self._config.key_count = len(public_keys)
        self._config.slot_size = flash.slot_size
        self._config.codec_mask = sum(1 << codec for codec in set(codecs))
        callbacks = (
            _lib.port_read,
            _lib.port_erase,
            _lib.port_program,
            _lib.port_record_read,
            _lib.port_record_write,
        )
        self._port = _ffi.new("mf_port *", (self._handle, *callbacks))
        self._agent = _ffi.new("mf_agent *")
        if factory_size is not None:
            number = _lib.mf_agent_provision(self._agent, self._port, self._config, factory_size)
        else:
            number = _lib.mf_agent_boot(self._agent, self._port, self._config, _CAUSE_NUMBERS[reset_cause])
        self.boot_cause = CAUSES[number]

    def begin(self, manifest: bytes) -> str:
        return CAUSES[_lib.mf_agent_begin(self._agent, manifest, len(manifest))]

    def stage_write(self, offset: int, data: bytes) -> str:
        return CAUSES[_lib.mf_agent_stage_write(self._agent, offset, data, len(data))]

    def stage_patch(self, payload: bytes, piece_bytes: int = 512) -> str:
        """Decode a weight patch into the standby slot, in pieces as they come off a link; `stage_finish` comes next."""
        decoder = _ffi.new("uint64_t[]", (_lib.mf_host_state_bytes(1) + 7) // 8)
        number = _lib.mf_agent_patch_begin(self._agent, decoder)
        for at in range(0, max(1, len(payload)), piece_bytes):
            if number == _lib.MF_NONE:
                piece, last = payload[at : at + piece_bytes], at + piece_bytes >= len(payload)
                number = _lib.mf_agent_patch_write(self._agent, decoder, piece, len(piece), last)
        return CAUSES[number]

    def stage_finish(self) -> str:
        return CAUSES[_lib.mf_agent_stage_finish(self._agent)]

    def stage_abort(self, cause: str) -> str:
        return CAUSES[_lib.mf_agent_stage_abort(self._agent, _CAUSE_NUMBERS[cause])]

    def trial_begin(self) -> str:
        return CAUSES[_lib.mf_agent_trial_begin(self._agent)]

    def self_test_result(self, digest: bytes) -> str:
        if len(digest) != 8:
            raise ValueError(f"self-test digest: {len(digest)} bytes, must be 8")
        return CAUSES[_lib.mf_agent_self_test_result(self._agent, digest)]

    def trial_abort(self, cause: str) -> str:
        return CAUSES[_lib.mf_agent_trial_abort(self._agent, _CAUSE_NUMBERS[cause])]

    def confirm(self) -> str:
        return CAUSES[_lib.mf_agent_confirm(self._agent)]

    def command(self, command: bytes) -> str:
        return CAUSES[_lib.mf_agent_command(self._agent, command, len(command))]

    def state_report(self) -> bytes:
        """The 11 bytes for the link."""
        out = _ffi.new("uint8_t[]", _lib.MF_STATE_REPORT)
        _lib.mf_agent_state_report(self._agent, out)
        return bytes(_ffi.buffer(out)[:])

    @property
    def state(self) -> str:
        return STATES[self._agent.record.state]

    @property
    def cause(self) -> str:
        return CAUSES[self._agent.record.cause]

    @property
    def highest_sequence(self) -> int:
        return int(self._agent.record.highest_sequence)

    @property
    def received_manifest_codec(self) -> int:
        """The codec of the update being received: the firmware decodes the payload with it."""
        return int(self._agent.manifest.codec)

    @property
    def target_size(self) -> int:
        """Bytes of the image being received."""
        return int(self._agent.manifest.target_size)

    @property
    def running_slot(self) -> int | None:
        """The slot that decides, None where the heuristic must."""
        slot = int(_lib.mf_agent_running_slot(self._agent))
        return None if slot < 0 else slot

    @property
    def active_slot(self) -> int:
        """The slot with the confirmed image; during a trial still the old one."""
        return int(self._agent.record.active)

    def image(self, slot: int) -> bytes:
        """The bytes of the image in a slot; empty where there is none."""
        return bytes(self.flash.slots[slot][: self._agent.record.image[slot].size])


def encode_health(*, active_prefix: bytes, class_counts: Sequence[int], **numbers: int) -> bytes:
    """The health report in CBOR. active_prefix: 4 bytes; class_counts: at most 32; numbers: the other fields of `mf_health`."""
    health = _ffi.new("mf_health *", {"active_prefix": active_prefix, "class_count": len(class_counts)} | numbers)
    health.class_counts = list(class_counts)
    out = _ffi.new("uint8_t[]", _lib.MF_HEALTH_MAX)
    size = _lib.mf_health_encode(health, out)
    return bytes(_ffi.buffer(out, size)[:])


def health_parts(report: bytes, *, report_id: int, part_bytes: int) -> Iterator[bytes]:
    """The parts of an encoded report, each of at most part_bytes (4..36); none where they would be more than 16."""
    out, index = _ffi.new("uint8_t[]", HEALTH_PART_BYTES), 0
    while size := _lib.mf_health_part(report, len(report), report_id, part_bytes, index, out):
        yield bytes(_ffi.buffer(out, size)[:])
        index += 1
