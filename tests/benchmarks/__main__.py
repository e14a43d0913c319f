"""Runs one benchmark and holds its figures to limits: `python -m tests.benchmarks NAME [--n N] [--models DIR] [--json FILE]`.

A benchmark is a module beside this one with `run(n: int | None) -> dict[str, float]`, which measures (`n` is its size;
None means its usual one; one that takes networks from files has a second argument `models: Path | None`), and
`LIMITS: dict[str, tuple[str, float]]` such as `{"tick_max_s": ("<=", 1.0)}`; what else is asked of such networks it says in
`limits_with(models: Path)`.
Exit code 0: every limit is kept; 1: a figure misses its limit or is absent; 2: no such benchmark.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import operator
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tests.benchmarks

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def keeps(figure: float | None, limit: tuple[str, float]) -> bool:
    """Whether a figure is there, is a number, and keeps its limit."""
    sign, bound = limit
    return figure is not None and not math.isnan(figure) and COMPARE[sign](figure, bound)


def table(figures: Mapping[str, float], limits: Mapping[str, tuple[str, float]]) -> str:
    """One row a figure: name, value, limit and whether it is kept. Figures without a limit only inform."""
    rows = [("figure", "value", "limit", "")]
    for name in [*figures, *(name for name in limits if name not in figures)]:
        value = f"{figures[name]:.6g}" if name in figures else "absent"
        if name not in limits:
            rows.append((name, value, "", ""))
            continue
        sign, bound = limits[name]
        verdict = "kept" if keeps(figures.get(name), limits[name]) else "MISSED"
        rows.append((name, value, f"{sign} {bound:g}", verdict))
    names, values, bounds = (max(len(row[column]) for row in rows) for column in range(3))
    return "\n".join(f"{n:<{names}}  {v:>{values}}  {b:<{bounds}}  {verdict}".rstrip() for n, v, b, verdict in rows)


def known() -> list[str]:
    """Names of the benchmarks that there are."""
    return sorted(
        module.name for module in pkgutil.iter_modules(tests.benchmarks.__path__) if not module.name.startswith("_")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="benchmark to run")
    parser.add_argument("--n", type=int, help="size; each benchmark has its usual one")
    parser.add_argument("--models", type=Path, metavar="DIR", help="further networks, where the benchmark takes some")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write name, figures and limits here")
    chosen = parser.parse_args(arguments)
    if chosen.name not in known():
        print(f"no benchmark {chosen.name!r}; there are: {', '.join(known()) or 'none yet'}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"tests.benchmarks.{chosen.name}")
    limits: dict[str, tuple[str, float]] = module.LIMITS
    more = {}
    if chosen.models is not None:
        if not hasattr(module, "limits_with"):
            print(f"benchmark {chosen.name} brings its own networks: leave --models out", file=sys.stderr)
            return 2
        more = {"models": chosen.models}
        limits = limits | module.limits_with(chosen.models)
    figures: dict[str, float] = module.run(chosen.n, **more)
    print(table(figures, limits))
    if chosen.json is not None:
        record = {"name": chosen.name, "figures": figures, "limits": {name: list(limits[name]) for name in limits}}
        chosen.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(keeps(figures.get(name), limit) for name, limit in limits.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
