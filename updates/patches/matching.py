"""What in a base image the bytes of a target are predicted from: sequences of ops for the encoder to price.

Three ways: byte by byte at the same place, by the control of bsdiff (C. Percival, "Naive differences of executable code",
2003), and tensor by tensor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import bsdiff4.core
import numpy as np

from devices.agent.patch_codec import OUTPUT_UNIT, Op, OpKind
from updates.patches.layout import Layout, Tensor

# A shorter run of equal bytes costs less as zeros than as an op of its own.
_EQUAL_RUN = 96
_CONTROL_BYTES = 24
# One byte value that fills the image is the worst case of bsdiff's suffix sorting: 4 s at 300 KB (measured).
_CONSTANT_SHARE = 0.9
_LAG_DIVISORS = (25, 49, 3, 5, 2, 4, 6, 7, 8, 10, 16)
_LAG_WORTH = 0.02
# The shortest repeat that is looked for. The shortest worth telling where it was depends on what lies between: all are tried.
_REPEAT_KEY = 5
REPEATS_WORTH = (8, 16)

# What bytes at..at+size of the target come from: an offset in the base, or None.
Segment = tuple[int, int, int | None]


def in_place(base: bytes, target: bytes, segments: Sequence[Segment]) -> list[Op]:
    """Ops for segments that follow each other."""
    return [op for at, size, offset in segments for op in _segment(base, target, at, size, offset)]


def aligned_segments(base: bytes, target: bytes) -> list[Segment]:
    """Every byte from the same place in the base."""
    common = min(len(base), len(target))
    segments: list[Segment] = [(0, common, 0), (common, len(target) - common, None)]
    return [segment for segment in segments if segment[1]]


def bsdiff_segments(base: bytes, target: bytes) -> list[Segment]:
    """As bsdiff matches them; aligned where it would take too long."""
    values = np.frombuffer(base, dtype=np.uint8)
    if not base or np.bincount(values).max() > _CONSTANT_SHARE * len(base):
        return aligned_segments(base, target)
    control, _, _ = bsdiff4.core.diff(base, target)
    segments: list[Segment] = []
    at = offset = 0
    for entry in range(0, len(control), _CONTROL_BYTES):
        add, extra, seek = (bsdiff4.core.decode_int64(control[entry + k : entry + k + 8]) for k in (0, 8, 16))
        segments += [(at, add, offset)] if add else []
        segments += [(at + add, extra, None)] if extra else []
        at, offset = at + add + extra, offset + add + seek
    return segments


def tensor_ops(
    base: bytes, target: bytes, old: Layout, new: Layout, elsewhere: Sequence[Segment]
) -> list[tuple[Op, ...]]:
    """For each stretch of the target the ops to choose from; `elsewhere` tells where bytes outside of tensors come from."""
    steps: list[tuple[Op, ...]] = []
    at = expected = 0
    for before, tensor in _paired(old, new):
        gap = tensor.offset - at
        if gap and base[expected : expected + gap] == target[at : tensor.offset]:
            steps += [(op,) for op in _segment(base, target, at, gap, expected)]
        elif gap:
            pieces = list(_clipped(elsewhere, at, tensor.offset))
            if before is not None and before.offset - expected == gap:
                pieces = [(at, gap, expected)]
            steps += [_generic(op) for op in in_place(base, target, pieces)]
        steps += list(_tensor(base, target, before, tensor))
        at = tensor.offset + tensor.size
        if before is not None:
            expected = before.offset + before.size
    steps += [_generic(op) for op in in_place(base, target, list(_clipped(elsewhere, at, len(target))))]
    return steps


def merged(ops: Sequence[Op]) -> list[Op]:
    """Neighbours that copy neighbouring bytes as one."""
    result: list[Op] = []
    for op in ops:
        size = copied_bytes(op)
        if size and result and copied_bytes(result[-1]) and result[-1].offset + copied_bytes(result[-1]) == op.offset:
            result[-1] = Op(OpKind.COPY, copied_bytes(result[-1]) + size, offset=result[-1].offset)
        else:
            result.append(op)
    return result


def target_bytes(op: Op) -> int:
    """How many bytes of the target an op makes."""
    if op.kind in (OpKind.COPY, OpKind.BYTES, OpKind.LITERAL, OpKind.EARLIER):
        return op.count
    return op.count * op.width if op.width else 4 * op.count


def copied_bytes(op: Op) -> int:
    """How many bytes of the base an op takes over as they are; 0 for other ops."""
    if op.kind == OpKind.COPY:
        return op.count
    if op.kind == OpKind.SAME_WORDS:
        return 4 * op.count
    return op.count * op.width if op.kind in (OpKind.SAME_ROWS, OpKind.SAME_COLUMNS) else 0


def with_repeats(target: bytes, ops: Sequence[Op], worth_telling: int) -> list[Op]:
    """The same ops, but literals that were in the target before are copied from there, if it is so many bytes."""
    result: list[Op] = []
    seen: dict[bytes, int] = {}
    at = indexed = distance = 0
    for op in ops:
        end = at + target_bytes(op)
        if op.kind != OpKind.LITERAL or end - at < _REPEAT_KEY:
            result.append(op)
            at = end
            continue
        begin = at
        while at < end:
            readable = at - at % OUTPUT_UNIT  # what is surely in flash by then
            while indexed + _REPEAT_KEY <= readable:
                seen[target[indexed : indexed + _REPEAT_KEY]] = indexed
                indexed += 1
            source = at - distance
            size = _common(target, source, at, min(end, at + readable - source)) if 0 <= source < readable else 0
            if size < _REPEAT_KEY and (found := seen.get(target[at : at + _REPEAT_KEY])) is not None:
                source = found
                size = _common(target, source, at, min(end, at + readable - source))
            worth = _REPEAT_KEY if at - source == distance else worth_telling
            if size < worth or target[at : at + size].count(target[at]) == size:
                at += 1
                continue
            if begin < at:
                result.append(Op(OpKind.LITERAL, at - begin))
            result.append(Op(OpKind.EARLIER, size, offset=source))
            distance = at - source
            begin = at = at + size
        if begin < end:
            result.append(Op(OpKind.LITERAL, end - begin))
    return result


def _common(data: bytes, first: int, second: int, end: int) -> int:
    """How many bytes from `first` on equal those from `second` on, up to `end` of the second."""
    size, step = 0, 16
    while second + size < end:
        step = min(step, end - second - size)
        if data[first + size : first + size + step] == data[second + size : second + size + step]:
            size += step
        elif step == 1:
            break
        else:
            step = max(1, step // 4)
    return size


def _segment(base: bytes, target: bytes, at: int, size: int, offset: int | None) -> Iterator[Op]:
    if offset is None:
        yield Op(OpKind.LITERAL, size)
        return
    fresh = np.frombuffer(target, np.uint8, size, at) != np.frombuffer(base, np.uint8, size, offset)
    changes = np.flatnonzero(fresh)
    begin = 0
    # Runs of equal bytes lie between changes that are far apart.
    bounds = np.concatenate(([-1], changes, [size]))
    for left in np.flatnonzero(np.diff(bounds) > _EQUAL_RUN):
        run_begin, run_end = int(bounds[left]) + 1, int(bounds[left + 1])
        if run_begin > begin:
            yield Op(OpKind.BYTES, run_begin - begin, offset=offset + begin)
        yield Op(OpKind.COPY, run_end - run_begin, offset=offset + run_begin)
        begin = run_end
    if begin < size:
        kind = OpKind.BYTES if fresh[begin:].any() else OpKind.COPY
        yield Op(kind, size - begin, offset=offset + begin)


def _generic(op: Op) -> tuple[Op, ...]:
    return (op, Op(OpKind.LITERAL, op.count)) if op.kind == OpKind.BYTES else (op,)


def _clipped(segments: Sequence[Segment], begin: int, end: int) -> Iterator[Segment]:
    for at, size, offset in segments:
        first, last = max(at, begin), min(at + size, end)
        if first < last:
            yield first, last - first, None if offset is None else offset + first - at


def _paired(old: Layout, new: Layout) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Each new tensor with the old one that it goes on from: of the same name and kind, else of the same shape in order,
    else of the same kind and width."""
    if [tensor.shape for tensor in old] == [tensor.shape for tensor in new]:
        yield from zip(old, new, strict=True)
        return
    found: dict[int, Tensor] = {}
    named = {(tensor.name, tensor.kind): tensor for tensor in old if tensor.name}
    for index, tensor in enumerate(new):
        if (same := named.get((tensor.name, tensor.kind))) is not None and _fits(same, tensor):
            found[index] = same
    if not found:
        matcher = difflib.SequenceMatcher(None, [t.shape for t in old], [t.shape for t in new], autojunk=False)
        for block in matcher.get_matching_blocks():
            found.update({block.b + k: old[block.a + k] for k in range(block.size)})
    used = {id(tensor) for tensor in found.values()}
    for index, tensor in enumerate(new):
        if index not in found:
            rest = (other for other in old if id(other) not in used and _fits(other, tensor))
            if (other := next(rest, None)) is not None:
                found[index] = other
                used.add(id(other))
    for index, tensor in enumerate(new):
        yield found.get(index), tensor


