"""Reads uploaded .npz files without trusting them: no pickles, and no allocation before the sizes are proved.

A .npz is a zip of .npy members (NumPy enhancement proposal 1). Both the zip directory and the .npy header declare
sizes; they must agree with each other and with a limit before any array is made, and reading stops at the
declared size.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from updates.pipeline.types import Refused

MAXIMUM_UPLOAD_BYTES = 64 * 1024 * 1024
MAXIMUM_ARRAY_BYTES = 256 * 1024 * 1024  # all arrays of one file, unpacked
MAXIMUM_ARRAYS = 64
_HEADER_ALLOWANCE = 4096
_NAME = re.compile(r"(inputs|labels)(\.[A-Za-z0-9_+%-][A-Za-z0-9_.+%-]{0,63})?")
_INPUT_TYPES = ("float16", "float32", "float64")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Slice:
    """inputs: float32, shape (n, *input shape without batch). labels: int64 (n,), or float32 (n, ...), or None."""

    name: str
    inputs: Floats
    labels: npt.NDArray[np.int64] | Floats | None


def _refuse(code: str, field: str, message: str, fix: str) -> Refused:
    return Refused(stage="arrays", code=code, field=field, message=message, fix=fix)


def read_npz(
    data: bytes, *, field: str, maximum_bytes: int = MAXIMUM_ARRAY_BYTES
) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of an uploaded .npz by name. `field` names the upload in refusals. Raises Refused (stage arrays)."""
    if len(data) > MAXIMUM_UPLOAD_BYTES:
        raise _refuse(
            "too_large", field, f"{len(data)} bytes exceed the limit of {MAXIMUM_UPLOAD_BYTES}", "use fewer samples"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAXIMUM_ARRAYS:
                raise _refuse(
                    "too_many_arrays",
                    field,
                    f"{len(members)} arrays exceed the limit of {MAXIMUM_ARRAYS}",
                    "use fewer slices",
                )
            declared = sum(member.file_size for member in members)
            if declared > maximum_bytes:
                raise _refuse(
                    "too_large",
                    field,
                    f"it unpacks to {declared} bytes, the limit is {maximum_bytes}",
                    "use fewer samples",
                )
            arrays: dict[str, npt.NDArray[np.generic]] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if not _NAME.fullmatch(name) or not member.filename.endswith(".npy") or name in arrays:
                    raise _refuse(
                        "wrong_name",
                        f"{field}: {name[:80]}",
                        "this array name is unknown or doubled",
                        "name the arrays inputs and labels, and further slices inputs.<slice> and labels.<slice>",
                    )
                with archive.open(member) as stream:
                    # One byte more than declared would prove the directory a liar; never read beyond that.
                    content = stream.read(member.file_size + 1)
                if len(content) != member.file_size:
                    raise _refuse(
                        "size_mismatch",
                        f"{field}: {name}",
                        "it unpacks to another size than declared",
                        "write it again with numpy.savez_compressed",
                    )
                arrays[name] = _read_npy(content, f"{field}: {name}")
            return arrays
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        zlib.error,
    ) as error:
        raise _refuse(
            "not_npz", field, f"it is not a readable .npz file ({error})", "write it with numpy.savez_compressed"
        ) from error


