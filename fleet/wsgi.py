import atexit
import os
import threading

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
application = get_wsgi_application()

from fleet.operations.heart import Heart  # noqa: E402 - needs the apps, which the line above loads
from fleet.operations.models import ProcessKind  # noqa: E402

_stopping = threading.Event()
_heart = Heart(ProcessKind.WEB).beat_on_a_thread(_stopping)


def _end() -> None:
    _stopping.set()
    _heart.join(timeout=2)


atexit.register(_end)
