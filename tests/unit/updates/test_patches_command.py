"""`python -m updates.patches`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.updates.weight_images import fine_tuned, image
from updates.patches.__main__ import main

BASE, LAYOUT = image(1)
TARGET = fine_tuned(BASE, LAYOUT, 2)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "old").write_bytes(BASE)
    (tmp_path / "new").write_bytes(TARGET)
    rows = [{"off": t.offset, "len": t.size, "kind": t.kind, "rows": t.rows, "cols": t.columns} for t in LAYOUT]
    (tmp_path / "layout").write_text(json.dumps({"old": rows, "new": rows}))
    return tmp_path


def command(files: Path, *arguments: str) -> int:
    return main([str(files / word[1:]) if word.startswith("@") else word for word in arguments])


@pytest.mark.parametrize("profile", ["s", "l"])
def test_a_patch_made_is_applied_and_explained(files: Path, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = ("diff", "@old", "@new", "-o", "@patch", "--profile", profile, "--layout", "@layout")
    assert command(files, *made) == 0
    assert command(files, "apply", "@old", "@patch", "-o", "@again") == 0
    assert (files / "again").read_bytes() == TARGET
    assert sorted(path.name for path in files.iterdir()) == ["again", "layout", "new", "old", "patch"]
    capsys.readouterr()
    assert command(files, "info", "@patch") == 0
    said = capsys.readouterr().out
    assert "--base" in said
    assert "at most" in said and " s at 64 MHz" in said
    assert command(files, "info", "@patch", "--base", "@old", "--layout", "@layout") == 0
    said = capsys.readouterr().out
    assert f"profile {profile.upper()}, {(files / 'patch').stat().st_size} bytes" in said
    assert "i8dw at" in said
    assert "bytes of RAM" in said
    assert ("linear" in said) == (profile == "l")


def test_the_tensor_table_makes_the_patch_smaller(files: Path) -> None:
    assert command(files, "diff", "@old", "@new", "-o", "@with", "--layout", "@layout") == 0
    assert command(files, "diff", "@old", "@new", "-o", "@without") == 0
    assert (files / "with").stat().st_size < 0.9 * (files / "without").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diff", "@old", "@absent", "-o", "@patch"), "absent: No such file or directory"),
        (("diff", "@old", "@empty", "-o", "@patch"), "target: 0 bytes, must be 1..16777216"),
        (("diff", "@old", "@new", "-o", "@patch", "--layout", "@old"), "layout: "),
        (("diff", "@old", "@new", "-o", "@patch", "--layout", "@short"), 'layout: "new" must be a list of tensors'),
        (
            ("diff", "@old", "@new", "-o", "@patch", "--layout", "@outside"),
            "layout: tensors end at 9000, the image has",
        ),
        (("diff", "@old", "@new", "-o", "@patch", "--layout", "@crooked"), "3 x 5 i8 is not 16 bytes"),
        (("diff", "@old", "@new", "-o", "@none/patch"), "No such file or directory"),
        (("apply", "@new", "@patch0", "-o", "@again"), "base: "),
        (
            ("apply", "@old", "@new", "-o", "@again"),
            "patch: does not begin with the header of a weight patch, version 1",
        ),
        (("info", "@empty"), "patch: does not begin with the header of a weight patch, version 1"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    files: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def layout(**tensor: object) -> str:
        return json.dumps({"old": [], "new": [{"off": 8984, "len": 16, "kind": "i8", "rows": 2, "cols": 8, **tensor}]})

    (files / "empty").write_bytes(b"")
    (files / "short").write_text('{"old": []}')
    (files / "outside").write_text(layout())
    (files / "crooked").write_text(layout(rows=3, cols=5))
    assert command(files, "diff", "@old", "@new", "-o", "@patch0") == 0
    capsys.readouterr()
    before = sorted(path.name for path in files.iterdir())
    assert command(files, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in files.iterdir()) == before


def test_a_flag_that_does_not_exist_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["diff", "a", "b", "-o", "c", "--profile", "xl"])
    assert stopped.value.code == 2
    assert "invalid choice: 'xl'" in capsys.readouterr().err
