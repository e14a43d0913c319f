"""One build at work: its directory, its children, and what each image was shown."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from updates.pipeline import child, guard, slices
from updates.pipeline.choice import choose
from updates.pipeline.imaging import judge_image, make_image
from updates.pipeline.quantize import quantized
from updates.pipeline.types import (
    BuildRequest,
    Choice,
    Fit,
    Flip,
    HeldClass,
    Image,
    Profile,
    Refused,
    SliceResult,
    TargetClass,
    ValidationReport,
)
from updates.pipeline.validate import OUTLINES, Floats, compare, outline, task_of, unproved, validate

# Children at a time: each peaks well below 500 MB, and the smallest server has two cores.
SIDE_BY_SIDE = 2
_T = TypeVar("_T")
Begin = Callable[[str], None]


@dataclass
class Bench:
    """One build in its directory: what all target classes share lies there, each has a room of its own below."""

    directory: Path
    request: BuildRequest
    begin: Begin

    def images(self) -> tuple[tuple[Image, ...], tuple[tuple[TargetClass, str], ...]]:
        """The images, and the target classes of which none could be made. Raises Refused where there is no image."""
        request, directory = self.request, self.directory
        (directory / "model.onnx").write_bytes(request.onnx)
        (directory / "calibration.npz").write_bytes(request.calibration)
        (directory / "evaluation.npz").write_bytes(request.evaluation)
        self.begin("check")
        model = child.run("check", "updates.pipeline.check:stage", directory, {"task": request.task})
        self.slices: list[dict[str, Any]] = model["slices"]
        _check_signal(request, model["input_shape"])
        self.begin("convert")
        self.layout = child.run(
            "convert", "updates.pipeline.convert:stage", directory, {"operators": model["operators"]}
        )
        self.begin("calibrate")
        uploaded = self.layout | {"slices": len(self.slices)}
        rooms = [room_below(directory, name) for name in ("baseline", "calibrate")]
        tasks: list[Callable[[Begin], dict[str, Any]]] = [
            lambda _: child.run("check", "updates.pipeline.slices:baseline_stage", rooms[0], uploaded),
            lambda _: child.run("quantize", "updates.pipeline.quantize:calibrate_stage", rooms[1], self.layout),
        ]
        # What exists is not quantized anew.
        for done in side_by_side(tasks if request.targets else tasks[:1], self.begin):
            if isinstance(done, Refused):
                raise done
            if "latency_ms" in done:
                p50, p99 = done["latency_ms"]
                self.latency_ms = (float(p50), float(p99))
        bring_out(rooms, directory)
        return self._image_of_each_target()

    def _image_of_each_target(self) -> tuple[tuple[Image, ...], tuple[tuple[TargetClass, str], ...]]:
        indices = list(range(len(self.slices)))
        wanted: list[tuple[TargetClass, bytes | None]] = [(one.target, one.data) for one in self.request.existing]
        wanted += [(target, None) for target in self.request.targets]

        def make(target: TargetClass, data: bytes | None, number: int) -> Callable[[Begin], Image]:
            room = room_below(self.directory, f"target-{number}")
            shown = (self.layout, indices, self.request.preprocessing)
            if data is None:
                return lambda begin: make_image(room, target, *shown, begin)
            return lambda begin: judge_image(room, target, data, *shown, begin)

        made = side_by_side([make(*one, number) for number, one in enumerate(wanted)], self.begin)
        images: dict[str, Image] = {}
        left_out: list[tuple[TargetClass, str]] = []
        self.rooms: dict[str, Path] = {}
        for number, ((target, _), image) in enumerate(zip(wanted, made, strict=True)):
            if isinstance(image, Refused):
                left_out.append((target, str(image)))
            elif image.digest in images:
                twin = images[image.digest].target
                left_out.append((target, f"It is byte for byte the image of {twin.precision}, {twin.granularity}."))
            else:
                images[image.digest] = image
                self.rooms[image.digest] = self.directory / f"target-{number}"
        if not images:
            raise next(one for one in made if isinstance(one, Refused))
        return tuple(images.values()), tuple(left_out)

    def prove(
        self, images: Sequence[Image], fits: dict[str, tuple[Fit, ...]]
    ) -> tuple[tuple[Choice, ...], dict[str, ValidationReport]]:
        """Who gets what, and the reports. An image is shown perturbed samples once somebody would get it; it may lose
        its place by what comes out, so the choice is made anew until it stands."""
        reports = {image.digest: self._report(image, self.slices) for image in images}
        proved: set[str] = set()
        by_digest = {image.digest: image for image in images}
        contract = contract_of(images, self.request.contract)

        def chosen() -> tuple[Choice, ...]:
            return tuple(
                choose(profile, images, fits, reports, contract=contract, held=self._held(profile))
                for profile in self.request.profiles
            )

        while True:
            choices = chosen()
            wanted = {choice.digest or choice.alternatives[0].digest for choice in choices} or {images[0].digest}
            if wanted <= proved:
                break
            for digest in sorted(wanted - proved):
                reports[digest] = self.proved(by_digest[digest])
                proved.add(digest)
        for digest in reports.keys() - proved:
            reports[digest] = unproved(reports[digest])
        return chosen(), reports

    def _held(self, profile: Profile) -> HeldClass | None:
        against = self.request.against
        return self.request.held.get(profile.name, against.held if against else None)

    def proved(self, image: Image) -> ValidationReport:
        """Of an image that was shown the uploaded slices, and is shown the perturbed ones now if it was not before."""
        self._show_perturbed(image)
        return self._report(image, self.slices)

    def _show_perturbed(self, image: Image) -> None:
        """Files int8-<i>.npy of the perturbed slices, which are made when the first image asks for them."""
        uploaded = len([one for one in self.slices if not one.get("perturbed")])
        if len(self.slices) == uploaded:
            clean = len(np.load(self.directory / "inputs-0.npy", mmap_mode="r"))
            macs = sum(one.macs for one in image.work)
            arguments = self.layout | {
                "signal": asdict(self.request.signal),
                "first": uploaded,
                "taken": [one["name"] for one in self.slices],
                "samples": slices.perturbed_samples(clean, macs=macs, least=int(self.request.limits.minimum_samples)),
            }
            made = child.run("validate", "updates.pipeline.slices:perturb_stage", self.directory, arguments)
            self.slices = [*self.slices, *made["slices"]]
        room = self.rooms[image.digest]
        indices = list(range(uploaded, len(self.slices)))
        if all((room / f"int8-{index}.npy").exists() for index in indices):
            return

        def decide(part: int) -> Callable[[Begin], Any]:
            own = room_below(self.directory, f"{room.name}-perturbed-{part}")
            (own / "image.tflite").write_bytes(image.data)
            arguments = self.layout | {"slices": indices[part::SIDE_BY_SIDE], "arena_bytes": image.arena_bytes}
            return lambda _: child.run("validate", "updates.pipeline.judge:decide_stage", own, arguments)

        for part, done in enumerate(side_by_side([decide(part) for part in range(SIDE_BY_SIDE)], self.begin)):
            if isinstance(done, Refused):
                raise done
            bring_out([self.directory / f"{room.name}-perturbed-{part}"], room)

    def _report(self, image: Image, shown: list[dict[str, Any]]) -> ValidationReport:
        room = self.rooms[image.digest]
        results: list[SliceResult] = []
        for index, part in enumerate(shown):
            if not (room / f"int8-{index}.npy").exists():
                continue
            labels = np.load(self.directory / f"labels-{index}.npy") if part["labels"] else None
            inputs = np.load(self.directory / f"inputs-{index}.npy")
            found = compare(
                part["name"],
                np.load(self.directory / f"fp32-{index}.npy"),
                np.load(room / f"int8-{index}.npy"),
                labels,
                self.request.limits,
                inputs=slices.moved(inputs, self.layout["input_order"]),
                task=self.request.task,
                perturbed=bool(part.get("perturbed")),
                threshold=results[0].threshold_fp32 if results else None,
            )
            found = replace(found, flips=self._drawn(found, inputs))
            results.append(self._of_clean(found) if found.perturbed else found)
        return validate(results)

    def _drawn(self, found: SliceResult, inputs: Floats) -> tuple[Flip, ...]:
        axis = self.request.signal.time_axis
        first = [replace(one, outline=outline(inputs[one.index], axis)) for one in found.flips[:OUTLINES]]
        return (*first, *found.flips[OUTLINES:])

    def guard(self, image: Image) -> guard.Guard:
        """From the clean slice, whose inputs are what the firmware will see."""
        inputs = slices.moved(np.load(self.directory / "inputs-0.npy"), self.layout["input_order"])
        windows = quantized(inputs, image.input_type, image.input_scale, image.input_zero_point)
        outputs = np.load(self.rooms[image.digest] / "int8-0.npy")
        labels = np.load(self.directory / "labels-0.npy") if self.slices[0]["labels"] else None
        task = self.request.task or task_of(labels, outputs[0].size, inputs[0].size)
        known = labels if task == "classification" and labels is not None and labels.dtype.kind == "i" else None
        return guard.propose(windows, outputs.reshape(len(outputs), -1), known)

    def _of_clean(self, found: SliceResult) -> SliceResult:
        """Flipped samples by their index in the clean slice, of which a perturbed one may have a part only."""
        kept = np.load(self.directory / "perturbed-rows.npy")
        flips = tuple(replace(one, index=int(kept[one.index])) for one in found.flips)
        return replace(found, flips=flips)


def contract_of(images: Sequence[Image], known: frozenset[str] | None) -> frozenset[str] | None:
    """What `choose` takes for the request's contract."""
    if known is None or any(image.io_hash in known for image in images):
        return known
    return frozenset([images[0].io_hash])


