"""Labels of nodes as text, `line=7; tag=canary`, and what a label may be. In a value, a backslash keeps ; and itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

MAXIMUM_LABELS = 32
MAXIMUM_VALUE = 128
MAXIMUM_SITE = 64
KEY = re.compile(r"[A-Za-z0-9_./-]{1,64}")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_KEY_FIX = "use 1 to 64 letters, digits and _ . / -"


class LabelError(ValueError):
    """`value` is the piece of text that is wrong; `fix` says what to write instead."""

    def __init__(self, value: str, message: str, fix: str) -> None:
        super().__init__(f"{message}; {fix}.")
        self.value, self.message, self.fix = value, message, fix


def parse_labels(text: str) -> dict[str, str]:
    """Raises LabelError. Empty text has no labels."""
    labels: dict[str, str] = {}
    for piece in re.findall(r"(?:\\.|[^;\\]|\\$)+", text, flags=re.DOTALL):
        if not piece.strip():
            continue
        key, equals, value = piece.partition("=")
        key = key.strip()
        if not equals:
            raise LabelError(piece.strip(), f"{piece.strip()!r} is no label", "write key=value, such as line=7")
        value = _plain(value)
        check_label(key, value)
        if key in labels:
            raise LabelError(key, f"label {key} is there twice", "leave one of them out")
        labels[key] = value
    check_number(labels)
    return labels


def parse_keys(text: str) -> list[str]:
    """Keys apart by commas, semicolons or spaces. Raises LabelError."""
    keys = [key for key in re.split(r"[,;\s]+", text) if key]
    for key in keys:
        if not KEY.fullmatch(key):
            raise LabelError(key, f"{key!r} is no key of a label", _KEY_FIX)
    return keys


def check_label(key: str, value: str) -> None:
    """Raises LabelError."""
    if not KEY.fullmatch(key):
        raise LabelError(key, f"{key!r} is no key of a label", _KEY_FIX)
    if len(value) > MAXIMUM_VALUE:
        raise LabelError(value, f"the value of {key} has {len(value)} signs", f"write at most {MAXIMUM_VALUE}")
    if found := _UNSTORABLE.search(value):
        raise LabelError(value, f"the value of {key} holds U+{ord(found[0]):04X}", "leave that sign out")


def check_number(labels: Mapping[str, object]) -> None:
    """Raises LabelError."""
    if len(labels) > MAXIMUM_LABELS:
        raise LabelError(str(len(labels)), f"{len(labels)} labels are too many", f"keep at most {MAXIMUM_LABELS}")


def check_site(site: str) -> None:
    """Raises LabelError."""
    if len(site) > MAXIMUM_SITE:
        raise LabelError(site, f"the site has {len(site)} signs", f"write at most {MAXIMUM_SITE}")
    if found := _UNSTORABLE.search(site):
        raise LabelError(site, f"the site holds U+{ord(found[0]):04X}", "leave that sign out")


def label_text(value: object) -> str:
    """A value that is no text (an administrator may store any JSON) as its JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def format_labels(labels: Mapping[str, object]) -> str:
    """What `parse_labels` reads back; sorted by key."""
    return "; ".join(f"{key}={_escaped(label_text(labels[key]))}" for key in sorted(labels))


def _plain(value: str) -> str:
    signs = re.findall(r"\\.|.", value, flags=re.DOTALL)
    bare = [index for index, sign in enumerate(signs) if not sign.isspace()]
    return "".join(sign[-1] for sign in signs[bare[0] : bare[-1] + 1]) if bare else ""


def _escaped(value: str) -> str:
    escaped = re.sub(r"[\\;]", r"\\\g<0>", value)
    # Bare spaces at an end would be taken for those between labels.
    return re.sub(r"^\s+|\s+$", lambda spaces: "".join(f"\\{sign}" for sign in spaces[0]), escaped)
