"""Who plays in the demo: profiles, firmware, nodes, how each behaves, and where each must end."""

from __future__ import annotations

import random
from dataclasses import dataclass

OPERATORS = ["ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "RESHAPE", "SOFTMAX"]

# The third has too little SRAM for the demo's network: its nodes must be refused by the plan, never updated.
PROFILES = [
    {
        "name": "wristband-m4",
        "core": "cortex-m4f",
        "slot_bytes": 65_536,
        "sram_bytes": 65_536,
        "reserved_sram_bytes": 40_960,
    },
    {
        "name": "pump-m33",
        "core": "cortex-m33",
        "slot_bytes": 131_072,
        "sram_bytes": 262_144,
        "reserved_sram_bytes": 98_304,
    },
    {
        "name": "badge-m0",
        "core": "cortex-m0+",
        "slot_bytes": 32_768,
        "sram_bytes": 16_384,
        "reserved_sram_bytes": 10_240,
    },
]
PROFILE_SHARES = [0.5, 0.4, 0.1]

# How many of each a fleet of 300 has; what is left behaves normally.
ODD_ONES = {
    "reboot": 10,
    "wrong-base": 4,
    "failing-self-test": 3,
    "liar": 1,
    "silent": 2,
    "never": 1,
    "lost-previous": 3,
}
ENDS = {
    "normal": "confirmed",
    "reboot": "confirmed",
    "wrong-base": "confirmed",
    "lost-previous": "confirmed",
    "failing-self-test": "reverted",
    "liar": "failed",
    "silent": "silent",
    "never": "silent",
}


@dataclass(frozen=True)
class Actor:
    endpoint: str
    profile: str
    site: str
    behaviour: str

    @property
    def must_end(self) -> str:
        """The state in which the forward campaign must leave this node."""
        return "skipped" if self.profile == PROFILES[2]["name"] else ENDS[self.behaviour]


def cast(*, nodes: int, seed: int) -> list[Actor]:
    """The same fleet for the same seed. Odd behaviours are kept to nodes that the campaign reaches."""
    chance = random.Random(seed)  # noqa: S311
    names = [str(profile["name"]) for profile in PROFILES]
    counts = [round(nodes * share) for share in PROFILE_SHARES[1:]]
    profiles = [names[0]] * (nodes - sum(counts)) + [names[1]] * counts[0] + [names[2]] * counts[1]
    reached = [index for index, profile in enumerate(profiles) if profile != names[2]]
    odd = dict.fromkeys(range(nodes), "normal")
    chosen = iter(chance.sample(reached, len(reached)))
    for behaviour, number in ODD_ONES.items():
        for _ in range(max(1, round(number * nodes / 300))):
            if (index := next(chosen, None)) is not None:
                odd[index] = behaviour
    return [
        Actor(f"node-{index:05d}", profile, f"plant-{index % 4 + 1}", odd[index])
        for index, profile in enumerate(profiles)
    ]
