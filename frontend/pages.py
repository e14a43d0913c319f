"""The verdict sentence of each page, and what templates need besides rows."""

from __future__ import annotations

from dataclasses import dataclass

from django import forms
from django.http import Http404, HttpRequest

from devices.imports import Report
from devices.relabelling import Preview
from frontend.node_list import NodeFilter
from frontend.selectors import Overview


@dataclass(frozen=True)
class Verdict:
    """One sentence on top of a page, and what follows. `css` and `icon` give its state."""

    css: str
    icon: str
    sentence: str
    next: str = ""


def key(request: HttpRequest, name: str) -> int | None:
    """A key of keyset paging. Raises Http404 where it is not a positive number."""
    text = request.GET.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Http404(f"{name} is “{text}”; it must be the id of a row.")
    return int(text) if text else None


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def as_sentence(words: str) -> str:
    """With a capital first letter and a full stop; the rest as it is, for it may hold names."""
    return f"{words[0].upper()}{words[1:].rstrip('.')}." if words else ""


def fleet_verdict(overview: Overview) -> Verdict:
    if not overview.nodes:
        return Verdict(
            "is-planned",
            "s-planned",
            "No node is registered yet.",
            "Describe its hardware, then register it; or let it speak to a gateway: unknown endpoints are listed here.",
        )
    if overview.halted:
        names = ", ".join(campaign.name for campaign in overview.halted)
        return Verdict("is-failed", "i-stop", f"Halted by its gate: {names}.", overview.halted[0].reason)
    wants = []
    if overview.fallen_short:
        wants.append(f"{plural(overview.fallen_short, 'update')} in live campaigns fell short")
    if overview.silent_nodes:
        wants.append(f"{plural(overview.silent_nodes, 'node is', 'nodes are')} silent")
    if overview.stopped:
        wants.append(f"{plural(len(overview.stopped), 'campaign is', 'campaigns are')} paused")
    if overview.drafts:
        wants.append(f"{plural(len(overview.drafts), 'plan awaits', 'plans await')} approval")
    if overview.unknown_count:
        wants.append(f"{plural(overview.unknown_count, 'unknown endpoint')} knocked")
    if wants:
        return Verdict("is-held", "s-tight", as_sentence("; ".join(wants)), "Each line below leads to the nodes meant.")
    live = plural(len(overview.live), "live campaign")
    return Verdict("is-confirmed", "s-confirmed", f"Nothing needs you: {plural(overview.nodes, 'node')}, {live}.")


SEARCHING = Verdict(
    "is-planned", "s-planned", "Searching the whole fleet.", "Few nodes match, or none, and no index leads to them."
)


def nodes_verdict(wanted: NodeFilter, *, shown: int, more: bool, first: bool, readable: bool) -> Verdict:
    if not readable:
        return Verdict("is-held", "s-held", "This filter cannot be read, so no node is shown.")
    if not shown and wanted == NodeFilter():
        return Verdict(
            "is-planned",
            "s-planned",
            "No node is registered yet.",
            "Register one, import a CSV file, or discover them.",
        )
    if not shown:
        return Verdict("is-planned", "s-planned", "No node matches this filter.", "Clear the filter to see more.")
    which = "match this filter" if wanted != NodeFilter() else "are registered"
    if first and not more:
        verb = which if shown != 1 else which.replace("match", "matches").replace("are", "is")
        return Verdict("is-none", "i-node", f"{plural(shown, 'node')} {verb}.")
    place = "first" if first else "next" if more else "last"
    return Verdict("is-none", "i-node", f"The {place} {plural(shown, 'node')} of those that {which}.")


def relabel_verdict(preview: Preview | None, selection: str) -> Verdict:
    if preview is None:
        return Verdict(
            "is-none", "i-node", f"Change labels or site of {selection}.", "Nothing changes before you confirm."
        )
    if not preview.changes:
        return Verdict("is-planned", "s-planned", f"This changes none of {plural(preview.selected, 'node')}.")
    unchanged = preview.selected - preview.changes
    rest = f"{plural(unchanged, 'node')} of the selection already stand so." if unchanged else ""
    return Verdict("is-held", "s-tight", f"This changes {plural(preview.changes, 'node')}.", rest)


def import_verdict(report: Report | None) -> Verdict:
    if report is None:
        return Verdict("is-none", "i-node", "Register or update many nodes from a CSV file.", "A dry run comes first.")
    if report.errors:
        wrong = plural(len(report.errors), "thing is", "things are")
        return Verdict("is-failed", "s-failed", f"Nothing was stored: {wrong} wrong in {plural(report.rows, 'row')}.")
    sentence = f"This registers {plural(report.created, 'node')} and updates {report.updated:,}."
    return Verdict("is-held", "s-tight", sentence, f"{report.unchanged:,} stand so already. Nothing is stored yet.")


def add_refusal(form: forms.Form, field: str, text: str) -> None:
    """At the field that the refusal names, else on top of the form."""
    form.add_error(field if field in form.fields else None, text if field in form.fields else f"{field}: {text}")
