"""Ends work between any two of its statements: by an exception that nobody catches, or by SIGKILL of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


class Killed(BaseException):
    """Stands for the end of the process: its connection is closed, so PostgreSQL undoes what was not committed."""


@contextmanager
def at_statement(number: int, strike: Callable[[], None]) -> Iterator[None]:
    """Calls `strike` once, around the statement of this number (from 0) on this thread's connection: an even number
    strikes before statement number / 2, an odd one after it. Commits and rollbacks count as statements.

    Where `strike` raises, no later statement is let through: what catches an error on the way out, as the loop over all
    campaigns does, must not go on working for a process that is no more.
    """
    moments, dead = iter(range(2**62)), False

    def pass_moment() -> None:
        nonlocal dead
        if dead:
            raise Killed
        if next(moments) == number:
            try:
                strike()
            except BaseException:
                dead = True
                raise

    def struck(work: Callable[..., Any], *arguments: Any) -> Any:
        pass_moment()
        result = work(*arguments)
        pass_moment()
        return result

    commit, rollback = connection._commit, connection._rollback
    connection._commit = lambda: struck(commit)
    connection._rollback = lambda: struck(rollback)
    try:
        with connection.execute_wrapper(
            lambda execute, sql, parameters, many, context: struck(execute, sql, parameters, many, context)
        ):
            yield
    finally:
        del connection._commit, connection._rollback
