"""Asking NVML one question at a time, and taking a refusal for what it is.

Calls are serialised by one lock, because nvmlShutdown while another thread is inside a call frees
what that call reads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from acceptance.gpus.probe import Observed, Unobservable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_NAMES: dict[object, str] = {}


def error_name(pynvml: Any, error: Exception) -> str:
    """The constant's name of an NVMLError, `NVML_ERROR_GPU_IS_LOST`."""
    code = getattr(error, "value", None)
    if code not in _NAMES:  # once for each: searching a large module costs more than NVML's answer
        names = (name for name in dir(pynvml) if name.startswith("NVML_ERROR_"))
        _NAMES[code] = next(
            (name for name in names if getattr(pynvml, name) == code), f"NVML_ERROR {code}"
        )
    return _NAMES[code]


class Asking:
    """Holds NVML initialised until close(). Safe to share between threads."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        self._lock = threading.RLock()
        self._open = True
        self._handles: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Shuts NVML down once no reader is inside it; later questions are Unobservable.

        A call that hangs in the driver is left alone after 5 s: the process's end frees it too.
        """
        if not self._lock.acquire(timeout=5):
            return
        try:
            if self._open:
                self._open = False
                self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            pass  # nothing is left that a caller could do about it
        finally:
            self._lock.release()

    def ask(self, what: str, question: Callable[[Any], T]) -> Observed[T]:
        """Asks the module of nvidia-ml-py something that is of no single GPU."""
        return self._ask(what, lambda: question(self._nvml))

    def _of(self, what: str, uuid: str, ask: Callable[[Any], T]) -> Observed[T]:
        """Asks one GPU. Its handle is kept until an answer cannot be had: a GPU that was lost may
        come back under another."""
        answer = self._ask(f"{what} of {uuid}", lambda: ask(self._handle(uuid)))
        if isinstance(answer, Unobservable):
            self._handles.pop(uuid, None)
        return answer

    def _handle(self, uuid: str) -> Any:
        if uuid not in self._handles:
            self._handles[uuid] = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        return self._handles[uuid]

    def _ask(self, what: str, ask: Callable[[], T]) -> Observed[T]:
        with self._lock:
            if not self._open:
                return Unobservable(f"{what}: NVML was shut down", "NVML_ERROR_UNINITIALIZED")
            try:
                return ask()
            except self._nvml.NVMLError as error:
                return Unobservable(f"{what}: {error}", error_name(self._nvml, error))
            except self._nvml.NVMLLibraryMismatchError:
                return Unobservable(
                    f"{what}: the driver's library is too old for this nvidia-ml-py",
                    "NVML_ERROR_FUNCTION_NOT_FOUND",
                )
