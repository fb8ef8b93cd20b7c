"""Starting weights: offline, a silent hub, a hub that answers, and every file that must be refused."""

import json
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from segmentation_models_pytorch.encoders import encoders as library
from torch import nn

from fissura.core.errors import WeightsError
from fissura.models import BackboneUNet, SegFormer, UNet, check_weights
from fissura.models.encoders import MIT, SOURCES, EncoderName, MitSize
from fissura.models.weights import Hub, starting_tensors

ENCODERS: tuple[EncoderName, ...] = get_args(EncoderName)
SMALL = BackboneUNet(encoder="mit_b0", weights="imagenet")


@contextmanager
def listening(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A loopback address whose connections are accepted, then handed to `behave`."""
    open_sockets = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            open_sockets.append(connection)
            threading.Thread(target=behave, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for connection in open_sockets:
                connection.close()


def is_silent(connection: socket.socket) -> None:
    """Accepts and never answers."""


def drips(connection: socket.socket) -> None:
    """Sends a byte of an endless header now and then: each read is in time, the answer never comes."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            connection.sendall(b"z")
            time.sleep(0.05)
    except OSError:
        return


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """A hub on the loopback: each path of `files` with the headers of a hub, 404 for any other."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            return content or b""

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def problems(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(WeightsError) as caught:
        call()
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


class TestWithoutAHub:
    @pytest.mark.parametrize("behave", [is_silent, drips])
    def test_a_hub_that_does_not_answer_costs_three_seconds_at_most(
        self, behave: Callable[[socket.socket], None], tmp_path: Path
    ) -> None:
        specs = [BackboneUNet(encoder=encoder) for encoder in ENCODERS]
        with listening(behave) as endpoint:
            start = time.monotonic()
            (problem,) = problems(lambda: check_weights(*specs, hub=Hub(endpoint=endpoint, cache=tmp_path)))
            assert time.monotonic() - start < 3.5
        assert all(encoder in problem for encoder in ENCODERS)
        assert "no answer within 2.5 s" in problem
        assert "`model.weights` to none" in problem

    def test_reading_says_the_same(self, tmp_path: Path) -> None:
        with listening(is_silent) as endpoint:
            hub = Hub(endpoint=endpoint, cache=tmp_path, seconds=0.3)
            assert problems(lambda: starting_tensors(SMALL, hub=hub)) == problems(
                lambda: check_weights(SMALL, hub=hub)
            )

    def test_nobody_there(self, tmp_path: Path) -> None:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            hub = Hub(endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}", cache=tmp_path)
            (problem,) = problems(lambda: check_weights(SMALL, hub=hub))
        assert "mit_b0 (smp-hub/mit_b0.imagenet)" in problem
        assert "run once where there is a network" in problem

    def test_none_asks_nobody(self, tmp_path: Path) -> None:
        hub = Hub(endpoint="http://127.0.0.1:9", cache=tmp_path, seconds=0.0)
        check_weights(UNet(), BackboneUNet(weights="none"), hub=hub)
        assert starting_tensors(UNet(), hub=hub) is None

    def test_the_plain_unet_has_no_imagenet_weights(self) -> None:
        (problem,) = problems(UNet(weights="imagenet").build)
        assert "never trained on ImageNet" in problem
        assert problems(lambda: check_weights(UNet(weights="imagenet"))) == (problem,)


class TestWithAHub:
    def file_of(self, spec: BackboneUNet) -> str:
        file = spec.hub_file()
        return f"/{file.repository}/resolve/{file.revision}/model.safetensors"

    def test_the_file_is_fetched_once_and_then_needs_no_hub(self, tmp_path: Path) -> None:
        tensors = {"stem": torch.arange(6.0).reshape(2, 3)}
        with serving({self.file_of(SMALL): save(tensors)}) as endpoint:
            hub = Hub(endpoint=endpoint, cache=tmp_path)
            check_weights(SMALL, hub=hub)
            assert list(tmp_path.rglob("*.safetensors")) == []
            fetched = starting_tensors(SMALL, hub=hub)
        check_weights(SMALL, hub=hub)
        offline = starting_tensors(SMALL, hub=hub)
        assert torch.equal(fetched["stem"], tensors["stem"])
        assert torch.equal(offline["stem"], tensors["stem"])

    def test_a_file_that_the_hub_lacks(self, tmp_path: Path) -> None:
        with serving({}) as endpoint:
            hub = Hub(endpoint=endpoint, cache=tmp_path)
            (problem,) = problems(lambda: check_weights(SMALL, hub=hub))
        assert "404" in problem


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


class TestRefusedFiles:
    def refused(self, path: Path) -> str:
        spec = UNet(width=2, depth=1, weights=str(path))
        (problem,) = problems(spec.build)
        assert problems(lambda: check_weights(spec)) == (problem,)
        assert str(path) in problem
        return problem

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pkl"])
    def test_a_pickle_is_never_loaded(self, suffix: str, tmp_path: Path) -> None:
        path, touched = tmp_path / f"weights{suffix}", tmp_path / "touched"
        path.write_bytes(pickle.dumps(Exploit(touched)))
        assert "safetensors.torch.save_file" in self.refused(path)
        assert not touched.exists()

    def test_a_pickle_under_a_false_name(self, tmp_path: Path) -> None:
        path, touched = tmp_path / "weights.safetensors", tmp_path / "touched"
        path.write_bytes(pickle.dumps(Exploit(touched)))
        assert "cannot be read" in self.refused(path)
        assert not touched.exists()

    def test_a_misspelt_word(self) -> None:
        assert "neither imagenet, none nor a .safetensors file" in self.refused(Path("imagnet"))

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "no such file" in self.refused(tmp_path / "absent.safetensors")

    def test_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder.safetensors"
        folder.mkdir()
        assert "no such file" in self.refused(folder)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
    def test_a_torn_file(self, share: float, tmp_path: Path) -> None:
        content = save(UNet(width=2, depth=1).build().state_dict())
        path = tmp_path / "torn.safetensors"
        path.write_bytes(content[: int(len(content) * share)])
        assert "cannot be read" in self.refused(path)

    def test_a_header_that_lies_about_its_length(self, tmp_path: Path) -> None:
        path = tmp_path / "liar.safetensors"
        header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        assert "cannot be read" in self.refused(path)

    def test_tensors_that_do_not_fit_are_all_named(self, tmp_path: Path) -> None:
        state = UNet(width=2, depth=1).build().state_dict()
        state["to_logits.weight"] = torch.zeros(3, 2, 1, 1)
        state["stranger"] = torch.zeros(1)
        del state["to_logits.bias"]
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
        problem = self.refused(path)
        assert "lacks to_logits.bias" in problem
        assert "holds the unknown stranger" in problem
        assert "has another shape for to_logits.weight ([3, 2, 1, 1], not [1, 2, 1, 1])" in problem

    def test_the_file_of_another_encoder(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(nn.Sequential(nn.Linear(2, 2)).state_dict(), path)
        (problem,) = problems(SMALL.model_copy(update={"weights": str(path)}).build)
        assert "and " in problem
        assert "more" in problem

    def test_all_at_once(self, tmp_path: Path) -> None:
        specs = [UNet(weights=str(tmp_path / name)) for name in ("a.pth", "b.safetensors", "a.pth")]
        assert len(problems(lambda: check_weights(*specs))) == 2


def test_checking_moves_no_random_state(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(UNet(width=2, depth=1).build().state_dict(), path)
    before = torch.get_rng_state()
    check_weights(UNet(width=2, depth=1, weights=str(path)))
    assert torch.equal(torch.get_rng_state(), before)


def published(encoder: EncoderName) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A state dict as the hub keeps it, with classifier and all stages, and the names of the first layers."""
    name = SOURCES[encoder].library_name
    if SOURCES[encoder].repository.startswith("timm/"):
        auxiliary = {"aux_logits": True} if encoder == "inception_v3" else {}
        state = timm.create_model(name, **auxiliary).state_dict()
    else:
        entry = library[name]
        state = entry["encoder"](**entry["params"], depth=5).state_dict()
        state |= {f"{SOURCES[encoder].classifier}{end}": torch.zeros(3) for end in ("weight", "bias")}
    return state, list(state)[:4]


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(each, marks=[pytest.mark.slow] if each == "vgg19" else []) for each in ENCODERS],
)
def test_a_published_file_fills_the_encoder_and_nothing_else(encoder: EncoderName, tmp_path: Path) -> None:
    state, first = published(encoder)
    older = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / "model.safetensors"
    save_file(older, path)
    body = BackboneUNet(encoder=encoder, weights=str(path)).build().encoder.body.state_dict()
    assert all(torch.equal(body[name], state[name]) for name in body)
    assert set(first) <= body.keys()


