"""How many updates may be open at once: in the campaign, in a wave, and in each group of nodes that share something."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.models.expressions import Combinable
from django.db.models.fields.json import KeyTextTransform

from devices.labels import KEY
from devices.models import Delivery, DeliveryState
from updates.campaigns.transitions import LOCK_SPACE
from updates.models import NodeUpdate
from updates.states import ON_THE_NODE, OPEN_STATES

# Groups of nodes by name: where the group of a node is read, as a lookup from Node. `label.<key>` is one for each value of
# that label: what a network knows and this server does not, such as the cell, can stand there. All campaigns count in a
# group: its radio does not know whose bytes it carries. Nodes with an empty group are not limited by it.
GROUPS: dict[str, str] = {"site": "site", "gateway": "radio__gateway_id"}
LABEL = "label."
NAMES = ("campaign", "wave", *GROUPS, f"{LABEL}<key>")
HIGHEST = 1_000_000
MAXIMUM_LIMITS = 8
# No campaign has this number: the lock under which places in groups are counted and taken.
_GROUPS_LOCK = 0


class LimitError(ValueError):
    """`field` is where, such as limits.site."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def read_limits(values: Mapping[str, Any]) -> dict[str, int]:
    """Most open updates by one of NAMES. Raises LimitError that names field, value and fix."""
    if unknown := [name for name in values if name not in NAMES[:-1] and not _is_label(name)]:
        raise LimitError(f"limits.{min(unknown)}", f"is unknown; known are {', '.join(sorted(NAMES))}")
    if len(values) > MAXIMUM_LIMITS:
        raise LimitError("limits", f"has {len(values)}; give at most {MAXIMUM_LIMITS}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= HIGHEST:
            raise LimitError(
                f"limits.{name}", f"is {value!r}; give a whole number from 1 to {HIGHEST}, or leave it out"
            )
    return dict(values)


def _is_label(name: str) -> bool:
    return name.startswith(LABEL) and re.fullmatch(KEY, name.removeprefix(LABEL)) is not None


def group_of(name: str) -> Combinable:
    """The group of a node update's node, for a query of node updates; NULL or empty where it has none."""
    if name.startswith(LABEL):
        return KeyTextTransform(name.removeprefix(LABEL), F("node__labels"))
    return F(f"node__{GROUPS[name]}")


class Room:
    """Free places. Counted once, then taken one by one; groups under a lock that lasts until the transaction ends.

    A place in a group is taken by what a link carries or a node works on. What a pause or a halt has withdrawn takes none,
    however long it lasts, and asks for one anew when its campaign goes on.

    `crowded`: a node found its group full. `had_its_turn`: the last place of a group was taken for this campaign.
    """

    def __init__(self, limits: Mapping[str, int], *, open_in_campaign: int) -> None:
        self._limits = limits
        self.crowded = self.had_its_turn = False
        self._campaign = limits.get("campaign", HIGHEST) - open_in_campaign
        self._wave = HIGHEST
        self.groups = sorted(set(limits) - {"campaign", "wave"})
        self._taken: dict[str, Counter[str]] = {}
        if self.groups:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCK_SPACE, _GROUPS_LOCK])
        carried = Delivery.objects.filter(reference=OuterRef("pk")).exclude(state=DeliveryState.CANCELLED)
        busy = NodeUpdate.objects.filter(Q(state__in=ON_THE_NODE) | Q(Exists(carried)), state__in=OPEN_STATES)
        for name in self.groups:
            sizes = busy.annotate(group=group_of(name)).filter(group__gt="").values_list("group")
            self._taken[name] = Counter(dict(sizes.annotate(number=Count("id")).order_by()))

    def groups_of(self, ids: Iterable[int]) -> dict[int, list[str]]:
        """Groups of these node updates, by id, in the order of `self.groups`."""
        columns = [group_of(name) for name in self.groups]
        rows = NodeUpdate.objects.filter(pk__in=list(ids)).values_list("pk", *columns)
        return {pk: groups for pk, *groups in rows}

    def enter_wave(self, *, open_in_wave: int) -> None:
        self._wave = self._limits.get("wave", HIGHEST) - open_in_wave

    def left(self) -> int:
        """Places that the campaign and this wave have left, whatever the groups."""
        return max(0, min(self._campaign, self._wave))

    def take(self, groups: Iterable[str]) -> bool:
        """Takes a place for a node with these groups, in the order of `self.groups`; False where one is full."""
        if self.left() == 0 or not self.take_again(groups):
            return False
        self._campaign -= 1
        self._wave -= 1
        return True

    def take_again(self, groups: Iterable[str]) -> bool:
        """As `take`, for an update that is open, so that campaign and wave count it, and that no link carries any more."""
        keys = [(name, key) for name, key in zip(self.groups, groups, strict=True) if key]
        if any(self._taken[name][key] >= self._limits[name] for name, key in keys):
            self.crowded = True
            return False
        for name, key in keys:
            self._taken[name][key] += 1
            self.had_its_turn |= self._taken[name][key] == self._limits[name]
        return True
