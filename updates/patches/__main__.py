"""Make, apply and look into weight patches: `python -m updates.patches diff|apply|info ...`.

Exit code 0: done; 2: bad input, with one line that says what is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from devices.agent.patch_codec import PatchRefused, Profile, decode
from updates.patches.contents import inspect_patch, report
from updates.patches.layout import LayoutInvalid, read_layout
from updates.patches.weight_patch import PatchNotProved, encode_patch


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    try:
        done: str = chosen.run(chosen)
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    except (LayoutInvalid, PatchRefused, PatchNotProved, ValueError) as error:
        return _refuse(str(error))
    print(done)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m updates.patches", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="diff|apply|info")
    diff = commands.add_parser("diff", help="make the patch that turns OLD into NEW")
    diff.add_argument("old", type=Path)
    diff.add_argument("new", type=Path)
    diff.add_argument("-o", "--output", type=Path, required=True, metavar="PATCH")
    diff.add_argument(
        "--profile", choices=("s", "l"), default="l", help="decoder of the node: s takes 1 KB, l 8 KB of RAM"
    )
    diff.add_argument("--layout", type=Path, help="tensor table of raw images in JSON; .tflite files need none")
    diff.set_defaults(run=_diff)
    apply = commands.add_parser("apply", help="turn OLD into the new image")
    apply.add_argument("old", type=Path)
    apply.add_argument("patch", type=Path)
    apply.add_argument("-o", "--output", type=Path, required=True, metavar="NEW")
    apply.set_defaults(run=_apply)
    info = commands.add_parser("info", help="say what is in a patch")
    info.add_argument("patch", type=Path)
    info.add_argument(
        "--base", type=Path, metavar="OLD", help="the image that it is for: shows bytes and mode by tensor"
    )
    info.add_argument("--layout", type=Path, help="tensor table of raw images, to name the tensors")
    info.set_defaults(run=_info)
    return parser


def _diff(chosen: argparse.Namespace) -> str:
    base, target = chosen.old.read_bytes(), chosen.new.read_bytes()
    layouts = None if chosen.layout is None else read_layout(chosen.layout.read_bytes())
    patch = encode_patch(base, target, profile=Profile[chosen.profile.upper()], layouts=layouts)
    _write(chosen.output, patch.data)
    share = 100 * len(patch.data) / len(target)
    return (
        f"{chosen.output}: {len(patch.data)} bytes, {share:.1f} % of the image of {len(target)} bytes, by {patch.way}"
    )


def _apply(chosen: argparse.Namespace) -> str:
    target = decode(chosen.old.read_bytes(), chosen.patch.read_bytes())
    _write(chosen.output, target)
    return f"{chosen.output}: {len(target)} bytes"


def _info(chosen: argparse.Namespace) -> str:
    patch = chosen.patch.read_bytes()
    base = None if chosen.base is None else chosen.base.read_bytes()
    layout = None if chosen.layout is None else read_layout(chosen.layout.read_bytes())[1]
    return report(inspect_patch(patch, base, layout))


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