def _fits(old: Tensor, new: Tensor) -> bool:
    if old.kind != new.kind:
        return False
    return old.columns == new.columns if new.kind == "i8" else old.shape == new.shape if new.kind == "i8dw" else True


def _tensor(base: bytes, target: bytes, before: Tensor | None, tensor: Tensor) -> Iterator[tuple[Op, ...]]:
    if before is None:
        yield _without_base(tensor, tensor.offset, tensor.size)
        return
    size = min(before.size, tensor.size)
    same = base[before.offset : before.offset + size] == target[tensor.offset : tensor.offset + size]
    yield _same(tensor, size, before.offset) if same else _changed(base, target, before, tensor, size)
    if size < tensor.size:
        yield _without_base(tensor, tensor.offset + size, tensor.size - size)


def _without_base(tensor: Tensor, at: int, size: int) -> tuple[Op, ...]:
    literal = Op(OpKind.LITERAL, size)
    if tensor.kind in ("i8", "i8dw"):
        return Op(OpKind.FRESH, size // tensor.columns, tensor.columns), literal
    return (literal,)


def _same(tensor: Tensor, size: int, offset: int) -> tuple[Op, ...]:
    if tensor.kind == "i8":
        return (Op(OpKind.SAME_ROWS, size // tensor.columns, tensor.columns, offset=offset),)
    if tensor.kind == "i8dw":
        return (Op(OpKind.SAME_COLUMNS, tensor.columns, tensor.rows, offset=offset),)
    return (Op(OpKind.SAME_WORDS, size // 4, offset=offset),)


def _changed(base: bytes, target: bytes, before: Tensor, tensor: Tensor, size: int) -> tuple[Op, ...]:
    offset, columns = before.offset, tensor.columns
    if tensor.kind == "i32":
        kinds = OpKind.INTEGERS, OpKind.INTEGERS_RATIO, OpKind.INTEGERS_SCALED
        return tuple(Op(kind, size // 4, offset=offset) for kind in kinds)
    if tensor.kind == "f32":
        return (Op(OpKind.FLOATS, size // 4, offset=offset),)
    fresh = Op(OpKind.FRESH, size // columns, columns)
    literal = Op(OpKind.LITERAL, size)
    if tensor.kind == "i8dw":
        return Op(OpKind.COLUMNS, columns, tensor.rows, offset=offset), fresh, literal
    change = np.frombuffer(target, np.int8, size, tensor.offset) - np.frombuffer(base, np.int8, size, offset)
    inner = _inner_lag(change.reshape(-1, columns).astype(np.float32))
    rows, linear = (Op(kind, size // columns, columns, inner, offset) for kind in (OpKind.ROWS, OpKind.LINEAR))
    return rows, linear, fresh, literal


def _inner_lag(change: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    """How far back in a row the change that this one resembles most lies: in a convolution the same input channel at
    another place of the window. 0: none does."""
    columns = change.shape[1]
    if columns >= 27 and columns % 9 == 0:
        return columns // 9  # a window of 3 x 3, which the decoder expects: nothing to send
    power = float(np.mean(change * change))
    best, lag = _LAG_WORTH, 0
    for divisor in _LAG_DIVISORS:
        step = columns // divisor
        if columns % divisor == 0 and 1 < step < columns:
            likeness = float(np.mean(change[:, step:] * change[:, :-step])) / power
            if likeness > best:
                best, lag = likeness, step
    return lag
