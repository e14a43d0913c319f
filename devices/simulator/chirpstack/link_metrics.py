"""What ChirpStack tells of a device's radio link, counted by the hour of the wall clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from chirpstack_api import api, common

from devices.simulator.chirpstack.air import Heard

_STEPS = {"HOUR": timedelta(hours=1), "DAY": timedelta(days=1), "MINUTE": timedelta(minutes=1)}


@dataclass
class _Minute:
    packets: int = 0
    rssi: float = 0.0
    snr: float = 0.0
    frequencies: Counter[str] = field(default_factory=Counter)
    data_rates: Counter[str] = field(default_factory=Counter)


class LinkMetrics:
    def __init__(self) -> None:
        self._minutes: dict[datetime, _Minute] = {}

    def add(self, now: datetime, heard: Heard) -> None:
        minute = self._minutes.setdefault(now.replace(second=0, microsecond=0), _Minute())
        minute.packets += 1
        minute.rssi += heard.receptions[0].rssi
        minute.snr += heard.receptions[0].snr
        minute.frequencies[str(heard.frequency)] += 1
        minute.data_rates[str(heard.data_rate)] += 1

    def answer(self, start: datetime, end: datetime, aggregation: str) -> api.GetDeviceLinkMetricsResponse:
        """`aggregation`: HOUR, DAY or MINUTE (a MONTH is given in days)."""
        step = _STEPS.get(aggregation, _STEPS["DAY"])
        first = datetime.min.replace(tzinfo=UTC)
        times = []
        at = first + (start - first) // step * step
        while at <= end:
            times.append(at)
            at += step
        spans = [[minute for when, minute in self._minutes.items() if at <= when < at + step] for at in times]
        counts = [sum(minute.packets for minute in span) for span in spans]

        def mean(name: str) -> list[float]:
            totals = [sum(getattr(minute, name) for minute in span) for span in spans]
            return [total / count if count else 0.0 for total, count in zip(totals, counts, strict=True)]

        def by_label(name: str) -> dict[str, list[float]]:
            labels = sorted({label for span in spans for minute in span for label in getattr(minute, name)})
            return {
                label: [float(sum(getattr(minute, name)[label] for minute in span)) for span in spans]
                for label in labels
            }

        return api.GetDeviceLinkMetricsResponse(
            rx_packets=_metric("Received", times, {"rx_count": [float(count) for count in counts]}, "ABSOLUTE"),
            gw_rssi=_metric("RSSI", times, {"rssi": mean("rssi")}, "GAUGE"),
            gw_snr=_metric("SNR", times, {"snr": mean("snr")}, "GAUGE"),
            rx_packets_per_freq=_metric("Received / frequency", times, by_label("frequencies"), "ABSOLUTE"),
            rx_packets_per_dr=_metric("Received / DR", times, by_label("data_rates"), "ABSOLUTE"),
            errors=_metric("Errors", times, {}, "ABSOLUTE"),
        )


def _metric(name: str, times: list[datetime], rows: dict[str, list[float]], kind: str) -> Any:
    metric = common.Metric(name=name, kind=kind)
    for time in times:
        metric.timestamps.add().FromDatetime(time)
    for label, data in rows.items():
        metric.datasets.add(label=label, data=data)
    return metric
