from __future__ import annotations

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "fleet.operations"

    def ready(self) -> None:
        from fleet.operations.multiprocess import name_directory

        name_directory()
        from fleet.operations import checks, wakeups  # noqa: F401 - registers system checks and receivers
