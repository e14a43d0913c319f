"""Who plays in the demo: profiles, firmware, gateways, nodes on two radios, how each behaves, and where each must end."""

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
# Firmware build and its patch decoder, by profile: the smaller cores have no room for decoder L.
FIRMWARE = {
    "wristband-m4": ("imu-firmware-3-l", "l"),
    "pump-m33": ("imu-firmware-3-s", "s"),
    "badge-m0": ("imu-firmware-3-s", "s"),
}
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


LINKS = ("nbiot", "lorawan")
PLANTS = 4
GATEWAYS_A_PLANT = 6
# Of twenty LoRaWAN nodes, how many are at each data rate: most are near a gateway, a few at the edge of its reach.
DATA_RATES = [5] * 9 + [4] * 4 + [3] * 3 + [2] * 2 + [1] + [0]
# RX2 is in the band with ten times the duty cycle; at DR3, as public networks set it, not at the default DR0.
RX2_DATA_RATE = 3
# A whole image for a node whose base nobody has: 24 KB, that is a day of the duty cycle where the rate is low.
NOT_OVER_LORAWAN = ("wrong-base",)


def gateway_id(plant: int, number: int) -> str:
    """8 bytes in hex, of a plant from 1 and a gateway from 0."""
    return f"0016c001ff10{plant:02x}{number:02x}"


GATEWAYS = [
    {"gateway_id": gateway_id(plant, number), "name": f"plant-{plant} gateway {number + 1}"}
    for plant in range(1, PLANTS + 1)
    for number in range(GATEWAYS_A_PLANT)
]

WIDEST_SPREAD = 0.15


@dataclass(frozen=True)
class Actor:
    """`endpoint`: LwM2M endpoint name, or DevEUI. `data_rate`: of a LoRaWAN node, DR0 to DR5. `loss`: each way."""

    endpoint: str
    link: str
    profile: str
    plant: int
    behaviour: str
    loss: float
    data_rate: int = 0

    @property
    def firmware(self) -> str:
        return FIRMWARE[self.profile][0]

    @property
    def patch_decoder(self) -> str:
        return FIRMWARE[self.profile][1]

    @property
    def site(self) -> str:
        return f"plant-{self.plant}"

    @property
    def gateways(self) -> list[str]:
        return [gateway_id(self.plant, number) for number in range(GATEWAYS_A_PLANT)]

    @property
    def must_end(self) -> str:
        """The state in which the forward campaign must leave this node."""
        return "skipped" if self.profile == PROFILES[2]["name"] else ENDS[self.behaviour]


def cast(*, nodes: int, seed: int, loss: float) -> list[Actor]:
    """The same fleet for the same seed. Odd behaviours are kept to nodes that the campaign reaches.

    Every second node is on LoRaWAN. `loss` is the mean of all nodes' losses: with the usual 10 % a tenth of them lose
    next to nothing, a tenth nearly twice as much. The spread stays below 15 points: a link that loses three frames in
    four each way is no link, and an operator would move the gateway.
    """
    chance = random.Random(seed)  # noqa: S311
    names = [str(profile["name"]) for profile in PROFILES]
    counts = [round(nodes * share) for share in PROFILE_SHARES[1:]]
    profiles = [names[0]] * (nodes - sum(counts)) + [names[1]] * counts[0] + [names[2]] * counts[1]
    links = [LINKS[index % 2] for index in range(nodes)]
    odd = dict.fromkeys(range(nodes), "normal")
    free = [index for index, profile in enumerate(profiles) if profile != names[2]]
    chance.shuffle(free)
    for behaviour, number in ODD_ONES.items():
        able = [index for index in free if not (behaviour in NOT_OVER_LORAWAN and links[index] == "lorawan")]
        for index in able[: max(1, round(number * nodes / 300))]:
            odd[index] = behaviour
            free.remove(index)
    return [
        Actor(
            endpoint=f"70b3d57ed00{index:05x}" if links[index] == "lorawan" else f"node-{index:05d}",
            link=links[index],
            profile=profile,
            plant=index // 2 % PLANTS + 1,
            behaviour=odd[index],
            loss=loss + min(loss, WIDEST_SPREAD) * (0.2 * (index % 10) - 0.9),
            data_rate=DATA_RATES[index // 2 % len(DATA_RATES)],
        )
        for index, profile in enumerate(profiles)
    ]
