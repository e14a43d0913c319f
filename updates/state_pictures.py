"""The state machines as a document: a table of every transition, and a picture of each machine as SVG."""

from __future__ import annotations

from collections import defaultdict
from xml.sax.saxutils import escape

from updates.causes import RETRYABLE, SENTENCES
from updates.states import MACHINES, Actor, Machine, Rule

BOX_WIDTH, BOX_HEIGHT = 112, 30
COLUMN, ROW, MARGIN = 176, 58, 40
COLORS = {Actor.ENGINE: "#2f6f9f", Actor.NODE: "#2e7d4f", Actor.LINK: "#2e7d4f", Actor.OPERATOR: "#a3541c"}
MOVES = {
    "campaign": "updates.campaigns.actions.set_state",
    "wave": "updates.campaigns.actions.set_wave_state",
    "node update": "updates.campaigns.transitions.move",
}

_HEAD = """# State machines

Written by `manage.py state_machines` from `updates/states.py`; `make lint` compares. The same tables decide in the engine:
a transition that is not here raises, whoever asks for it. Each is a compare-and-swap; that of a node update writes its event
and its tallies in the same transaction.

In the pictures blue is the engine, green the node or its link, orange a person; a double frame is an end that nothing leaves.
"""


def documents() -> dict[str, str]:
    """Text by file name in docs/."""
    files = {f"state-machine-{machine.name.replace(' ', '-')}.svg": picture(machine) for machine in MACHINES}
    parts = [_HEAD]
    for machine, name in zip(MACHINES, list(files), strict=True):
        parts += [f"\n## {machine.name.capitalize()}\n", f"Moved only by `{MOVES[machine.name]}`.\n"]
        parts += [f"\n![States and transitions of a {machine.name}]({name})\n", "\n", _table(machine)]
    parts += ["\n## Causes\n", "A node update ends with one of these codes, or with a newer firmware's own.\n\n"]
    parts += ["| code | meaning | another attempt |\n| --- | --- | --- |\n"]
    for cause, sentence in SENTENCES.items():
        parts.append(f"| `{cause}` | {sentence} | {'yes' if cause in RETRYABLE else ''} |\n")
    return {"state-machines.md": "".join(parts), **files}


def _table(machine: Machine) -> str:
    lines = ["| from | to | by | when | cause |", "| --- | --- | --- | --- | --- |"]
    for rule in machine.rules:
        by = ", ".join(
            actor.value if rule.role is None else f"a person: {rule.role.value} or higher" for actor in rule.by
        )
        causes = "as reported" if rule.causes is None else ", ".join(f"`{cause}`" for cause in rule.causes)
        lines.append(f"| {', '.join(map(str, rule.sources))} | {rule.target} | {by} | {rule.when} | {causes} |")
    ends = ", ".join(str(state) for state in machine.ends())
    return "\n".join([*lines, "", f"Nothing leaves: {ends}.", ""])


def picture(machine: Machine) -> str:
    """Columns from the beginning to the ends; one arrow for all transitions of one colour between two states."""
    tallest = max(len(column) for column in machine.columns)
    place: dict[str, tuple[int, int]] = {}
    for index, column in enumerate(machine.columns):
        top = MARGIN + (tallest - len(column)) * ROW // 2
        for row, state in enumerate(column):
            place[str(state)] = MARGIN + index * COLUMN, top + row * ROW + 110
    width = 2 * MARGIN + (len(machine.columns) - 1) * COLUMN + BOX_WIDTH
    height = 2 * MARGIN + tallest * ROW + 220
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f"<title>States and transitions of a {machine.name}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _arrow_heads(),
    ]
    arrows: defaultdict[tuple[str, str, str], list[Rule]] = defaultdict(list)
    for rule in machine.rules:
        for source in rule.sources:
            arrows[str(source), str(rule.target), COLORS[rule.by[0]]].append(rule)
    for (source, target, color), rules in arrows.items():
        body.append(_arrow(place[source], place[target], color, " / ".join(rule.when for rule in rules)))
    ends = {str(state) for state in machine.ends()}
    for state, (x, y) in place.items():
        body.append(_box(state, x, y, ended=state in ends))
    return "\n".join([*body, "</svg>", ""])


def _arrow_heads() -> str:
    heads = "".join(
        f'<marker id="{color[1:]}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{color}"/></marker>'
        for color in sorted(set(COLORS.values()))
    )
    return f"<defs>{heads}</defs>"


def _box(state: str, x: int, y: int, *, ended: bool) -> str:
    frame = f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="#f6f7f9" stroke="#30343a"/>'
    inner = (
        f'<rect x="{x + 3}" y="{y + 3}" width="{BOX_WIDTH - 6}" height="{BOX_HEIGHT - 6}" rx="4" fill="none" stroke="#30343a"/>'
        if ended
        else ""
    )
    text = f'<text x="{x + BOX_WIDTH // 2}" y="{y + 20}" text-anchor="middle">{escape(state)}</text>'
    return frame + inner + text


def _arrow(source: tuple[int, int], target: tuple[int, int], color: str, words: str) -> str:
    (x1, y1), (x2, y2) = source, target
    middle = BOX_HEIGHT // 2
    if x2 > x1:
        # Forward: from the right side to the left one, over or under the boxes between by a bow that grows with the way.
        bow = 0 if x2 - x1 == COLUMN else -(x2 - x1 - COLUMN) // 4 * (1 if y2 <= y1 else -1)
        start, end = (x1 + BOX_WIDTH, y1 + middle), (x2, y2 + middle)
        reach = (x2 - x1 - BOX_WIDTH) // 2
        curve = f"C{start[0] + reach} {start[1] + bow} {end[0] - reach} {end[1] + bow} {end[0]} {end[1]}"
    elif x2 < x1:
        # Back: below the boxes, from underside to underside.
        start, end = (x1 + BOX_WIDTH // 2, y1 + BOX_HEIGHT), (x2 + BOX_WIDTH // 2, y2 + BOX_HEIGHT)
        deep = 40 + (x1 - x2) // 6
        curve = f"C{start[0]} {start[1] + deep} {end[0]} {end[1] + deep} {end[0]} {end[1]}"
    else:
        # Beside: within a column, along its right side.
        start, end = (x1 + BOX_WIDTH, y1 + middle), (x2 + BOX_WIDTH, y2 + middle)
        curve = f"C{start[0] + 44} {start[1]} {end[0] + 44} {end[1]} {end[0]} {end[1]}"
    return (
        f'<path d="M{start[0]} {start[1]}{curve}" fill="none" stroke="{color}" stroke-width="1.3" '
        f'marker-end="url(#{color[1:]})"><title>{escape(words)}</title></path>'
    )
