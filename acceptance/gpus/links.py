"""How a GPU is connected: PCIe, NVLink, and to its peers."""

from __future__ import annotations

from typing import Any

from acceptance.gpus.asking import Asking
from acceptance.gpus.probe import NvLinks, Observed, Pcie, Unobservable


class Links(Asking):
    """The part of a Probe that asks about connections."""

    def pcie(self, uuid: str) -> Observed[Pcie]:
        def lanes(handle: Any) -> Pcie:
            return Pcie(
                self._nvml.nvmlDeviceGetCurrPcieLinkWidth(handle),
                self._nvml.nvmlDeviceGetMaxPcieLinkWidth(handle),
            )

        return self._of("PCIe lanes", uuid, lanes)

    def nvlinks(self, uuid: str) -> Observed[NvLinks]:
        """A link that is not there answers Not Supported or Invalid Argument; when none is there,
        that is the answer."""
        states: dict[int, bool] = {}
        refused: Unobservable | None = None
        for link in range(self._nvml.NVML_NVLINK_MAX_LINKS):
            state = self._link(uuid, link)
            if not isinstance(state, Unobservable):
                states[link] = state
            elif refused is None or not _absent(state):
                refused = state
        if refused is not None and not (states and _absent(refused)):
            return refused
        return NvLinks(
            tuple(link for link, up in states.items() if up),
            tuple(link for link, up in states.items() if not up),
        )

    def _link(self, uuid: str, link: int) -> Observed[bool]:
        ask, enabled = self._nvml.nvmlDeviceGetNvLinkState, self._nvml.NVML_FEATURE_ENABLED
        return self._of(
            f"state of NVLink {link}", uuid, lambda handle: bool(ask(handle, link) == enabled)
        )

    def p2p(self, uuid: str, other: str) -> Observed[bool]:
        def readable(handle: Any) -> bool:
            peer = self._nvml.nvmlDeviceGetHandleByUUID(other)
            status = self._nvml.nvmlDeviceGetP2PStatus(
                handle, peer, self._nvml.NVML_P2P_CAPS_INDEX_READ
            )
            return bool(status == self._nvml.NVML_P2P_STATUS_OK)

        return self._of(f"peer access to {other}", uuid, readable)


def _absent(answer: Unobservable) -> bool:
    return answer.error in ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_INVALID_ARGUMENT")
