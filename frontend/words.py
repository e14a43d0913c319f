"""Words for what machines report. A cause that is not listed shows its own code, so that nothing is hidden."""

from __future__ import annotations

CAUSES = {
    "wrong_class": "the image is for another runtime, operator set or input contract",
    "wrong_base": "the node holds another base image than the patch starts from",
    "lower_sequence": "the node has already seen this or a newer assignment",
    "bad_signature": "the signature does not match the fleet’s key",
    "bad_digest": "the bytes that arrived are not those that were signed",
    "self_test_failed": "the new image failed its self-test on the node",
    "flash_failure": "the node could not write its flash",
    "no_memory": "the node had too little memory for the image",
    "watchdog": "the watchdog reset the node while it tried the new image",
    "no_server_contact": "the node reached no server after the switch",
    "commanded": "the node was told to go back",
}


def cause(code: str) -> str:
    return CAUSES.get(code, code.replace("_", " "))
