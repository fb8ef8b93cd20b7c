"""The same predictor behind LitServe: `python litserve_server.py RUN PORT WORKERS`."""

import base64
import sys
from pathlib import Path

import litserve
from bare import Bare
from starlette.responses import Response


class Api(litserve.LitAPI):
    """A photograph in base64 to the PNG of its mask."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run

    def setup(self, device: str) -> None:
        self.bare = Bare(self._run, 1)

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, photograph: bytes) -> bytes:
        return self.bare(photograph)

    def encode_response(self, picture: bytes) -> Response:
        return Response(picture, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(Path(sys.argv[1])), accelerator="cpu", workers_per_device=int(sys.argv[3])
    )
    server.run(
        port=int(sys.argv[2]),
        host="127.0.0.1",
        generate_client_file=False,
        log_level="error",
        num_api_servers=1,
    )
