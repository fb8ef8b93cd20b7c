"""What the service counts of itself, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fissura.serving.gate import Gate

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Telemetry:
    """The counters of one process that answers requests."""

    def __init__(self, gate: Gate) -> None:
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
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "fissura_waiting_images": ("Images that wait or are worked on.", lambda: gate.images),
            "fissura_waiting_seconds": ("Seconds that these will take.", lambda: gate.seconds_ahead),
            "fissura_refused_requests": ("Requests refused because too much waited.", lambda: gate.refused),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)
