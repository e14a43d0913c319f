"""`python -m fleet.embedded run -- COMMAND...` runs a command with PostgreSQL and Redis beside it; `url` prints addresses."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from fleet.embedded.paths import EmbeddedError
from fleet.embedded.services import running, start_services


def run(var: Path, command: list[str], *, durable: bool) -> int:
    """Run `command` with DATABASE_URL and REDIS_URL set; return its exit code, or 128 + signal."""
    # Ctrl-C reaches the command itself, which shares our terminal; SIGTERM is passed on. We end when it ends.
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: object) -> None:
        if child is None:
            raise SystemExit(128 + number)
        if number == signal.SIGTERM:
            child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    services = start_services(var, durable)
    try:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command], env={**os.environ, **services.environment()}
        )
        code = child.wait()
    finally:
        services.stop()
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fleet.embedded", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var"), help="directory of data and logs (default: var)")
    actions = parser.add_subparsers(dest="action", required=True)
    run_parser = actions.add_parser("run", help="start the services, run a command with them, stop them")
    run_parser.add_argument("--not-durable", action="store_true", help="faster; a power cut may lose data: for tests")
    run_parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    actions.add_parser("url", help="print the addresses of running services as shell assignments")
    arguments = parser.parse_args()
    try:
        if arguments.action == "run":
            return run(arguments.var, arguments.command, durable=not arguments.not_durable)
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 1
    services = running(arguments.var)
    if services is None:
        print(f"no services are running for {arguments.var}", file=sys.stderr)
        return 1
    for name, value in services.environment().items():
        print(f"{name}='{value}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