@pytest.mark.parametrize("size", get_args(MitSize))
def test_a_published_file_of_mit_fills_the_encoder_of_segformer(size: MitSize, tmp_path: Path) -> None:
    entry = library[MIT[size].library_name]
    assert entry["pretrained_settings"]["imagenet"] == {
        "repo_id": MIT[size].repository,
        "revision": MIT[size].revision,
    }
    state = entry["encoder"](**entry["params"], depth=5).state_dict()
    path = tmp_path / "model.safetensors"
    save_file(state | {"head.weight": torch.zeros(3), "head.bias": torch.zeros(3)}, path)
    network = SegFormer(size=size, width=4, weights=str(path)).build()
    body = network.encoder.body.state_dict()
    assert body.keys() == state.keys()
    assert all(torch.equal(body[name], state[name]) for name in body)
    assert network.published == frozenset(network.encoder.parameters())


def test_the_first_densenet_names_are_understood(tmp_path: Path) -> None:
    state, _ = published("densenet121")
    path = tmp_path / "model.safetensors"
    save_file({dotted(name): tensor for name, tensor in state.items()}, path)
    body = BackboneUNet(encoder="densenet121", weights=str(path)).build().encoder.body.state_dict()
    assert all(torch.equal(body[name], state[name]) for name in body)


def dotted(name: str) -> str:
    """`denselayer1.norm1.weight` as torchvision once wrote it: `denselayer1.norm.1.weight`."""
    for part in ("norm1", "norm2", "conv1", "conv2"):
        if "denselayer" in name:
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
    return name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_repository_is_the_librarys(encoder: EncoderName) -> None:
    source = SOURCES[encoder]
    if source.repository.startswith("timm/"):
        assert timm.get_pretrained_cfg(source.library_name).hf_hub_id == source.repository
    else:
        settings = library[source.library_name]["pretrained_settings"]["imagenet"]
        assert settings == {"repo_id": source.repository, "revision": source.revision}
