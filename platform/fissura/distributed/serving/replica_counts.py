"""How many replicas each application of the service has, and how many it should have."""

from ray.serve.schema import ServeStatus

from fissura.distributed.serving.replica import APPLICATION, PREFIX
from fissura.serving.hosting import ReplicaCount

ANSWER = {"RUNNING", "PENDING_MIGRATION"}
LEAVE = {"STOPPING", "STOPPED"}


def count_replicas(status: ServeStatus, *, least: int) -> dict[str, ReplicaCount]:
    """The replicas of the service's applications; each version of a model should have at least `least`.

    Ray Serve replaces dead replicas and adds some under load; starting replicas count as wanted too.
    """
    counts = {}
    for name, application in status.applications.items():
        if name != APPLICATION and not name.startswith(PREFIX):
            continue
        healthy = present = 0
        for deployment in application.deployments.values():
            for state, number in deployment.replica_states.items():
                healthy += number if state in ANSWER else 0
                present += number if state not in LEAVE else 0
        floor = 1 if name == APPLICATION else least
        deleting = application.status == "DELETING"
        counts[name] = ReplicaCount(healthy, 0 if deleting else max(present, floor))
    return counts
