# One image; docker-compose.yml gives each service its command.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt requirements-convert.txt ./
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt \
    && .venv/bin/pip install --no-cache-dir --no-deps --ignore-requires-python --require-hashes -r requirements-convert.txt
COPY . .
RUN .venv/bin/python -m devices.agent.build

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/modelfleet --create-home modelfleet
COPY --from=build /app /app
WORKDIR /app
USER modelfleet
ENV PATH=/app/.venv/bin:$PATH MODELFLEET_VAR=/var/lib/modelfleet PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Any key will do here: static files are not signed, and the value does not stay in the image.
RUN SECRET_KEY=collectstatic python manage.py collectstatic --noinput
CMD ["granian", "--interface", "wsgi", "--respawn-failed-workers", "--host", "0.0.0.0", "--port", "8000", "fleet.wsgi:application"]
