"""The verb `spot_watch`, as a function: runs on a cluster's nodes beside the work."""

from fissura.api.arguments import AnyPath
from fissura.core.progress import Say, silent


def spot_watch(
    *,
    endpoint: str = "http://169.254.169.254",
    notice: AnyPath | None = None,
    every_seconds: float = 5.0,
    address: str = "auto",
    node: str | None = None,
    say: Say = silent,
) -> float:
    """Waits for the notice that this node (or the one with Ray's id `node`) is preempted, and tells Ray's
    head, so that its trials save their state and resume elsewhere; returns the seconds left.

    The notice comes from EC2's instance metadata at `endpoint`, or is the file `notice`.
    """
    from fissura.distributed.environment import prepare_environment

    prepare_environment(address)
    from fissura.operations.spot_notice import SpotNotice, this_node, watch

    source = SpotNotice.load(
        {
            "endpoint": endpoint,
            "notice": None if notice is None else str(notice),
            "every_seconds": every_seconds,
        },
        source="spot-watch",
    )
    head, here = this_node(address)
    return watch(source, gcs_address=head, node=node or here, say=say)
