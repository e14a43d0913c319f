"""What the command `evaluate_model` reads and says; the work itself is the pipeline's. No database."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from django.core.exceptions import ValidationError
from django.db import models

from devices import linker_map
from devices.models import HardwareProfile
from updates.pipeline.post_pass import ALIGNMENTS
from updates.pipeline.reports.types import ReportInvalid
from updates.pipeline.types import Against, BuildResult, Profile, Refused, TargetClass, ValidationLimits
from updates.radio_costs import against
from updates.runtime_reports import ProfileReports, profile_reports

MAXIMUM_PROFILES = 100
# Refusals of a sound model that cannot run on a microcontroller; all others of these stages are of bad input.
_INPUT_STAGES = ("check", "arrays")
_CANNOT_RUN = ("data_dependent_operator", "unsupported_operator", "random_operator", "local_function")


class BadInput(Exception):
    """`str()` is one line that names the field and the fix."""


def is_bad_input(refused: Refused) -> bool:
    return (refused.stage in _INPUT_STAGES and refused.code not in _CANNOT_RUN) or refused.code == "labels"


def read_profiles(text: str, *, source: str) -> tuple[Profile, ...]:
    """A YAML list of tables with the field names of `devices.HardwareProfile`; what is left out has its default.

    Raises BadInput.
    """
    rows = _yaml(text, source)
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{source}: it is no list of profiles; begin each with '- name: ...'")
    if len(rows) > MAXIMUM_PROFILES:
        raise BadInput(f"{source}: {len(rows)} profiles, at most {MAXIMUM_PROFILES} are judged at once; split the file")
    profiles = [_profile(row, index, source) for index, row in enumerate(rows, start=1)]
    for index, profile in enumerate(profiles):
        if profile.name in [one.name for one in profiles[:index]]:
            raise BadInput(f"{source}: name: {profile.name!r} is given twice; give each profile its own name")
    return tuple(profiles)


def _yaml(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise BadInput(f"{source}: it is not YAML ({said}); mend that place") from error


def _profile(row: Any, index: int, source: str) -> Profile:
    where = f"{source}: profile {index}"
    if not isinstance(row, Mapping):
        raise BadInput(f"{where}: {row!r} is no table of fields; begin it with '- name: ...'")
    fields: dict[str, models.Field[Any, Any]] = {
        field.name: field for field in HardwareProfile._meta.get_fields() if isinstance(field, models.Field)
    }
    del fields["id"]
    defaults = {field.name: field.default for field in dataclasses.fields(Profile)} | {"name": f"profile-{index}"}
    values: dict[str, Any] = {}
    for name, value in row.items():
        if name not in fields:
            raise BadInput(f"{where}: {name!r} is no field of a hardware profile; use {', '.join(fields)}")
        values[name] = _value(fields[name], value, f"{where}: {name}")
    for name, field in fields.items():
        default = field.default if field.has_default() else defaults.get(name)
        values.setdefault(name, default)
    _check_sizes(values, where)
    kept = {field.name for field in dataclasses.fields(Profile)}
    return Profile(**{name: value for name, value in values.items() if name in kept})


def _value(field: models.Field[Any, Any], value: Any, where: str) -> Any:
    if field.name == "name":
        if not isinstance(value, str) or not 0 < len(value) <= 64:
            raise BadInput(f"{where}: {value!r} is no name; give 1 to 64 characters")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        raise BadInput(f"{where}: {value!r} is no single value; give a number or a word")
    if isinstance(value, float) and isinstance(field, models.IntegerField) and not value.is_integer():
        raise BadInput(f"{where}: {value!r} is no whole number; give one")
    try:
        return field.clean(value, None)
    except ValidationError as error:
        choices = f"; use {', '.join(str(key) for key, _ in field.choices)}" if field.choices else "; correct it"
        raise BadInput(f"{where}: {value!r}: {' '.join(error.messages).rstrip('.')}{choices}") from error


def _check_sizes(values: Mapping[str, Any], where: str) -> None:
    if values["reserved_sram_bytes"] >= values["sram_bytes"]:
        raise BadInput(
            f"{where}: reserved_sram_bytes: {values['reserved_sram_bytes']} leaves nothing of {values['sram_bytes']} "
            "bytes of SRAM; reserve less"
        )
    for name in ("slot_bytes", "alignment", "clock_hz", "slot_read_bytes_per_second"):
        if values[name] <= 0:
            raise BadInput(f"{where}: {name}: {values[name]} is too small; give at least 1")
    for name in ("alignment", "cache_line_bytes"):
        if values[name] not in (0, 1, 2, *ALIGNMENTS):
            raise BadInput(f"{where}: {name}: {values[name]} cannot be reached; use {', '.join(map(str, ALIGNMENTS))}")


def read_limits(text: str, *, source: str = "--limits") -> ValidationLimits:
    """A YAML table of `ValidationLimits`. Raises BadInput."""
    given = _yaml(text, source)
    if not isinstance(given, Mapping):
        raise BadInput(f"{source}: it is no table of limits; write e.g. minimum_agreement: 0.95")
    try:
        return ValidationLimits.of(given)
    except ValueError as error:
        raise BadInput(f"{source}: {error}") from error


def with_linker_map(profile: Profile, data: bytes | None) -> Profile:
    """The profile with the RAM of the firmware's own map, and what it keeps of it. Raises BadInput."""
    if data is None:
        return profile
    try:
        found = linker_map.read(data)
    except linker_map.LinkerMapInvalid as error:
        raise BadInput(f"--linker-map: {profile.name}: {error}") from error
    return dataclasses.replace(profile, sram_bytes=found.sram_bytes, reserved_sram_bytes=found.reserved_bytes)


def read_reports(
    given: Mapping[str, Mapping[str, bytes]], profiles: tuple[Profile, ...], limits: ValidationLimits
) -> list[ProfileReports]:
    """given: files by option and profile. Raises BadInput."""
    found = []
    for option in ("deployed_report", "validation_report"):
        for name in given[option].keys() - given["report"].keys():
            raise BadInput(f"--{option.replace('_', '-')}: {name} has no --report; give that of the new network too")
    for profile in profiles:
        if profile.name not in given["report"]:
            continue
        try:
            found.append(
                profile_reports(
                    profile,
                    report=given["report"][profile.name],
                    deployed=given["deployed_report"].get(profile.name),
                    validation=given["validation_report"].get(profile.name),
                    limits=limits,
                )
            )
        except ReportInvalid as error:
            raise BadInput(f"--report: {profile.name}: {error}") from error
    return found


def read_base(data: bytes, *, source: str) -> Against:
    """The deployed image, and the patches of the strongest decoder against it. Raises BadInput."""
    if data[4:8] != b"TFL3":
        raise BadInput(f"{source}: it is no .tflite image; give the bytes of the slot that the nodes hold")
    try:
        return against(data)
    except ValueError as error:
        raise BadInput(f"{source}: {error}; give the bytes of the slot that the nodes hold") from error


def write_images(result: BuildResult, directory: Path, *, stem: str) -> dict[str, str]:
    """Writes each image and each point of the curve, and returns the names of the files by digest."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    named = {image.digest: (_class(image.target), image.data) for image in result.images}
    for number, point in enumerate(result.curve):
        named.setdefault(point.digest, (f"near-{number}", point.data))
    for digest, (name, data) in named.items():
        files[digest] = f"{stem}-{name}.tflite"
        (directory / files[digest]).write_bytes(data)
    return files


def _class(target: TargetClass) -> str:
    return f"{target.precision}-{target.granularity}-{target.alignment}"
