"""The watcher of a spot node: waits for the preemption notice, and tells Ray's head."""

import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import ray
from pydantic import Field
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2

from fissura.core.errors import FissuraError, ResourceError
from fissura.core.progress import Say
from fissura.core.spec import Spec

TOKEN, TOKEN_SECONDS = "/latest/api/token", 21_600
ACTION = "/latest/meta-data/spot/instance-action"
MOST_BYTES = 65_536
ANSWER_SECONDS = 2.0


class SpotNotice(Spec):
    """The sources of the notice: EC2's instance metadata at `endpoint` (version 2: with a session token), and
    the file `notice`, for other clouds: its existence is the notice, and its `{"time": ...}`, if any, the
    time of the preemption.

    Both are polled every `every_seconds`; without a time, the node has `usual_seconds` left, two minutes on
    EC2.
    """

    endpoint: str = Field("http://169.254.169.254", pattern=r"^http://[\w.\[\]:-]+$")
    notice: Path | None = None
    every_seconds: float = Field(5.0, gt=0, le=3600)
    usual_seconds: float = Field(120.0, gt=0, le=86_400)

    def look(self) -> float | None:
        """Seconds until the node is preempted, at least 0; None: there is no notice."""
        for read in (self._from_file, self._from_ec2):
            text = read()
            if text is not None:
                return self._seconds_left(text)
        return None

    def _from_file(self) -> str | None:
        if self.notice is None or not self.notice.is_file():
            return None
        with self.notice.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", errors="replace")

    def _from_ec2(self) -> str | None:
        """The endpoint's response; None without a notice, or without an endpoint, as on other clouds."""
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        token = self._ask(TOKEN, method="PUT", headers=life)
        if token is None:
            return None
        return self._ask(ACTION, method="GET", headers={"X-aws-ec2-metadata-token": token})

    def _ask(self, path: str, *, method: str, headers: dict[str, str]) -> str | None:
        # the pattern of `endpoint` admits http alone
        request = urllib.request.Request(self.endpoint + path, method=method, headers=headers)  # noqa: S310
        # the address is the machine's own: no proxy can know it
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as response:
                return str(response.read(MOST_BYTES).decode("utf-8", errors="replace"))
        except (urllib.error.URLError, OSError):
            return None

    def _seconds_left(self, text: str) -> float:
        try:
            preempted_at = datetime.fromisoformat(json.loads(text)["time"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.usual_seconds
        if preempted_at.tzinfo is None:
            preempted_at = preempted_at.replace(tzinfo=UTC)
        return max(0.0, (preempted_at - datetime.now(UTC)).total_seconds())


def this_node(address: str) -> tuple[str, str]:
    """The head's address and the id of the node that this process runs on, in the cluster at `address`.

    Raises:
        ResourceError: no cluster answers there.
    """
    try:
        with ray.init(address=address, log_to_driver=False, logging_level="error"):
            context = ray.get_runtime_context()
            return context.gcs_address, context.get_node_id()
    except (ConnectionError, ValueError) as error:
        raise ResourceError(
            f"--address {address}: no Ray answers there ({error}); start the watcher after `ray start`, on"
            " the same node"
        ) from None


def drain(gcs_address: str, node: str, *, seconds: float) -> None:
    """Tells Ray's head that `node` is preempted in `seconds`: Ray starts nothing more there, and its trials
    save their state and resume elsewhere.

    Raises:
        FissuraError: the head refused.
    """
    accepted, reason = GcsClient(address=gcs_address).drain_node(
        node,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "the cloud takes this machine away",
        int((time.time() + seconds) * 1000),
    )
    if not accepted:
        raise FissuraError(f"node {node}: Ray's head refused the notice ({reason})")


def watch(source: SpotNotice, *, gcs_address: str, node: str, say: Say) -> float:
    """Waits for the notice and forwards it to Ray's head; returns the seconds left at that time."""
    while (left := source.look()) is None:
        time.sleep(source.every_seconds)
    drain(gcs_address, node, seconds=left)
    say(f"node {node} is taken away in {left:.0f} s: Ray starts nothing more on it, and its trials move")
    return left
