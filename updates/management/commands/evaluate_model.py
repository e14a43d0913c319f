from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from updates.evaluation import (
    BadInput,
    is_bad_input,
    read_base,
    read_limits,
    read_profiles,
    read_reports,
    with_linker_map,
    write_images,
)
from updates.pipeline.build import build
from updates.pipeline.document import document, refused
from updates.pipeline.post_pass import contract_of
from updates.pipeline.types import TASKS, BuildRequest, Profile, Refused, Signal, ValidationLimits
from updates.profiles import targets_for
from updates.radio_costs import transfer
from updates.runtime_reports import with_reports

PASSED, NOT_PASSED, BAD_INPUT = 0, 1, 2


class Command(BaseCommand):
    help = (
        "May this model run on these profiles? Quantizes, fits and validates it, without database or broker. "
        "Exit status: 0 fits and passes on every profile, 1 does not, 2 bad input. docs/evaluation.md"
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", type=Path, metavar="MODEL.onnx")
        parser.add_argument("--calibration", type=Path, required=True, metavar="C.npz", help="array inputs")
        parser.add_argument(
            "--evaluation",
            type=Path,
            required=True,
            metavar="E.npz",
            help="arrays inputs and labels, further slices as inputs.<slice> and labels.<slice>",
        )
        parser.add_argument(
            "--profiles", type=Path, required=True, metavar="P.yaml", help="a list with the fields of hardware profiles"
        )
        parser.add_argument("--against", type=Path, metavar="BASE.tflite", help="the image that most nodes hold")
        parser.add_argument("--images", type=Path, metavar="DIR", help="write each image there")
        parser.add_argument(
            "--json", type=Path, metavar="FILE", help="write the whole evidence there; - for the screen"
        )
        parser.add_argument("--limits", type=Path, metavar="L.yaml", help="what the model's owner accepts")
        for option, says in (
            ("--report", "of ST Edge AI or TVM on the new network, for a profile of that runtime"),
            ("--deployed-report", "that the firmware was built with: may the weights alone be exchanged?"),
            ("--validation-report", "of stedgeai validate"),
            ("--linker-map", "of the firmware: its RAM and what it keeps replace the profile's figures"),
        ):
            parser.add_argument(option, action="append", default=[], metavar="PROFILE=FILE", help=says)
        parser.add_argument("--task", choices=TASKS, help="told from the labels where it is left out")
        parser.add_argument("--time-axis", type=int, help="which dimension of a sample is time, from 0, without batch")
        parser.add_argument("--sample-rate-hz", type=float, help="along the time axis")
        parser.add_argument("--mains-hz", type=float, default=50.0)
        parser.add_argument("--preprocessing", default="none", help="name of what the firmware does to raw data")

    def handle(self, **options: Any) -> None:
        try:
            found = self._evaluate(options)
        except BadInput as error:
            raise CommandError(str(error), returncode=BAD_INPUT) from error
        text = json.dumps(found, indent=1, allow_nan=False)
        if str(options["json"]) == "-":
            self.stdout.write(text)
        else:
            if options["json"]:
                _write(options["json"], text)
            self._summary(found)
        if found["verdict"] != "passed":
            sys.exit(NOT_PASSED)

    def _evaluate(self, options: dict[str, Any]) -> dict[str, Any]:
        profiles = read_profiles(_text(options["profiles"], "--profiles"), source="--profiles")
        given = {
            option: _by_profile(options[option], profiles, f"--{option.replace('_', '-')}")
            for option in ("report", "deployed_report", "validation_report", "linker_map")
        }
        profiles = tuple(with_linker_map(one, given["linker_map"].get(one.name)) for one in profiles)
        limits = read_limits(_text(options["limits"], "--limits")) if options["limits"] else ValidationLimits()
        reports = read_reports(given, profiles, limits)
        for name in ("images", "json"):
            _check_place(options[name], f"--{name}", directory=name == "images")
        request = BuildRequest(
            onnx=_bytes(options["model"], "MODEL.onnx"),
            calibration=_bytes(options["calibration"], "--calibration"),
            evaluation=_bytes(options["evaluation"], "--evaluation"),
            targets=targets_for(profiles),
            profiles=profiles,
            limits=limits,
            preprocessing=options["preprocessing"],
            task=options["task"],
            signal=_signal(options),
        )
        if options["against"]:
            base = read_base(_bytes(options["against"], "--against"), source="--against")
            # Nodes that run the base have firmware for its inputs and outputs.
            contract = contract_of(base.base, options["preprocessing"])
            request = replace(request, against=base, contract=frozenset((contract,)))
        try:
            result = build(request, self._progress)
        except Refused as refusal:
            if is_bad_input(refusal):
                raise BadInput(str(refusal)) from refusal
            return refused(refusal, profiles=profiles)
        files = {}
        if options["images"]:
            files = write_images(result, options["images"], stem=options["model"].stem)
        found = document(result, profiles=profiles, files=files, transfer=transfer)
        return with_reports(found, reports, result.reports) if reports else found

    def _progress(self, stage: str, fraction: float) -> None:
        self.stderr.write(f"{fraction:4.0%} {stage}")

    def _summary(self, found: dict[str, Any]) -> None:
        for image in found["images"]:
            whose = f", for {', '.join(image['chosen_for'])}" if image["chosen"] else ""
            self.stdout.write(
                f"image {image['digest'][:12]} {image['precision']} {image['granularity']}: {image['bytes']} bytes, "
                f"arena {image['arena_bytes']}{whose}"
            )
        for target in found["left_out"]:
            self.stdout.write(f"left out {target['precision']} {target['granularity']}: {target['reason']}")
        for report in found["validation"]:
            for part in report["slices"]:
                noise = "equal" if part["sqnr_db"] is None else f"{part['sqnr_db']:.1f} dB"
                self.stdout.write(
                    f"slice {report['digest'][:12]} {part['name']}: {part['verdict']}, n = {part['n']}, {noise}"
                )
        for fit in found["fits"]:
            says = "fits" if fit["fits"] else " ".join(fit["reasons"])
            self.stdout.write(f"fit {fit['digest'][:12]} on {fit['profile']}: {says}")
        for point in found["curve"]:
            self.stdout.write(
                f"{'chosen' if point['chosen'] else 'point '} {point['digest'][:12]}: patch {point['patch_bytes']} bytes, "
                f"{point['frames']} frames, {point['hours']} h, {point['metric']} {point['value']:.4f} (loss "
                f"{point['loss']:.4f}{'' if point['within_limit'] else ', beyond the limit'})"
            )
        if found["curve_refusal"]:
            self.stdout.write(f"against the deployed image: {found['curve_refusal']}")
        for reason in found["reasons"]:
            self.stdout.write(reason)
        self.stdout.write(f"verdict: {found['verdict']}")


def _by_profile(given: list[str], profiles: tuple[Profile, ...], option: str) -> dict[str, bytes]:
    names = [profile.name for profile in profiles]
    found = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or name not in names:
            raise BadInput(f"{option}: {one}: it names no profile; write PROFILE=FILE with one of {', '.join(names)}")
        found[name] = _bytes(Path(path), option)
    return found


def _signal(options: dict[str, Any]) -> Signal:
    try:
        return Signal.of({name: options[name] for name in ("time_axis", "sample_rate_hz", "mains_hz")})
    except ValueError as error:
        raise BadInput(str(error)) from error


def _bytes(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{option}: {path}: {error.strerror}; give a file that can be read") from error


def _text(path: Path, option: str) -> str:
    try:
        return _bytes(path, option).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{option}: {path}: it is not text in UTF-8; save it as such") from error


def _check_place(path: Path | None, option: str, *, directory: bool) -> None:
    """Before minutes of work, not after."""
    if path is None or str(path) == "-":
        return
    wrong = path.exists() and path.is_dir() != directory
    if wrong or not (directory or path.parent.is_dir()):
        what = "directory" if directory else "file in a directory that exists"
        raise BadInput(f"{option}: {path}: it is no {what}; give one")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise BadInput(f"--json: {path}: {error.strerror}; give a place that can be written") from error
