"""Words for what machines report. A cause that is not listed shows its own code, so that nothing is hidden."""

from __future__ import annotations

CAUSES = {
    "wrong-class": "the image is for another runtime, operator set or input contract than the node’s firmware",
    "wrong-base": "the node holds another base image than the patch starts from",
    "lower-sequence": "the node has already accepted this or a newer assignment",
    "bad-signature": "the signature does not match the key that the node trusts",
    "bad-digest": "the bytes that arrived are not those that were signed",
    "self-test-failed": "the new image failed its self-test on the node",
    "flash-failure": "the node could not write its flash",
    "no-memory": "the node had too little memory for the image",
    "watchdog": "the watchdog reset the node while it tried the new image",
    "no-server-contact": "the node reached no server after the switch",
    "commanded": "the node was told to go back",
    "patch-invalid": "the patch could not be applied on the node",
    "bad-format": "the node could not read the bundle",
    "unknown-key": "the node does not know the key that signed the bundle",
    "unknown-codec": "the node’s firmware cannot decode this patch",
    "busy": "the node was busy with another update",
    "not-allowed": "the node may not go back: no revert was agreed for the image that it runs",
    "no-previous": "the node no longer holds the image from before",
    "rebooted": "the node restarted during the update",
}


def cause(code: str) -> str:
    code = code.replace("_", "-")
    return CAUSES.get(code, code.replace("-", " "))
