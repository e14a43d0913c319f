"""May only the weights of a compiled network be exchanged? Graph, scales and zero points are in the firmware's code."""

from __future__ import annotations

from updates.pipeline.reports.types import RuntimeReport

_SAME_SETTINGS = "Generate the new network with the settings of the old one."


def swap_refusals(old: RuntimeReport, new: RuntimeReport) -> tuple[str, ...]:
    """Why the weights of `new` may not replace those of `old` in firmware that was built with `old`; empty: they may."""
    reasons = []
    for label, before, after in (
        ("form", old.form, new.form),
        ("run-time", old.runtime, new.runtime),
        ("tool version", old.tool_version, new.tool_version),
        ("chip series", old.series, new.series),
    ):
        if before != after:
            reasons.append(
                f"The {label} is {after or 'not named'}, the firmware has {before or 'none named'}. {_SAME_SETTINGS}"
            )
    if old.form == "relocatable":
        return tuple(reasons)  # code travels with the weights: nothing has to match but where it runs
    if None in (old.graph_digest, new.graph_digest):
        return (
            *reasons,
            "A report does not tell the graph: import network_c_info.json of both and not the text report.",
        )
    if old.graph_digest != new.graph_digest:
        reasons.append("The graph is another one: layers, shapes or memory offsets differ. New firmware is needed.")
    if old.activation_digest != new.activation_digest:
        reasons.append(
            "The scales of activations differ, and they are compiled into the firmware. "
            "Quantize the new weights with the frozen activation parameters of the old network."
        )
    if old.weight_scale_digest != new.weight_scale_digest:
        reasons.append(
            "The scales of weights differ, and they are compiled into the firmware. "
            "Quantize the new weights with the weight scales of the old network."
        )
    if [(one.offset, one.size, one.format) for one in old.weights] != [
        (one.offset, one.size, one.format) for one in new.weights
    ]:
        reasons.append("The weights lie at other offsets. New firmware is needed.")
    return tuple(reasons)


def series_refusal(report: RuntimeReport, *, chip: str) -> str | None:
    """Why a report for a series says nothing of this chip (as in `stm32u545re`); None where it does."""
    if report.runtime != "stm32cubeai" or not report.series or chip.lower().startswith(report.series):
        return None
    if not chip:
        return f"The report was generated for {report.series}, and the profile names no chip: set its chip."
    return f"The report was generated for {report.series}, the profile's chip is {chip}: generate it for that chip's series."
