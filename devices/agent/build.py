"""Compiles the node's C code into the Python module `_agent` beside this file: `python -m devices.agent.build`."""

from __future__ import annotations

import hashlib
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
PATCH_SOURCES = ["patch.c", "patch_model.c", "patch_weights.c"]
SOURCES = [
    "agent.c",
    "agent_patch.c",
    "journal.c",
    "manifest.c",
    "report.c",
    "sha256.c",
    "sha512.c",
    *PATCH_SOURCES,
    "patch_encode.c",
]
HEADERS = ["modelfleet_agent.h", "patch_host.h"]
MONOCYPHER = "third_party/monocypher/monocypher.c"
STAMP = HERE / "build" / "sources.sha256"

_CALLBACKS = """
extern "Python" int port_read(void *, int, uint32_t, uint8_t *, uint32_t);
extern "Python" int port_erase(void *, int);
extern "Python" int port_program(void *, int, uint32_t, const uint8_t *, uint32_t);
extern "Python" int port_record_read(void *, int, uint8_t *);
extern "Python" int port_record_write(void *, int, const uint8_t *);
"""


def module_path() -> Path:
    """Where the compiled module belongs for this interpreter."""
    return HERE / f"_agent{sysconfig.get_config_var('EXT_SUFFIX')}"


def _digest() -> str:
    total = hashlib.sha256(module_path().name.encode())
    for path in sorted([*HERE.glob("*.[ch]"), *HERE.glob("third_party/*/*.[ch]"), Path(__file__)]):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _declarations() -> str:
    # One declaration of the interface: cffi reads the header itself, without the lines of the preprocessor.
    headers = [(HERE / name).read_text() for name in HEADERS]
    return "\n".join(line for text in headers for line in text.splitlines() if not line.startswith("#")) + _CALLBACKS


def build() -> bool:
    """Compile where a source, this file or the interpreter changed; True if it did. Takes about 5 s."""
    digest = _digest()
    if module_path().exists() and STAMP.exists() and STAMP.read_text() == digest:
        return False
    builder = FFI()
    builder.cdef(_declarations())
    builder.set_source(
        "_agent",
        "\n".join(f'#include "{name}"' for name in HEADERS),
        sources=[str(HERE / name) for name in [*SOURCES, MONOCYPHER]],
        include_dirs=[str(HERE)],
        extra_compile_args=["-std=c99", "-Wall", "-Wextra", "-O2", "-ffp-contract=off", "-DMF_PATCH_ENCODER"],
    )
    STAMP.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STAMP.parent) as scratch:
        # Moved into place whole: a process that imports meanwhile sees the old module or the new one.
        Path(builder.compile(tmpdir=scratch)).replace(module_path())
    STAMP.write_text(digest)
    return True


if __name__ == "__main__":
    print("devices/agent: compiled" if build() else "devices/agent: up to date")
