import os
import threading

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
application = get_wsgi_application()

from fleet.operations.heart import Heart  # noqa: E402 - needs the apps, which the line above loads
from fleet.operations.models import ProcessKind  # noqa: E402

# Never stopped: granian ends its workers without a last word, and the row goes with its age.
Heart(ProcessKind.WEB).beat_on_a_thread(threading.Event())