def _check_signal(request: BuildRequest, input_shape: list[int]) -> None:
    axis, rank = request.signal.time_axis, len(input_shape) - 1
    if axis is not None and not 0 <= axis < rank:
        raise Refused(
            stage="arrays",
            code="signal",
            field="signal.time_axis",
            message=f"{axis} is no dimension of a sample, which has shape {input_shape[1:]} without batch",
            fix=f"use 0 to {rank - 1}, or leave it out where no dimension is time",
        )


def room_below(directory: Path, name: str) -> Path:
    """A directory below that sees the files of this one."""
    room = directory / name
    room.mkdir()
    for path in directory.iterdir():
        if path.is_file():
            (room / path.name).symlink_to(path)
    # These are each child's own; through a link they would be its neighbour's.
    for name in ("arguments.json", "result.json", "stderr"):
        (room / name).unlink(missing_ok=True)
    return room


def bring_out(rooms: Iterable[Path], directory: Path) -> None:
    """What children made in their rooms goes to where all can see it."""
    for room in rooms:
        for path in room.iterdir():
            if (
                path.is_file()
                and not path.is_symlink()
                and path.name not in ("arguments.json", "result.json", "stderr")
            ):
                path.replace(directory / path.name)


def side_by_side(tasks: Sequence[Callable[[Begin], _T]], begin: Begin) -> list[_T | Refused]:
    """Results in the order of the tasks, a refusal in the place of its result. Each task may say that a stage begins;
    `begin` hears of it in this thread."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ended(future: Future[_T | Refused]) -> None:
        said.put(None)

    def run(task: Callable[[Begin], _T]) -> _T | Refused:
        try:
            return task(said.put)
        except Refused as refused:
            return refused

    with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="pipeline") as pool:
        futures = [pool.submit(run, task) for task in tasks]
        for future in futures:
            future.add_done_callback(ended)
        left = len(futures)
        while left:
            stage = said.get()
            if stage is None:
                left -= 1
            else:
                begin(stage)
        return [future.result() for future in futures]
