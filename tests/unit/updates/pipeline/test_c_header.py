from __future__ import annotations

import subprocess
from pathlib import Path

from updates.pipeline.c_header import HeaderFacts, c_header
from updates.pipeline.guard import Bounds, Confidence, Guard

FACTS = {
    "input_shape": [1, 8, 10, 3], "input_type": "int8", "input_scale": 0.0625, "input_zero_point": -3,
    "output_shape": [1, 4], "output_type": "int8", "output_scale": 1 / 256, "output_zero_point": -128,
}  # fmt: skip
GUARD = Guard(Bounds(-20, 30, 4, 90, 10), Confidence(644, 0.098, 0.10, (0.07, 0.14)))


def header(title: str = "imu 1.0, int8") -> str:
    return c_header(HeaderFacts(title, "ab" * 32, 23_552, 5_536, 32, "0123456789abcdef", "0badcafe", FACTS, GUARD))


def test_the_header_compiles_and_firmware_finds_slot_self_test_guard_and_hooks_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.h").write_text(header(title="a */ title\nof two lines"))
    (tmp_path / "main.c").write_text(
        '#include "model.h"\n'
        "static uint8_t slot[MF_MODEL_BYTES] MF_SLOT_ATTRIBUTE;\n"
        "int mf_fallback(const void *w, size_t n, void *o, size_t c) { (void)w; (void)n; (void)o; (void)c; return 0; }\n"
        "int mf_fast_path(const void *w, size_t n, void *o, size_t c) { (void)w; (void)n; (void)o; (void)c; return 0; }\n"
        "int main(void) {\n"
        "  static const uint8_t digest[] = MF_SELF_TEST_DIGEST;\n"
        "  static const int shape[] = MF_INPUT_SHAPE;\n"
        "  mf_input_t window[MF_INPUT_VALUES] = {0}; mf_output_t out[MF_OUTPUT_VALUES];\n"
        "  if (sizeof digest != 8 || digest[1] != 0x23 || shape[3] != 3 || sizeof window != 240) return 1;\n"
        "  if ((uintptr_t)slot % MF_SLOT_ALIGNMENT || MF_IO_HASH != 0x0badcafe) return 2;\n"
        "  if (MF_CONFIDENCE_THRESHOLD != 644 || MF_BOUND_MEAN_LOW != -20 || MF_BOUND_SATURATED_HIGH != 10) return 3;\n"
        "  return mf_fallback(window, sizeof window, out, MF_OUTPUT_VALUES) + mf_fast_path(window, 1, out, 1);\n"
        "}\n"
    )
    program = tmp_path / "program"

    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program, "main.c"],
        cwd=tmp_path,
        check=True,
    )

    assert subprocess.run([program], check=False).returncode == 0


def test_an_image_without_a_guard_has_a_header_without_one() -> None:
    text = c_header(HeaderFacts("old", "ab" * 32, 1, 16, 16, "00" * 8, "00000000", {}, None))

    assert "MF_BOUND" not in text
    assert "MF_SELF_TEST_DIGEST" in text
