from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class AccountsConfig(AppConfig):
    name = "fleet.accounts"

    def ready(self) -> None:
        from fleet.accounts.sessions import start_clocks

        user_logged_in.connect(start_clocks, dispatch_uid="fleet.accounts.start_clocks")
