"""Why a node update ended as it did: a code for machines, a sentence for the operator."""

from __future__ import annotations

SENTENCES = {
    "already-current": "The node already runs this image.",
    "no-image": "No image of this version was built for the node's runtime.",
    "does-not-fit": "The image does not fit the node's memory.",
    "operator-missing": "The node's firmware lacks an operator that the image needs.",
    "swap-refused": "The compiled image is for another chip, or for firmware with another network compiled in.",
    "no-link": "This installation has no link for the node's radio.",
    "firmware-unknown": "The node has not reported its firmware build, so nothing can be promised to it.",
    "contract-differs": "The firmware was built for other inputs, outputs or preprocessing.",
    "not-validated": "The image has not passed validation.",
    "superseded": "A newer campaign has the node now.",
    "window-closed": "The transfer window closed before the node began; it is offered again in the next one.",
    "joined": "The node matches the campaign's filter by now.",
    "end-reached": "The campaign's scheduled end came before the node was done.",
    "no-longer-matches": "The node no longer matches the campaign's filter.",
    "matches-again": "The node matches the campaign's filter again.",
    "no-patch": "No patch leads from the node's image to the new one with its decoder, and the plan allows no full image.",
    "penalty-box": "The node failed too often of late, so updates leave it out.",
    "no-contact": "The node did not take the offer up in time.",
    "no-progress": "The node began and then said nothing more in time.",
    "claims-success": "The node reports success, but the image that it runs is not the target.",
    "aborted": "The campaign was aborted before the node was done.",
    "rolled-back": "The campaign was rolled back before the node was done.",
    "no-bundle-for-base": "The node holds an image that no patch starts from, and no full image was offered.",
    "no-session": "The node never answered when a transfer was set up with it.",
    "session-refused": "The node's firmware refused the transfer: too little memory for its fragments.",
    "session-lost": "The node lost the transfer again and again: it was reset, or its decoder gave up.",
    "too-large": "The bundle needs more fragments at the node's data rate than a transfer can number.",
    "no-answer": "The node never acknowledged the command.",
    "unproved": "The node reports success and never said which image it runs.",
    "command-refused": "The node refused the revert command.",
    "wrong-class": "The node's firmware is of another class than the bundle was signed for.",
    "wrong-base": "The node holds another base image than the patch starts from.",
    "lower-sequence": "The node has accepted a newer assignment already.",
    "bad-signature": "The node could not verify the signature.",
    "bad-digest": "What the node put together is not the signed target.",
    "self-test-failed": "The new image gave other outputs than the golden ones; the node kept the old image.",
    "flash-failure": "The node could not write its flash.",
    "no-memory": "The node has too little memory for the bundle.",
    "watchdog": "The node hung on the new image and its watchdog brought the old one back.",
    "no-server-contact": "The node could not reach the server after the switch and went back.",
    "commanded": "The node went back because it was told to.",
    "patch-invalid": "The node could not decode the patch.",
    "bad-format": "The node does not understand the bundle's format.",
    "unknown-key": "The node does not know the key that signed the bundle.",
    "unknown-codec": "The node's firmware cannot decode this kind of patch.",
    "rebooted": "The node rebooted in the trial and went back to the old image.",
    "busy": "The node was busy with another update.",
    "not-allowed": "The node does not allow this in its state.",
    "object5-result-2": "The node has too little flash for the package.",
    "object5-result-3": "The node ran out of memory while it took the package.",
    "object5-result-4": "The node lost the connection while it took the package.",
    "object5-result-5": "The package arrived damaged.",
    "no-previous": "The node no longer holds the previous image.",
}

# What may pass: the node keeps what it had and its sequence is not used up, so the same offer can succeed later. All
# other causes are final: another attempt would end alike.
RETRYABLE = frozenset(
    {
        "busy",
        "not-allowed",
        "flash-failure",
        "bad-digest",
        "patch-invalid",
        "no-session",
        "session-lost",
        "object5-result-3",
        "object5-result-4",
        "object5-result-5",
    }
)


def sentence(cause: str) -> str:
    """The operator's words for a cause; an unknown code (newer firmware) is shown as it is."""
    return SENTENCES.get(cause, cause)
