"""The package on the node: the download area, and the payload decoders of the firmware."""

from __future__ import annotations

import bz2
import os
from pathlib import Path
from urllib.parse import quote

import bsdiff4.core

_HEADER_BYTES, _CONTROL_BYTES = 32, 24
_MANIFEST_MAX = 192
# What a firmware build decodes, by the patch decoder that it is built with; every one takes a full image and BSDIFF40.
CODECS = {"none": (0, 1), "s": (0, 1, 2), "l": (0, 1, 2, 3)}
IN_THE_AGENT = (2, 3)  # weight patches, by the shipped C code


class PayloadInvalid(ValueError):
    """The payload does not decode."""


class DownloadArea:
    """What has been pulled of the package, kept over a reset: address and entity tag on the first line, then bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = ""
        self.etag = b""  # which version of the package at the address this is
        self.data = bytearray()
        if path.exists():
            head, _, data = path.read_bytes().partition(b"\n")
            uri, etag = head.decode().split("\t")
            self.uri, self.etag, self.data = uri, bytes.fromhex(etag), bytearray(data)

    def begin(self, uri: str, etag: bytes = b"") -> None:
        """Empty the area for the package at `uri`."""
        self.uri, self.etag = uri, etag
        self.data.clear()
        replace(self._path, f"{uri}\t{etag.hex()}\n".encode())

    def append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
        self.data += data

    def truncate(self, size: int) -> None:
        """Keep the first `size` bytes only."""
        kept = bytes(self.data[:size])
        self.begin(self.uri, self.etag)
        self.append(kept)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
        self.uri = ""
        self.data.clear()

    @property
    def manifest(self) -> bytes | None:
        """The signed manifest once it is whole."""
        end = self._payload_start
        return None if end is None or len(self.data) < end else bytes(self.data[2:end])

    @property
    def payload(self) -> bytes:
        return bytes(self.data[self._payload_start :])

    @property
    def _payload_start(self) -> int | None:
        # A longer manifest is refused whatever it holds, so no airtime is spent on the rest of it.
        return None if len(self.data) < 2 else 2 + min(int.from_bytes(self.data[:2], "big"), _MANIFEST_MAX + 1)


def node_path(directory: Path, endpoint: str, suffix: str) -> Path:
    """The file of a node in the state directory."""
    return directory / (quote(endpoint, safe="") + suffix)


def replace(path: Path, data: bytes) -> None:
    """Write a file in one step: a reader, or a start after a kill, sees the old or the new bytes."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)  # noqa: PTH105  # the same as Path.replace, said at module level


def decode_payload(codec: int, base: bytes, payload: bytes, target_size: int) -> bytes:
    """The target image. Codec 0 is the image itself, 1 a BSDIFF40 file. Raises PayloadInvalid."""
    if codec == 0:
        return payload
    if codec != 1:
        raise PayloadInvalid(f"codec: {codec}, this firmware decodes 0 and 1 here, 2 and 3 in its agent")
    if len(payload) < _HEADER_BYTES or payload[:8] != b"BSDIFF40":
        raise PayloadInvalid("payload: no BSDIFF40 header")
    control_size, diff_size, size = (int.from_bytes(payload[at : at + 8], "little") for at in (8, 16, 24))
    if size != target_size or _HEADER_BYTES + control_size + diff_size > len(payload):
        raise PayloadInvalid(f"payload: header says {size} target bytes, the manifest {target_size}")
    diff_start = _HEADER_BYTES + control_size
    control = _decompress(payload[_HEADER_BYTES:diff_start], _CONTROL_BYTES * (target_size + 1))
    diff = _decompress(payload[diff_start : diff_start + diff_size], target_size)
    extra = _decompress(payload[diff_start + diff_size :], target_size)
    if len(control) % _CONTROL_BYTES:
        raise PayloadInvalid("control block: not a whole number of entries")
    try:
        return bytes(bsdiff4.core.patch(base, target_size, control, diff, extra))
    except ValueError as error:
        raise PayloadInvalid(f"control block: {error}") from error


def _decompress(block: bytes, limit: int) -> bytes:
    """bsdiff4.patch would unpack without a bound; a node has its slot and no more."""
    decompressor = bz2.BZ2Decompressor()
    try:
        data = decompressor.decompress(block, max_length=limit)
    except (OSError, ValueError) as error:
        raise PayloadInvalid(f"block: not bzip2 ({error})") from error
    if not decompressor.eof and len(data) < limit:
        raise PayloadInvalid("block: truncated")
    return data
