"""Which GPUs this run may use, and what a deployment lacks on this host.

NVML lists every GPU of the host and knows nothing of CUDA_VISIBLE_DEVICES, so that is applied here.
Indexes mean NVML's, in PCI bus order (nvidia-smi's, and CUDA's under CUDA_DEVICE_ORDER=PCI_BUS_ID).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.errors import InputError
from acceptance.gpus.probe import Gpu, NoNvml, Probe, Unobservable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_KIND = re.compile(r"\b((?:GB|GH|A|B|H|L|P|T|V)\d{1,3}S?)\b")


def kind_of(name: str) -> str:
    """H200 of "NVIDIA H200", H100 of "NVIDIA H100 80GB HBM3"; else the name without its maker."""
    found = _KIND.search(name)
    return found.group(1) if found else name.removeprefix("NVIDIA ").strip()


@dataclass(frozen=True, slots=True)
class Inventory:
    """gpus: what this process may use. notes: why the host's others are not among them, a sentence
    each. on_host: how many GPUs the host has. nvml: why there is no NVML, where there is none."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()
    on_host: int = 0
    nvml: NoNvml | None = None


def take_inventory(
    probe: Probe | NoNvml, environ: Mapping[str, str], spec: str | None = None
) -> Inventory:
    """The GPUs of this host after CUDA_VISIBLE_DEVICES, MIG and `--gpus` had their say.

    environ: usually os.environ. spec: the value of --gpus. Raises InputError for a bad spec.
    """
    if isinstance(probe, NoNvml):
        try:
            choose((), spec)  # a list names GPUs that are not here
        except InputError as error:
            error.cause = str(probe)
            raise
        return Inventory(nvml=probe)
    notes: list[str] = []
    gpus: list[Gpu] = []
    listed = probe.gpus()
    for index, gpu in enumerate(listed):
        if isinstance(gpu, Unobservable):
            notes.append(f"GPU {index} does not answer: {gpu}")
        elif not isinstance(gpu.mig, Unobservable) and gpu.mig:
            notes.append(f"{gpu} is split by MIG: a slice of a GPU is not what is judged here")
        else:
            gpus.append(gpu)
    visible, hidden = visible_gpus(environ, gpus)
    chosen = choose(visible, spec)
    if spec is not None and len(chosen) < len(visible):
        hidden = (*hidden, f"--gpus {spec} leaves out {len(visible) - len(chosen)} of them")
    return Inventory(chosen, (*notes, *hidden), on_host=len(listed))


def visible_gpus(
    environ: Mapping[str, str], gpus: Sequence[Gpu]
) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order, and notes on what it hides.

    Read as CUDA reads it: unset means all; empty, "-1" and "NoDevFiles" mean none; the first entry
    that names no GPU ends the list. Entries: an index, or a UUID or enough of its beginning.
    """
    value = environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return tuple(gpus), ()
    chosen: list[Gpu] = []
    notes: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if entry.startswith("MIG-"):
            notes.append(f"{entry} is a MIG slice: a slice of a GPU is not what is judged here")
            continue
        found = _find(entry, gpus)
        if found is None or found in chosen:
            if value not in ("", "-1", "NoDevFiles"):
                why = "is named twice" if found else "names no usable GPU"
                notes.append(f"{entry or 'an empty entry'} {why}, so CUDA stops reading there")
            break
        chosen.append(found)
    if len(chosen) < len(gpus):
        notes.append(f"CUDA_VISIBLE_DEVICES={value} leaves {len(chosen)} of {len(gpus)}")
    return tuple(chosen), tuple(notes)


def choose(
    gpus: Sequence[Gpu], spec: str | None, *, avoid: Collection[str] = ()
) -> tuple[Gpu, ...]:
    """What `--gpus` allows of the visible GPUs. None allows all.

    spec: a count ("4": at most four, fewer where there are fewer; "0": none), or a list of indexes
    and UUIDs ("0,1", "3,", "GPU-5c1f,GPU-77aa"). avoid: UUIDs that a count takes last, busy ones.
    Raises InputError, naming the GPUs that exist.
    """
    if spec is None:
        return tuple(gpus)
    text = spec.strip()
    if re.fullmatch(r"[0-9]+", text):
        ranked = sorted(gpus, key=lambda gpu: gpu.uuid in avoid)[: int(text)]
        return tuple(gpu for gpu in gpus if gpu in ranked)
    entries = [entry.strip() for entry in text.removesuffix(",").split(",")]
    chosen: list[Gpu] = []
    for entry in entries:
        if entry.startswith("MIG-"):
            raise _refused(spec, f"{entry} is a MIG slice; only whole GPUs are judged", gpus)
        found = _find(entry, gpus)
        if found is None:
            raise _refused(spec, f"{entry!r} names none of the GPUs this run sees", gpus)
        if found in chosen:
            raise _refused(spec, f"{found} is named twice", gpus)
        chosen.append(found)
    return tuple(chosen)


def lacks(kind: str | None, count: int, inventory: Inventory) -> str | None:
    """One sentence on what is missing for `count` GPUs of `kind`, or None where they are here.

    kind None with a count takes any kind; count 0 is a CPU deployment and lacks nothing.
    """
    fitting = [gpu for gpu in inventory.gpus if kind in (None, gpu.kind)]
    if len(fitting) >= count:
        return None
    needs = f"needs {count} {kind or 'GPU' + 's' * (count > 1)}"
    reasons = [str(inventory.nvml)] if inventory.nvml else []
    kinds = Counter(gpu.kind for gpu in inventory.gpus if gpu not in fitting)
    reasons += [f"it has {number} {other}" for other, number in sorted(kinds.items())]
    reasons += inventory.notes
    if not reasons and not inventory.on_host:
        reasons = ["NVML lists no GPU"]
    because = f" ({'; '.join(reasons)})" if reasons else ""
    return f"{needs}, this host has {len(fitting)} of {count}{because}"


def _find(entry: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """The GPU of an index or of a UUID's first part; None where none, or more than one, fits."""
    if re.fullmatch(r"[0-9]+", entry):
        return next((gpu for gpu in gpus if gpu.index == int(entry)), None)
    if not entry.startswith("GPU-") or entry == "GPU-":
        return None
    fitting = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    return fitting[0] if len(fitting) == 1 else None


def _refused(spec: str, why: str, gpus: Sequence[Gpu]) -> InputError:
    exist = "\n    ".join(map(str, gpus)) or "none"
    return InputError(
        f"--gpus {spec} cannot be met: {why}",
        hint=f"a count (4), indexes (0,1) or UUIDs (GPU-...); there are:\n    {exist}",
    )
