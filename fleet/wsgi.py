import gc
import os
import threading

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")
application = get_wsgi_application()

import fleet.urls  # noqa: E402, F401 - else the first request loads the pages and the API
from fleet.operations.heart import Heart  # noqa: E402 - needs the apps, which the line above loads
from fleet.operations.models import ProcessKind  # noqa: E402

# Never stopped: granian ends its workers without a last word, and the row goes with its age.
Heart(ProcessKind.WEB).beat_on_a_thread(threading.Event())

# What is loaded by now stays as long as the process: looking through it for garbage held a request up by 0.1 s now and then.
gc.collect()
gc.freeze()
