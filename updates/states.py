"""The state machines as data: which states there are, which moves are allowed, who may make them and for what causes.

`transitions.move`, `actions.set_state` and `waves`' moves ask these tables and nothing else; `docs/state-machines.md` is
rendered from them by `manage.py state_machines`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.db import models

from fleet.accounts.permissions import Role


class NodeUpdateState(models.TextChoices):
    PLANNED = "planned", "planned"
    OFFERED = "offered", "offered"
    TRANSFERRING = "transferring", "transferring"
    STAGED = "staged", "staged"
    TRIAL = "trial", "on trial"
    CONFIRMED = "confirmed", "confirmed"
    FAILED = "failed", "failed"
    REJECTED = "rejected", "rejected"
    SILENT = "silent", "silent"
    REVERTED = "reverted", "reverted"
    SKIPPED = "skipped", "skipped"
    CANCELLED = "cancelled", "cancelled"


class CampaignState(models.TextChoices):
    DRAFT = "draft", "draft: its plan awaits approval"
    SCHEDULED = "scheduled", "scheduled"
    RUNNING = "running", "running"
    PAUSED = "paused", "paused"
    HALTED = "halted", "halted by its gate"
    FINISHED = "finished", "finished"
    ABORTED = "aborted", "aborted"


class WaveState(models.TextChoices):
    WAITING = "waiting", "waiting"
    OPEN = "open", "open"
    SOAKING = "soaking", "soaking"
    PASSED = "passed", "passed"
    HALTED = "halted", "halted"


class VersionState(models.TextChoices):
    UPLOADED = "uploaded", "waiting to be built"
    BUILDING = "building", "building"
    READY = "ready", "ready"
    REFUSED = "refused", "refused"


class PatchState(models.TextChoices):
    WAITING = "waiting", "waiting to be built"
    READY = "ready", "ready"
    FAILED = "failed", "failed"


class PatchDecoder(models.TextChoices):
    """Decoders that patches are built for: those of devices.FirmwareBuild.decoder_profile that read more than images."""

    BSDIFF = "bsdiff", "bsdiff"
    S = "s", "S"
    L = "l", "L"


class Actor(models.TextChoices):
    """Who may cause a transition."""

    ENGINE = "engine", "the engine, when its time has come"
    NODE = "node", "the node, by what it reports"
    LINK = "link", "the link, by what it saw"
    OPERATOR = "operator", "a person"


@dataclass(frozen=True)
class Rule:
    """From any of `sources` to `target`, by any of `by`. `causes` empty: none is needed; None: whatever was reported.

    `role`: the lowest that a person needs, where it is one who causes it.
    """

    target: str
    sources: tuple[str, ...]
    by: tuple[Actor, ...]
    when: str
    causes: tuple[str, ...] | None = ()
    role: Role | None = None

    def permits(self, by: Actor, cause: str) -> bool:
        return by in self.by and (self.causes is None or cause in (self.causes or ("",)))


@dataclass(frozen=True)
class Machine:
    """A state machine. `columns` orders its states for the picture, from the beginning to the ends."""

    name: str
    columns: tuple[tuple[str, ...], ...]
    rules: tuple[Rule, ...]

    def sources(self, target: str, *, by: Actor, cause: str = "") -> list[str]:
        """States from which `by` may go to `target` for this cause. Raises ValueError where no rule lets it."""
        rules = [rule for rule in self.rules if rule.target == target and rule.permits(by, cause)]
        if not rules:
            raise ValueError(f"{self.name}: no rule lets the {by} move to {target} for cause {cause!r}")
        return sorted({source for rule in rules for source in rule.sources})

    def role_for(self, target: str) -> Role:
        """The lowest role of a person who moves to `target`. Raises LookupError where no person may."""
        roles = {rule.role for rule in self.rules if rule.target == target and rule.role is not None}
        if len(roles) != 1:
            raise LookupError(f"{self.name}: no role, or more than one, lets a person move to {target}")
        return roles.pop()

    def ends(self) -> list[str]:
        """States that nothing leaves."""
        left = {source for rule in self.rules for source in rule.sources}
        return [state for column in self.columns for state in column if state not in left]


S = NodeUpdateState
ON_THE_AIR: list[S] = [S.OFFERED, S.TRANSFERRING]
ON_THE_NODE: list[S] = [S.STAGED, S.TRIAL]
OPEN_STATES: list[S] = [*ON_THE_AIR, *ON_THE_NODE]
TERMINAL_STATES: list[S] = [S.CONFIRMED, S.FAILED, S.REJECTED, S.SILENT, S.REVERTED, S.SKIPPED, S.CANCELLED]
# Ends that a node or its link reported and that were no success.
FAULTS: list[S] = [S.FAILED, S.REJECTED, S.REVERTED]

_OPEN = tuple(str(state) for state in OPEN_STATES)
_HEARD = (Actor.NODE, Actor.LINK)

# Reports arrive late, twice and out of order, so an open state may be entered from any earlier open one; `silent` is
# the only end that a report reopens, because it says only that nothing was heard.
NODE_UPDATE = Machine(
    "node update",
    columns=(
        (S.PLANNED,),
        (S.OFFERED,),
        (S.TRANSFERRING,),
        (S.STAGED,),
        (S.TRIAL,),
        (S.CONFIRMED, S.FAILED, S.REJECTED, S.REVERTED, S.SILENT, S.SKIPPED, S.CANCELLED),
    ),
    rules=(
        Rule(S.OFFERED, (S.PLANNED,), (Actor.ENGINE,), "its wave is open, its window too, and nothing is in the way"),
        Rule(S.TRANSFERRING, (S.OFFERED, S.SILENT), _HEARD, "the node pulls"),
        Rule(S.STAGED, (S.OFFERED, S.TRANSFERRING, S.SILENT), _HEARD, "the bundle is whole on the node"),
        Rule(S.TRIAL, (S.OFFERED, S.TRANSFERRING, S.STAGED, S.SILENT), _HEARD, "the new image is on trial"),
        Rule(
            S.CONFIRMED,
            (*_OPEN, S.SILENT),
            _HEARD,
            "the node runs the target, proved by digest; a revert command that came too late counts too",
        ),
        Rule(S.FAILED, (*_OPEN, S.SILENT), _HEARD, "an attempt failed, for good or for the last time", None),
        Rule(S.REJECTED, (*_OPEN, S.SILENT), _HEARD, "the node refused the bundle", None),
        Rule(S.REVERTED, (*_OPEN, S.SILENT), _HEARD, "the node went back to the old image by itself", None),
        Rule(
            S.PLANNED, (*_OPEN, S.SILENT), _HEARD, "an attempt failed for a cause that may pass: another follows", None
        ),
        Rule(
            S.PLANNED,
            (S.OFFERED,),
            (Actor.ENGINE,),
            "its transfer window closed before the node began",
            ("window-closed",),
        ),
        Rule(S.SILENT, (S.OFFERED,), (Actor.ENGINE,), "the offer timer ran out", ("no-contact",)),
        Rule(
            S.SILENT,
            (S.TRANSFERRING, S.STAGED, S.TRIAL),
            (Actor.ENGINE,),
            "the progress timer ran out",
            ("no-progress",),
        ),
        Rule(S.SKIPPED, (S.PLANNED,), (Actor.ENGINE,), "the node came to run the target already", ("already-current",)),
        Rule(
            S.SKIPPED,
            (S.PLANNED,),
            (Actor.ENGINE,),
            "there is no patch that the node decodes, and the plan allows no full image",
            ("no-patch",),
        ),
        Rule(
            S.CANCELLED,
            (S.PLANNED, *_OPEN),
            (Actor.OPERATOR,),
            "a person ended the campaign",
            ("aborted", "rolled-back"),
            Role.OPERATOR,
        ),
        Rule(S.CANCELLED, (S.PLANNED, *_OPEN), (Actor.ENGINE,), "the campaign's end was reached", ("end-reached",)),
        Rule(
            S.CANCELLED,
            (S.PLANNED, *(str(state) for state in ON_THE_AIR)),
            (Actor.ENGINE,),
            "a newer campaign has the node, or may take it",
            ("superseded",),
        ),
        Rule(
            S.CANCELLED,
            (S.PLANNED,),
            (Actor.ENGINE,),
            "the node left a dynamic campaign's filter",
            ("no-longer-matches",),
        ),
        Rule(
            S.PLANNED,
            (S.CANCELLED,),
            (Actor.ENGINE,),
            "a node that had left a dynamic campaign's filter matches again",
            ("matches-again",),
        ),
    ),
)

C = CampaignState
CAMPAIGN = Machine(
    "campaign",
    columns=((C.DRAFT,), (C.SCHEDULED,), (C.RUNNING,), (C.FINISHED, C.PAUSED, C.HALTED), (C.ABORTED,)),
    rules=(
        Rule(C.SCHEDULED, (C.DRAFT,), (Actor.OPERATOR,), "an approved plan is started", role=Role.APPROVER),
        Rule(C.RUNNING, (C.SCHEDULED,), (Actor.ENGINE,), "its start has come"),
        Rule(
            C.RUNNING,
            (C.PAUSED, C.HALTED),
            (Actor.OPERATOR,),
            "a person lets it go on and accepts what is known",
            role=Role.APPROVER,
        ),
        Rule(C.PAUSED, (C.SCHEDULED, C.RUNNING), (Actor.OPERATOR,), "a person pauses it", role=Role.OPERATOR),
        Rule(C.PAUSED, (C.RUNNING,), (Actor.ENGINE,), "the gate holds: a person must look"),
        Rule(C.HALTED, (C.RUNNING,), (Actor.ENGINE,), "the gate halts it: too many failures"),
        Rule(C.FINISHED, (C.RUNNING,), (Actor.ENGINE,), "the last wave has passed, or its end is reached"),
        Rule(
            C.ABORTED,
            (C.DRAFT, C.SCHEDULED, C.RUNNING, C.PAUSED, C.HALTED),
            (Actor.OPERATOR,),
            "a person ends it; to roll it back takes an approver",
            role=Role.OPERATOR,
        ),
    ),
)

W = WaveState
WAVE = Machine(
    "wave",
    columns=((W.WAITING,), (W.OPEN,), (W.SOAKING, W.HALTED), (W.PASSED,)),
    rules=(
        Rule(W.OPEN, (W.WAITING,), (Actor.ENGINE,), "the wave before it has passed"),
        Rule(W.SOAKING, (W.OPEN,), (Actor.ENGINE,), "none of its node updates is open or planned any more"),
        Rule(W.PASSED, (W.SOAKING,), (Actor.ENGINE,), "its soak time is over and the gate lets it pass"),
        Rule(W.HALTED, (W.OPEN, W.SOAKING), (Actor.ENGINE,), "the gate halts the campaign"),
        Rule(W.OPEN, (W.HALTED,), (Actor.OPERATOR,), "a person accepts it as it is", role=Role.APPROVER),
    ),
)

MACHINES: Collection[Machine] = (CAMPAIGN, WAVE, NODE_UPDATE)
