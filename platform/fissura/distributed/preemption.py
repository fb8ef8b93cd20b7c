"""Preemption of a node: its trials save their state in mid-epoch and resume elsewhere.

Ray's head keeps the list of draining nodes. It learns of one from the watcher of spot notices
(`operations/spot_notice.py`), from `ray start --block` on SIGTERM, as in a Kubernetes pod, or from `ray
drain-node`, and starts nothing more on it.
"""

import time

import ray
from ray._private.worker import global_worker
from ray.exceptions import RayActorError

LOOK_EVERY_SECONDS = 2.0


class Preempted(RayActorError):
    """The actor's node is preempted; Ray Tune then restarts the trial on another node, and does not count a
    failure."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message, preempted=True)


class NodeNotice:
    """Whether the node of this process is being preempted."""

    def __init__(self) -> None:
        self._looked, self._seen = 0.0, False

    def noticed(self) -> bool:
        """Asks Ray's head, every two seconds at most; no answer counts as no notice."""
        now = time.monotonic()
        if not self._seen and now - self._looked >= LOOK_EVERY_SECONDS and ray.is_initialized():
            self._looked = now
            try:
                draining = global_worker.gcs_client.get_draining_nodes()
            except ray.exceptions.RayError:
                return False
            self._seen = ray.get_runtime_context().get_node_id() in draining
        return self._seen
