"""What people type about hardware, firmware and a single node. Values are judged by the models; errors name the fix."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.forms.models import fields_for_model

from devices.links.lorawan.fragmentation import Dialect
from devices.models import FirmwareBuild, HardwareProfile, LinkKind
from frontend.forms import StyledForm
from frontend.node_forms import DescribeForm


class ModelFieldsForm(StyledForm):
    """Fields of a model, with its defaults: `labels` names them in their order, `hints` says more than the model."""

    model: Any
    labels: dict[str, str]
    hints: dict[str, str] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        made = fields_for_model(self.model, fields=list(self.labels), labels=self.labels)
        # Those that a class below declares itself keep their place in the order.
        declared = dict(self.fields)
        self.fields = {name: declared.get(name) or made[name] for name in self.labels}
        for name, field in self.fields.items():
            field.label, field.help_text = self.labels[name], self.hints.get(name, field.help_text)
        self.style()


class ProfileForm(ModelFieldsForm):
    model = HardwareProfile
    labels = {
        "name": "Name",
        "core": "Core",
        "chip": "Chip",
        "clock_hz": "Clock, Hz",
        "slot_bytes": "Model slot, bytes",
        "sram_bytes": "SRAM, bytes",
        "reserved_sram_bytes": "Reserved SRAM, bytes",
        "arena_fraction": "Arena, share of the rest",
        "runtime": "Runtime",
        "kernel_library": "Kernels",
        "rtos": "RTOS",
        "alignment": "Alignment, bytes",
        "flash_erase_bytes": "Flash erase unit, bytes",
        "flash_write_bytes": "Flash write unit, bytes",
        "cache_line_bytes": "Cache line, bytes",
        "slot_read_bytes_per_second": "Slot memory speed, bytes/s",
        "latency_deadline_ms": "Latency deadline, ms",
        "battery_joules": "Battery, J",
        "radio_joules_per_kibibyte": "Radio energy, J/KiB",
    }
    hints = {
        "name": "Letters, digits and hyphens, such as stm32l4.",
        "chip": "Part number, such as stm32l476rg.",
        "cache_line_bytes": "0: no cache.",
        "slot_bytes": "One of the two slots: 262144 is 256 KiB.",
        "reserved_sram_bytes": "What the RTOS and the application keep.",
        "arena_fraction": "Of the SRAM that is not reserved; 0.7 leaves room for stacks that grow.",
        "latency_deadline_ms": "Empty: none.",
        "battery_joules": "Empty: not known.",
        "radio_joules_per_kibibyte": "Empty: plans tell no energy.",
    }


class Words(forms.CharField):
    """Words apart by commas or spaces, as a list."""

    def clean(self, value: Any) -> list[str]:
        return [word for word in re.split(r"[\s,]+", super().clean(value)) if word]


class FirmwareBuildForm(ModelFieldsForm):
    model = FirmwareBuild
    labels = {
        "name": "Name",
        "operators": "Operators",
        "io_hash": "I/O contract",
        "runtime": "Runtime",
        "agent_version": "Agent version",
        "decoder_profile": "Patch decoder",
        "decoder_ram_bytes": "Decoder RAM, bytes",
        "arena_bytes": "Arena, bytes",
        "forward_error_correction": "Parity of fragments",
        "key_ids": "Signing keys",
    }
    hints = {
        "name": "Letters, digits and hyphens.",
        "io_hash": "8 hex digits; a version's page shows those of its images.",
        "arena_bytes": "Fixed when the firmware was built. Empty: the profile's limit counts.",
        "decoder_ram_bytes": "What the patch decoder may take.",
    }
    operators = Words(
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Names of the built-in operators: CONV_2D, FULLY_CONNECTED, SOFTMAX.",
    )
    forward_error_correction = forms.ChoiceField(
        required=False,
        choices=[("", "not said: ts004-v1"), *((one.value, one.value) for one in Dialect)],
        help_text="LoRaWAN only. The wrong one gives blocks that the signature refuses.",
    )
    key_ids = Words(
        required=False, max_length=100, help_text="Ids of the public keys in it, two at most. Empty: not known."
    )


class NodeForm(DescribeForm):
    field_order = ["endpoint", "link", "profile", "firmware_build", "site", "labels", "time_zone"]

    endpoint = forms.CharField(max_length=64, help_text="LwM2M endpoint name, or the DevEUI of a LoRaWAN node.")
    link = forms.ChoiceField(choices=LinkKind.choices)
    profile = forms.ModelChoiceField(HardwareProfile.objects.all(), label="Hardware profile", empty_label="choose one")
    firmware_build = forms.ModelChoiceField(
        FirmwareBuild.objects.all(), required=False, empty_label="not known", help_text="Without it nothing is sent."
    )
    time_zone = forms.CharField(
        required=False, max_length=64, help_text="Of its site, for windows in local time: Europe/Berlin. Empty: UTC."
    )

    def clean_firmware_build(self) -> str:
        build = self.cleaned_data["firmware_build"]
        return build.name if build else ""
