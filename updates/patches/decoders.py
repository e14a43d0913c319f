"""Which codecs a firmware's patch decoder reads: a patch is built for a decoder, so nodes get what they can decode."""

from __future__ import annotations

from collections.abc import Mapping

from updates.patches.codec import Codec

# By the decoder that a firmware build has. L reads S too; nobody puts bzip2 beside a decoder of weight patches.
READS: Mapping[str, frozenset[Codec]] = {
    "none": frozenset({Codec.FULL_IMAGE}),
    "bsdiff": frozenset({Codec.FULL_IMAGE, Codec.BSDIFF4}),
    "s": frozenset({Codec.FULL_IMAGE, Codec.WEIGHTS_S}),
    "l": frozenset({Codec.FULL_IMAGE, Codec.WEIGHTS_S, Codec.WEIGHTS_L}),
}
PATCHING = tuple(decoder for decoder, codecs in READS.items() if codecs != {Codec.FULL_IMAGE})