def _read_npy(content: bytes, field: str) -> npt.NDArray[np.generic]:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
            version
        ]
        shape, fortran, dtype = read_header(stream, max_header_size=_HEADER_ALLOWANCE)
    except (ValueError, KeyError, EOFError) as error:
        raise _refuse(
            "not_npy", field, f"its .npy header cannot be read ({error})", "write it with numpy.savez_compressed"
        ) from error
    if dtype.hasobject or dtype.kind not in "fiub":
        raise _refuse(
            "wrong_type",
            field,
            f"element type {dtype} is not a plain number (Python objects are never loaded)",
            "store float16, float32 or integers",
        )
    declared, present = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if declared != present:
        raise _refuse(
            "size_mismatch",
            field,
            f"its header declares shape {shape}, {declared} bytes, but {present} bytes follow",
            "write it again with numpy.savez_compressed",
        )
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def slices_of(
    arrays: dict[str, npt.NDArray[np.generic]], *, input_shape: tuple[int, ...], field: str
) -> tuple[Slice, ...]:
    """Checks the arrays against the model's input (shape with batch 1) and pairs inputs with labels.

    The first slice is always "clean" (arrays `inputs`, `labels`), the others follow in order of name. Integer labels
    are class numbers, shape (n,); float labels are wanted outputs. Raises Refused (stage arrays).
    """
    if "inputs" not in arrays:
        raise _refuse("missing_array", f"{field}: inputs", "this array is missing", "add inputs, one row a sample")
    slices = []
    for name in sorted(arrays, key=lambda key: (key != "inputs", key)):
        if not name.startswith("inputs"):
            partner = "inputs" + name.removeprefix("labels")
            if partner not in arrays:
                raise _refuse(
                    "missing_array", f"{field}: {partner}", f"{name} has no inputs", f"add {partner} or drop {name}"
                )
            continue
        suffix = name.removeprefix("inputs")
        inputs = _inputs(arrays[name], input_shape, f"{field}: {name}")
        labels = arrays.get("labels" + suffix)
        slices.append(
            Slice(
                suffix.removeprefix(".") or "clean",
                inputs,
                None if labels is None else _labels(labels, len(inputs), f"{field}: labels{suffix}"),
            )
        )
    return tuple(slices)


def _inputs(array: npt.NDArray[np.generic], input_shape: tuple[int, ...], field: str) -> Floats:
    if array.dtype.name not in _INPUT_TYPES:
        raise _refuse(
            "wrong_type",
            field,
            f"element type {array.dtype} is not a float type",
            "store what the model takes as float16 or float32",
        )
    sample = tuple(input_shape[1:])
    if array.ndim == len(input_shape) + 1 and array.shape[1] == 1:
        array = array.reshape(array.shape[0], *array.shape[2:])  # samples stored with their batch dimension of 1
    if array.shape[1:] != sample or len(array) == 0:
        raise _refuse(
            "wrong_shape",
            field,
            f"shape {array.shape} does not hold samples of the model's input {sample}",
            f"store shape (n, {', '.join(map(str, sample))}) with n of at least 1",
        )
    with np.errstate(over="ignore"):
        inputs = np.ascontiguousarray(array, np.float32)
    bad = ~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
    if bad.any():
        raise _refuse(
            "not_finite",
            field,
            f"{bad.sum()} of {len(inputs)} samples hold NaN, infinite or too large values, the first is sample {bad.argmax()}",
            "remove or repair those samples",
        )
    return inputs


def _labels(array: npt.NDArray[np.generic], n: int, field: str) -> npt.NDArray[np.int64] | Floats:
    if len(array.shape) == 0 or len(array) != n:
        raise _refuse(
            "wrong_shape", field, f"shape {array.shape} does not hold {n} labels, one an input", f"store {n} labels"
        )
    if array.dtype.kind in "iu":
        if array.ndim != 1:
            raise _refuse(
                "wrong_shape",
                field,
                f"class numbers must be one dimension of numbers from 0, not shape {array.shape}",
                "store one class number a sample",
            )
        outside = (array.astype(np.float64) < 0) | (array.astype(np.float64) > 2**31)
        if outside.any():
            first = int(outside.argmax())
            raise _refuse(
                "wrong_shape", field, f"{array[first]} of sample {first} is no class number", "count classes from 0"
            )
        return array.astype(np.int64)
    if array.dtype.name not in _INPUT_TYPES:
        raise _refuse(
            "wrong_type",
            field,
            f"element type {array.dtype} is neither integer nor float",
            "store class numbers or wanted outputs",
        )
    values = np.asarray(array, np.float32)
    if not np.isfinite(values).all():
        raise _refuse("not_finite", field, "it holds NaN or infinite values", "remove or repair those samples")
    return values
