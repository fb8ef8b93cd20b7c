"""A node that is to be taken away: its trials save their state in mid-epoch and go on elsewhere.

Ray's head is the one place that knows of it, whoever told it: the watcher of spot notices
(`operations/spot_notice.py`), `ray start --block` that got SIGTERM, as in a Kubernetes pod, or `ray
drain-node`. It starts nothing more on such a node.
"""

import time

import ray
from ray._private.worker import global_worker
from ray.exceptions import RayActorError

LOOK_EVERY_SECONDS = 2.0


class Preempted(RayActorError):
    """The actor's node is to be taken away; Ray Tune then runs the trial anew on another node, and does not
    count that as a failure."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message, preempted=True)


class NodeNotice:
    """Whether the node that this process is on is to be taken away."""

    def __init__(self) -> None:
        self._looked, self._seen = 0.0, False

    def noticed(self) -> bool:
        """Asks Ray's head, every two seconds at most; a head that does not answer has said nothing."""
        now = time.monotonic()
        if not self._seen and now - self._looked >= LOOK_EVERY_SECONDS and ray.is_initialized():
            self._looked = now
            try:
                draining = global_worker.gcs_client.get_draining_nodes()
            except ray.exceptions.RayError:
                return False
            self._seen = ray.get_runtime_context().get_node_id() in draining
        return self._seen
