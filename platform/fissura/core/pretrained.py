"""Where a network's starting weights come from: ImageNet through the hub of models, a file, or nowhere."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fissura.core.errors import WeightsError

FILE = "model.safetensors"
LARGEST_FILE_BYTES = 4 * 2**30


@dataclass(frozen=True)
class HubFile:
    """The published weights of the encoder `name`: `model.safetensors` of a repository of the hub; `field` is
    where a recipe asks for them. `licence` is what whoever trained them grants."""

    name: str
    repository: str
    revision: str
    licence: str
    field: str = "model.weights"


@dataclass(frozen=True)
class Hub:
    """Which hub is asked, where its files are kept (None: the hub client's own), and for how long."""

    endpoint: str | None = None
    cache: Path | None = None
    seconds: float = 2.5


@runtime_checkable
class Pretrained(Protocol):
    """A spec of a network that may start from published weights."""

    @property
    def weights(self) -> str:
        """`imagenet`, `none` (random) or the path of a file."""
        ...

    def hub_file(self) -> HubFile:
        """What `imagenet` stands for. Raises WeightsError where the network has no such weights."""
        ...

    def build(self) -> nn.Module:
        """The network. Raises WeightsError: the weights cannot be had or do not fit."""
        ...


def check_weights(*specs: Pretrained, hub: Hub = Hub()) -> None:
    """Whether the weights of all `specs` can be had; nothing is downloaded, no random state moves.

    Hub files that are not on this machine are asked for once, all at the same time, within `hub.seconds` in
    total. A PATH is read and compared with the network.

    Raises:
        WeightsError: one line for each kind of trouble.
    """
    files: list[HubFile] = []
    problems: list[str] = []
    for spec in specs:
        try:
            if spec.weights == "imagenet":
                files.append(spec.hub_file())
            elif spec.weights != "none":
                with torch.random.fork_rng(devices=[]):
                    spec.build()
        except WeightsError as error:
            problems += error.problems
    problems += _hub_problems(files, hub=hub)
    if problems:
        raise WeightsError(*dict.fromkeys(problems))


def starting_tensors(
    spec: Pretrained, *, hub: Hub = Hub(), field: str = "model.weights"
) -> dict[str, Tensor] | None:
    """The tensors that `spec.weights` stands for, by their names in the file; None for `none`. `field` is
    where a recipe has them, for the error.

    Raises:
        WeightsError: the hub's file cannot be had, or the file cannot be read.
    """
    if spec.weights == "none":
        return None
    if spec.weights != "imagenet":
        return _read(Path(spec.weights), field=field)
    file = spec.hub_file()
    problems = _hub_problems([file], hub=hub)
    if problems:
        raise WeightsError(*problems)
    return _read(_kept(file, hub=hub) or _download(file, hub=hub), field=field)


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    own_name: Callable[[str], str | None] = lambda name: name,
    field: str = "model.weights",
) -> None:
    """Copies `tensors` into `module`, every one of whose tensors must be among them.

    `own_name` gives a tensor's name in `module`, or None if it is rightly left out; `source` names the file
    in the error, and `field` where a recipe has it. Counters of batch normalisation (`num_batches_tracked`)
    may be absent, as in older files.

    Raises:
        WeightsError: names or shapes do not fit.
    """
    given = {own: tensor for name, tensor in tensors.items() if (own := own_name(name)) is not None}
    expected = module.state_dict()
    troubles = {
        "lacks": [
            name for name in expected if name not in given and not name.endswith(".num_batches_tracked")
        ],
        "holds the unknown": [name for name in given if name not in expected],
        "has another shape for": [
            f"{name} ({list(given[name].shape)}, not {list(tensor.shape)})"
            for name, tensor in expected.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    found = "; it ".join(f"{trouble} {_some(names)}" for trouble, names in troubles.items() if names)
    if found:
        raise WeightsError(
            f"weights `{source}` do not fit the network: the file {found}; "
            f"give the file of the same network and encoder, or set `{field}` to none"
        )
    for name, tensor in given.items():  # state_dict() shares memory with the module
        expected[name].copy_(tensor)


def _read(path: Path, *, field: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = f"give the path of a .safetensors file, or set `{field}` to imagenet or none"
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar"):
        raise WeightsError(
            f"weights `{path}`: a pickle can run code and is never loaded; convert it where you trust it "
            "(safetensors.torch.save_file(state_dict, 'weights.safetensors')) and give that file"
        )
    if path.suffix != ".safetensors":
        raise WeightsError(f"weights `{path}`: neither imagenet, none nor a .safetensors file; {remedy}")
    if not path.is_file():
        raise WeightsError(f"weights `{path}`: there is no such file; {remedy}")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise WeightsError(f"weights `{path}`: larger than {LARGEST_FILE_BYTES} bytes; {remedy}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights `{path}`: cannot be read ({_reason(error)}); {remedy}") from None


def _hub_problems(files: list[HubFile], *, hub: Hub) -> list[str]:
    """One line for each reason why hub files cannot be had."""
    absent = [file for file in dict.fromkeys(files) if _kept(file, hub=hub) is None]
    by_reason: dict[str, list[HubFile]] = {}
    for file, reason in _ask(absent, hub=hub).items():
        by_reason.setdefault(reason, []).append(file)
    return [_unavailable(group, reason) for reason, group in by_reason.items()]


def _ask(files: list[HubFile], *, hub: Hub) -> dict[HubFile, str]:
    """Why the hub does not give a file, for those that it does not. Takes `hub.seconds` at most."""
    answers: dict[HubFile, str | None] = {}

    def ask(file: HubFile) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        try:
            url = hf_hub_url(file.repository, FILE, revision=file.revision, endpoint=hub.endpoint)
            get_hf_file_metadata(url, timeout=2 * hub.seconds, token=False)
        except Exception as error:
            answers[file] = _reason(error)
        else:
            answers[file] = None

    # A thread each, abandoned at the deadline: a socket's timeout bounds no name look-up or slow drip; it
    # is twice the deadline, so that silence has one wording.
    threads = [threading.Thread(target=ask, args=(file,), daemon=True) for file in files]
    deadline = time.monotonic() + hub.seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silence = f"no answer within {hub.seconds:g} s"
    reasons = {file: answers.get(file, silence) for file in files}
    return {file: reason for file, reason in reasons.items() if reason is not None}


def _kept(file: HubFile, *, hub: Hub) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(file.repository, FILE, cache_dir=hub.cache, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def _download(file: HubFile, *, hub: Hub) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            file.repository,
            FILE,
            revision=file.revision,
            endpoint=hub.endpoint,
            cache_dir=hub.cache,
            etag_timeout=hub.seconds,
            token=False,
        )
    except Exception as error:
        raise WeightsError(_unavailable([file], _reason(error))) from None
    return Path(path)


def _unavailable(files: list[HubFile], reason: str) -> str:
    which = ", ".join(f"{file.name} ({file.repository})" for file in files)
    field = files[0].field
    return (
        f"`{field}: imagenet`: the weights of {which} are not on this machine and the hub does not "
        f"give them ({reason}); set `{field}` to none to start from random weights, or to the path of "
        f"a copy of the repository's {FILE}, or run once where there is a network"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.160}" if lines else type(error).__name__


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
