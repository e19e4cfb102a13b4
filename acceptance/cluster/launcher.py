"""The launcher of a Ray cluster: a server over reserved nodes, on GPUs that are leased there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from acceptance.cluster.agent import boot_id
from acceptance.cluster.nodegpus import NodeGpus
from acceptance.cluster.remote import RemoteCare
from acceptance.cluster.seats import Seats
from acceptance.deployments.nodes import Node, Site, gpu_telemetry
from acceptance.errors import AcceptanceError, InputError
from acceptance.serving.here import LOOPBACK
from acceptance.serving.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from acceptance.deployments.schema import Deployment
    from acceptance.gpus.held import Wanted
    from acceptance.serving.launcher import Care, Ended, Part


class RayLauncher:
    """Of one deployment. ray: the module, connected (see connect.py)."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._seats: Seats | None = None
        self._gpus: tuple[NodeGpus, ...] = ()

    def lease(self, deployment: Deployment, wanted: Wanted, run_dir: Path) -> tuple[NodeGpus, ...]:
        """Reserves the nodes, and leases GPUs on each or on none; they are held, and every server
        is started on them, until release(). Raises AcceptanceError."""
        self.release()
        seats = self._seats = Seats(self._ray, deployment)

        def lease(number: int) -> NodeGpus | AcceptanceError:
            seat, path = seats.taken[number], gpu_telemetry(run_dir, deployment.name, number)
            try:
                name = seat.name(number)
                return NodeGpus(self._ray, seat.agent, name, wanted, seat.offset, path)
            except AcceptanceError as error:
                return error

        try:
            with ThreadPoolExecutor(len(seats.taken)) as pool:
                found = list(pool.map(lease, range(len(seats.taken))))
            self._gpus = tuple(one for one in found if isinstance(one, NodeGpus))
            _all_leased(deployment, found)
        except BaseException:
            self.release()
            raise
        return self._gpus

    def site(self, deployment: Deployment) -> Site:
        if self._seats is not None and self._gpus:
            self._seats.renew()
        else:
            self.release()
            self._seats = Seats(self._ray, deployment)
        gpus = [tuple(gpu.uuid for gpu in one.found.gpus) for one in self._gpus]
        abouts = [seat.about for seat in self._seats.taken]
        head = abouts[0]
        return Site(
            nodes=tuple(
                Node(about.address, about.interface, gpus[number] if gpus else None)
                for number, about in enumerate(abouts)
            ),
            port=head.ports[0],
            host=LOOPBACK if head.boot == boot_id() else head.address,
            meeting=head.ports[1],
        )

    def start(self, parts: Sequence[Part]) -> Care:
        assert self._seats is not None
        seats, stays = iter(enumerate(self._seats.taken)), bool(self._gpus)

        def take(part: Part) -> RemoteCare:
            number, seat = next(seats)
            note = seat.note(number)
            return RemoteCare(self._ray, seat.agent, seat.about, part, note, stays=stays)

        try:
            return _Reserved(Together.start(parts, take), self)
        except BaseException:
            self.retire()
            raise

    def retire(self) -> None:
        """A server has ended: gives the nodes back, unless their GPUs are still leased."""
        if not self._gpus:
            self.release()

    def release(self) -> None:
        """Gives GPUs and nodes back. Safe to call again."""
        for one in self._gpus:
            one.end()
        self._gpus = ()
        if self._seats is not None:
            self._seats.release()
            self._seats = None


class _Reserved(Together):
    """Gives the nodes back at the end."""

    def __init__(self, nodes: Together, launcher: RayLauncher) -> None:
        super().__init__(nodes.nodes)
        self._launcher = launcher

    def end(self, grace: float) -> Ended:
        ended = super().end(grace)
        self._launcher.retire()
        return ended


def _all_leased(deployment: Deployment, found: Sequence[NodeGpus | AcceptanceError]) -> None:
    """Raises the error of the first node that leased nothing, with the words of the others."""
    errors = [one for one in found if isinstance(one, AcceptanceError)]
    if errors:
        errors[0].happened = "\n".join(error.happened for error in errors)
        errors[0].asked = errors[0].asked or f"GPUs of {len(found)} nodes for {deployment.name}"
        raise errors[0]
    owners: dict[str, str] = {}
    for one in found:
        assert isinstance(one, NodeGpus)
        for gpu in one.found.gpus:
            if (owner := owners.setdefault(gpu.uuid, one.name)) != one.name:
                raise InputError(f"{owner} and {one.name} are one host: both have {gpu}")
