"""What one event says of one node update: a decision on values, without reading or writing anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from devices.models import UNPROVED, LinkEventKind
from devices.services import Heard
from devices.wire import NodeState, StateReport
from updates.causes import RETRYABLE
from updates.models import Method
from updates.states import OPEN_STATES, Actor, CampaignState, NodeUpdateState

REPORTED = {
    NodeState.RECEIVING: NodeUpdateState.TRANSFERRING,
    NodeState.STAGED: NodeUpdateState.STAGED,
    NodeState.TRIAL: NodeUpdateState.TRIAL,
    NodeState.REVERTED: NodeUpdateState.REVERTED,
    NodeState.FAILED: NodeUpdateState.FAILED,
    NodeState.REJECTED: NodeUpdateState.REJECTED,
}
# A node repeats its last end in each report. One that has pulled nothing of this offer speaks of an earlier one.
BEGUN = (NodeUpdateState.TRANSFERRING, NodeUpdateState.STAGED, NodeUpdateState.TRIAL)


class Standing(NamedTuple):
    """A node update as a report finds it. `target` is the digest of its image, `held` what the node is known to run."""

    pk: int
    node_id: int
    link: str
    state: str
    cause: str
    method: str
    attempts: int
    received_bytes: int
    not_before: datetime | None
    target: str
    held: str
    campaign_state: str
    sequence: int
    maximum_attempts: int
    offer_timeout_s: int
    progress_timeout_s: int


@dataclass(frozen=True)
class Step:
    """A move that an event asks for; `sources` narrows the states that it may start from."""

    to_state: NodeUpdateState
    by: Actor
    cause: str = ""
    timeout_s: float | None = None
    sources: tuple[NodeUpdateState, ...] | None = None


def judge(*, event: Heard, report: StateReport | None, update: Standing) -> Step | None:
    """`report` is the decoded report of a REPORT event.

    A campaign that has ended lets what it had given up come to an end, but opens and plans nothing: nobody would tick it.
    """
    if _of_an_earlier_attempt(event, update):
        return None
    step = _judge(event=event, report=report, update=update)
    if update.campaign_state in (CampaignState.FINISHED, CampaignState.ABORTED):
        return None if step is not None and step.to_state in OPEN_STATES else step
    return _another_attempt(step, update) if step is not None else None


def _of_an_earlier_attempt(event: Heard, update: Standing) -> bool:
    """What a link saw before this attempt could begin. What a node runs counts whenever it was seen."""
    return update.not_before is not None and event.at < update.not_before and event.kind != LinkEventKind.HOLDS


def _another_attempt(step: Step, update: Standing) -> Step:
    """A failure that may pass plans the update again, while the campaign allows another attempt.

    Only FAILED: a node that rejects will reject again, and one that reverted has used the sequence up.
    """
    may_pass = step.to_state == NodeUpdateState.FAILED and step.cause in RETRYABLE
    if may_pass and update.attempts + 1 < update.maximum_attempts:
        return replace(step, to_state=NodeUpdateState.PLANNED)
    return step


def _judge(*, event: Heard, report: StateReport | None, update: Standing) -> Step | None:
    timeout_s = update.progress_timeout_s
    link, node = Actor.LINK, Actor.NODE
    target, held = update.target, update.held
    if event.kind == LinkEventKind.PROGRESS:
        return Step(NodeUpdateState.TRANSFERRING, link, timeout_s=timeout_s)
    if event.kind == LinkEventKind.DELIVERED:
        return Step(NodeUpdateState.STAGED, link, timeout_s=timeout_s)
    if event.kind == LinkEventKind.FAILED:
        if update.method == Method.COMMAND:
            # It may have gone back before the command came; else the patch takes over, see `ingest`.
            return Step(NodeUpdateState.CONFIRMED, link) if held == target else None
        return Step(NodeUpdateState.FAILED, link, cause=event.cause or "failed")
    if event.kind == LinkEventKind.HOLDS:
        return Step(NodeUpdateState.CONFIRMED, node) if target and event.digest == target else None
    if event.kind == LinkEventKind.REPORT and report is not None and event.cause != UNPROVED:
        return _judge_report(report, update)
    return None


def _judge_report(report: StateReport, update: Standing) -> Step | None:
    node, target = Actor.NODE, update.target
    if update.method == Method.COMMAND:
        # The revert command has no sequence of its own: where the node stands is the proof.
        back = report.state == NodeState.REVERTED and report.active_prefix.hex() == target[:8]
        return Step(NodeUpdateState.CONFIRMED, node) if back else None
    own_sequence = report.sequence_low == update.sequence & 0xFF
    if report.state == NodeState.CONFIRMED:
        return _judge_success(target=target, held=update.held) if own_sequence else None
    to_state = REPORTED.get(report.state)
    if to_state is None:
        return None
    if to_state in OPEN_STATES:
        return Step(to_state, node, timeout_s=update.progress_timeout_s) if own_sequence else None
    if own_sequence and not (update.attempts and to_state == NodeUpdateState.FAILED):
        return Step(to_state, node, cause=report.cause.label)
    # A bundle that was refused or never became whole leaves the sequence of the one before; and until a node begins
    # another attempt, it repeats how the last one failed.
    if to_state not in (NodeUpdateState.FAILED, NodeUpdateState.REJECTED):
        return None
    gave_up_later = update.received_bytes > 0 or update.cause == "no-progress"
    sources = (*BEGUN, NodeUpdateState.SILENT) if gave_up_later else BEGUN
    return Step(to_state, node, cause=report.cause.label, sources=sources)


def _judge_success(*, target: str, held: str) -> Step:
    """Success is what the node runs, not what it says: links read the whole digest before each such report."""
    if held == target:
        return Step(NodeUpdateState.CONFIRMED, Actor.NODE)
    return Step(NodeUpdateState.FAILED, Actor.NODE, cause="claims-success")
