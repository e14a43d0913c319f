"""Ten thousand nodes in one campaign keep the limits of the campaign core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_thousand_nodes_keep_the_limits_of_the_engine() -> None:
    # A process of its own: the benchmark makes its own database on the servers that DATABASE_URL and REDIS_URL name.
    command = [sys.executable, "-m", "tests.benchmarks", "campaigns", "--n", "10000"]
    benchmark = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert benchmark.returncode == 0, benchmark.stdout + benchmark.stderr
