"""Events that NVML tells once, as they happen: Xids and double-bit ECC errors.

NVML keeps none from before the registration, so register before the server starts. A registration
that is refused means that events cannot be observed, not that there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from acceptance.gpus.probe import Observed, Unobservable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acceptance.gpus.asking import Asking

_KINDS = {
    "xid": "nvmlEventTypeXidCriticalError",
    "double_bit_ecc": "nvmlEventTypeDoubleBitEccError",
}
# Xids that an application's own fault raises (NVIDIA's catalogue; the same set that
# NVIDIA/k8s-device-plugin passes over): a wild access in a kernel is vLLM's, not the GPU's.
SOFTWARE_XIDS = frozenset({13, 31, 43, 45, 68, 109})
_TIMEOUT = "NVML_ERROR_TIMEOUT"  # the usual answer: nothing has happened


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """kind: "xid" or "double_bit_ecc". code: the Xid's number. uuid: empty where it is not told."""

    uuid: str
    kind: str
    code: int

    @property
    def hardware(self) -> bool:
        """Whether the GPU or its host is at fault, and not what ran on it."""
        return self.kind != "xid" or self.code not in SOFTWARE_XIDS

    def __str__(self) -> str:
        what = f"Xid {self.code}" if self.kind == "xid" else self.kind.replace("_", " ")
        whose = "hardware" if self.hardware else "software"
        return f"{what} ({whose}) on {self.uuid or 'a GPU that NVML does not name'}"


class Events:
    """Events of some GPUs from now on. registered: UUID -> kinds that will be told."""

    def __init__(self, nvml: Asking, uuids: Sequence[str]) -> None:
        self._nvml = nvml
        self._set = nvml.ask("an event set", lambda module: module.nvmlEventSetCreate())
        self.registered = {uuid: self._register(uuid) for uuid in uuids}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not isinstance(self._set, Unobservable):
            held = self._set
            self._nvml.ask("freeing the event set", lambda module: module.nvmlEventSetFree(held))
            self._set = Unobservable("events: no longer listened to")

    def poll(self) -> Observed[list[GpuEvent]]:
        """What has happened since the last poll; empty when nothing has. Never waits."""
        found: list[GpuEvent] = []
        if isinstance(self._set, Unobservable):
            return self._set
        if all(isinstance(kinds, Unobservable) for kinds in self.registered.values()):
            return found  # registered says so; asking would be refused for ever
        held = self._set
        while len(found) < 100:
            told = self._nvml.ask(
                "events", lambda module: _event(module, module.nvmlEventSetWait_v2(held, 0))
            )
            if isinstance(told, Unobservable):
                return found if told.error == _TIMEOUT or found else told
            found.append(told)
        return found

    def _register(self, uuid: str) -> Observed[tuple[str, ...]]:
        if isinstance(self._set, Unobservable):
            return self._set
        held = self._set
        kinds: list[str] = []
        refused: Unobservable | None = None
        for kind, name in _KINDS.items():

            def register(module: Any, name: str = name) -> None:
                handle = module.nvmlDeviceGetHandleByUUID(uuid)
                module.nvmlDeviceRegisterEvents(handle, getattr(module, name), held)

            answer = self._nvml.ask(f"registering for {kind} events of {uuid}", register)
            if isinstance(answer, Unobservable):
                refused = answer if refused is None else refused
            else:
                kinds.append(kind)
        return refused if refused is not None and "xid" not in kinds else tuple(kinds)


def _event(module: Any, data: Any) -> GpuEvent:
    kind = next((kind for kind, name in _KINDS.items() if getattr(module, name) == data.eventType))
    try:
        uuid = str(module.nvmlDeviceGetUUID(data.device))
    except module.NVMLError:
        uuid = ""  # a GPU that has fallen off the bus no longer says who it is
    return GpuEvent(uuid, kind, int(data.eventData))
