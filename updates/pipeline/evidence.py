"""How much arena an image needs, and how we know: the largest number that applies decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

REPORTED, BISECTED, ESTIMATED = "node-reported", "tflm-bisected-x86", "analytic-32-bit"
COMPILED = "compiler-report"


@dataclass(frozen=True)
class Measured:
    """What the nodes of one profile that run an image said of it: of each figure the worst, and how many nodes said so.

    None and 0: nobody did. `arena_bytes` is what the runtime uses, `p99_ms` of the latency. `deadline_misses` of all
    their `inferences`, on `missing_nodes` of them.
    """

    nodes: int
    arena_bytes: int | None = None
    arena_nodes: int = 0
    p99_ms: float | None = None
    p99_nodes: int = 0
    inferences: int = 0
    deadline_misses: int = 0
    missing_nodes: int = 0


@dataclass(frozen=True)
class ArenaEvidence:
    """`bisected_bytes`: the smallest arena in which TFLM ran the image here; None: not run. `estimates`: by kernel library,
    for a 32-bit core. `reported_bytes`: what a node of this kind said that it uses. `compiled_bytes`: RAM by the report of
    the compiler that laid the network out (ST Edge AI, TVM). All in bytes.

    The x86 minimum was measured 2 to 49 % above a Cortex-M4 with reference kernels, and once 2 % below it with CMSIS-NN,
    whose scratch only the estimate knows. It says nothing of int4 with CMSIS-NN: the kernels here unpack the weights into
    the arena (29 times too much on an autoencoder), CMSIS-NN does not.
    """

    bisected_bytes: int | None
    estimates: Mapping[str, int] = field(default_factory=dict)
    reported_bytes: int | None = None
    compiled_bytes: int | None = None
    precision: str = "int8"

    def ladder(self, *, kernel_library: str) -> dict[str, int]:
        """What applies with this kernel library, by name of the evidence, most trusted first."""
        found = {}
        if self.reported_bytes is not None:
            found[REPORTED] = self.reported_bytes
        if self.compiled_bytes is not None:
            found[COMPILED] = self.compiled_bytes
        if self.bisected_bytes is not None and not (self.precision == "int4" and kernel_library == "cmsis-nn"):
            found[BISECTED] = self.bisected_bytes
        if kernel_library in self.estimates:
            found[ESTIMATED] = self.estimates[kernel_library]
        return found

    def needed(self, *, kernel_library: str) -> tuple[int, str]:
        """Bytes, and the evidence that they come from. Raises ValueError where nothing is known."""
        ladder = self.ladder(kernel_library=kernel_library)
        if not ladder:
            raise ValueError(f"arena: nothing is known of this image with kernels of {kernel_library}")
        evidence = max(ladder, key=lambda name: ladder[name])
        return ladder[evidence], evidence
