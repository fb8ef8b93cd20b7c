"""The service's metrics for Prometheus."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fissura.serving.gate import Gate
from fissura.serving.hosting import ReplicaCount

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


Replicas = Callable[[], Mapping[str, ReplicaCount]]


class ReplicaGauges(Collector):
    """The replicas of each application at the time of a scrape; removed applications are left out."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The healthy and the wanted replicas."""
        healthy = GaugeMetricFamily(
            "fissura_replicas_healthy", "Replicas that answer.", labels=("application",)
        )
        wanted = GaugeMetricFamily(
            "fissura_replicas_wanted", "Replicas that there should be.", labels=("application",)
        )
        for application, count in self._replicas().items():
            healthy.add_metric((application,), count.healthy)
            wanted.add_metric((application,), count.wanted)
        return healthy, wanted


class RefusedConnections(Collector):
    """Connections refused before they became a request, or because none came in time; the listener counts
    in `refused`."""

    def __init__(self, refused: Mapping[str, int]) -> None:
        self._refused = refused

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The number for each reason."""
        family = CounterMetricFamily(
            "fissura_refused_connections", "Connections refused or closed.", labels=("reason",)
        )
        for reason, count in self._refused.items():
            family.add_metric((reason,), count)
        return [family]


class Telemetry:
    """The metrics of one HTTP process and of its replicas.

    Ray Serve's own do not suffice: they miss images sent over a socket, report a replica's health ten seconds
    late, and are not exported by a Ray of one machine.
    """

    def __init__(self, gate: Gate, replicas: Replicas, refused: Mapping[str, int] | None = None) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "fissura_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "fissura_request_seconds",
            "Seconds from a request to its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.images = Counter(
            "fissura_images", "Images answered.", ("model", "outcome"), registry=self._registry
        )
        self.pixels = Counter("fissura_pixels", "Pixels answered.", ("model",), registry=self._registry)
        self.replica_seconds = Summary(
            "fissura_replica_seconds",
            "Seconds that a replica took for an image.",
            ("model", "version"),
            registry=self._registry,
        )
        self._registry.register(ReplicaGauges(replicas))
        self._registry.register(RefusedConnections(refused if refused is not None else {}))
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "fissura_waiting_images": ("Images that wait or are worked on.", lambda: gate.images),
            "fissura_waiting_seconds": ("Seconds that these will take.", lambda: gate.seconds_ahead),
            "fissura_refused_requests": ("Requests refused because too much waited.", lambda: gate.refused),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)
