"""Xids are told once, by GPU, and a registration that is refused is not health."""

from __future__ import annotations

import pynvml
import pytest
from gpus_fake_nvml import FakeGpu, FakePynvml, h200s

from acceptance.gpus.events import Events, GpuEvent
from acceptance.gpus.nvml import Nvml, open_nvml
from acceptance.gpus.probe import Unobservable


def listening(gpus: list[FakeGpu]) -> tuple[FakePynvml, Events]:
    module = FakePynvml(gpus)
    probe = open_nvml(module)
    assert isinstance(probe, Nvml)
    return module, Events(probe, [gpu.uuid for gpu in gpus])


def test_an_xid_is_told_once_and_names_its_gpu() -> None:
    gpus = h200s(4)
    module, events = listening(gpus)
    assert events.poll() == []
    module.happen(gpus[2], 79)
    assert events.poll() == [GpuEvent(gpus[2].uuid, "xid", 79)]
    assert events.poll() == []


def test_a_gpu_that_no_longer_says_who_it_is_still_counts() -> None:
    gpus = h200s(1)
    module, events = listening(gpus)
    module.happen(gpus[0], 79)
    gpus[0].lost = True
    assert events.poll() == [GpuEvent("", "xid", 79)]


@pytest.mark.parametrize(
    ("event", "hardware"),
    [
        (GpuEvent("GPU-0", "xid", 79), True),  # fallen off the bus
        (GpuEvent("GPU-0", "xid", 48), True),  # double-bit ECC
        (GpuEvent("GPU-0", "xid", 31), False),  # a wild access of a kernel
        (GpuEvent("GPU-0", "xid", 13), False),
        (GpuEvent("GPU-0", "double_bit_ecc", 0), True),
    ],
)
def test_whose_fault_an_event_is(event: GpuEvent, hardware: bool) -> None:
    assert event.hardware is hardware
    assert ("hardware" if hardware else "software") in str(event)
    assert "GPU-0" in str(event)


def test_a_refused_registration_is_told_for_its_gpu_alone() -> None:
    gpus = h200s(2)
    gpus[1].errors["nvmlDeviceRegisterEvents"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    module, events = listening(gpus)
    assert events.registered[gpus[0].uuid] == ("xid", "double_bit_ecc")
    refused = events.registered[gpus[1].uuid]
    assert isinstance(refused, Unobservable)
    assert refused.error == "NVML_ERROR_NOT_SUPPORTED"
    module.happen(gpus[0], 48)
    module.happen(gpus[1], 48)
    assert events.poll() == [GpuEvent(gpus[0].uuid, "xid", 48)]


def test_events_end_with_their_block() -> None:
    module, events = listening(h200s(1))
    with events:
        assert module.registered
    assert not module.registered
    assert isinstance(events.poll(), Unobservable)
