"""One package a radio, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devices.links.base import Link


# Kinds that have an implementation.
LINKS = ("nbiot", "lorawan")


def link_for(kind: str) -> Link:
    """The link of this LinkKind. Raises ValueError for a kind that has none yet."""
    # Imported when asked for: the links need models, which are not there while the apps load.
    from devices.links.lorawan.link import LoRaWanLink
    from devices.links.nbiot.link import NbIotLink

    for link in (NbIotLink(), LoRaWanLink()):
        if kind == link.kind:
            return link
    raise ValueError(f"link: {kind!r} has no implementation, must be one of {', '.join(LINKS)}")
