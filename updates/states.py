"""The state machines as data: which states there are, which moves are allowed, and what causes mean."""

from __future__ import annotations

from django.db import models


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


S = NodeUpdateState
OPEN_STATES: list[S] = [S.OFFERED, S.TRANSFERRING, S.STAGED, S.TRIAL]
TERMINAL_STATES: list[S] = [S.CONFIRMED, S.FAILED, S.REJECTED, S.SILENT, S.REVERTED, S.SKIPPED, S.CANCELLED]

# From which states each state can be reached. Reports arrive late, twice and out of order, so an open state may be
# entered from any earlier open one; `silent` is the only terminal state that a report reopens, because it says only
# that nothing was heard.
REACHED_FROM: dict[S, list[S]] = {
    S.OFFERED: [S.PLANNED],
    S.TRANSFERRING: [S.OFFERED, S.SILENT],
    S.STAGED: [S.OFFERED, S.TRANSFERRING, S.SILENT],
    S.TRIAL: [S.OFFERED, S.TRANSFERRING, S.STAGED, S.SILENT],
    S.CONFIRMED: [S.OFFERED, S.TRANSFERRING, S.STAGED, S.TRIAL, S.SILENT],
    S.FAILED: [*OPEN_STATES, S.SILENT],
    S.REJECTED: [*OPEN_STATES, S.SILENT],
    S.REVERTED: [*OPEN_STATES, S.SILENT],
    S.SILENT: OPEN_STATES,
    S.SKIPPED: [S.PLANNED],
    S.CANCELLED: [S.PLANNED, *OPEN_STATES],
}


class CampaignState(models.TextChoices):
    DRAFT = "draft", "draft: its plan awaits approval"
    SCHEDULED = "scheduled", "scheduled"
    RUNNING = "running", "running"
    PAUSED = "paused", "paused"
    HALTED = "halted", "halted by its gate"
    FINISHED = "finished", "finished"
    ABORTED = "aborted", "aborted"


CAMPAIGN_REACHED_FROM: dict[CampaignState, list[CampaignState]] = {
    CampaignState.SCHEDULED: [CampaignState.DRAFT],
    CampaignState.RUNNING: [CampaignState.SCHEDULED, CampaignState.PAUSED, CampaignState.HALTED],
    CampaignState.PAUSED: [CampaignState.SCHEDULED, CampaignState.RUNNING],
    CampaignState.HALTED: [CampaignState.RUNNING],
    CampaignState.FINISHED: [CampaignState.RUNNING],
    CampaignState.ABORTED: [
        CampaignState.DRAFT,
        CampaignState.SCHEDULED,
        CampaignState.RUNNING,
        CampaignState.PAUSED,
        CampaignState.HALTED,
    ],
}


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
