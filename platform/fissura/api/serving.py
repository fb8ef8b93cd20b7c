"""The verbs for served models, as functions."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fissura.api.arguments import AnyPath, Paths, maybe_path, path_of, paths_of, texts_of
from fissura.core.errors import DataError, SpecError
from fissura.core.files import check_writable
from fissura.core.progress import Say, silent

LOADING_SECONDS = 600.0  # that a new version may take to be served

if TYPE_CHECKING:
    from fissura.distributed.serving.replica import Replicas, Version


def serve(
    runs: Paths = (),
    *,
    best: Paths = (),
    threshold: float | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: str = "1",
    cpus_per_replica: int | None = None,
    gpus_per_replica: float = 0.0,
    token_file: AnyPath | None = None,
    roots: Paths = (),
    limits: Mapping[str, Any] | None = None,
    write_config: AnyPath | None = None,
    address: str | None = None,
    say: Say = silent,
    ready: Callable[[str], None] = lambda _: None,
) -> Path | None:
    """Serves runs (`RUN` or `NAME=RUN`) and the best runs of studies; the first is the default model.

    On a local Ray it returns when interrupted; on the cluster at `address` when all models answer. Calls
    `ready` with the service's address when it answers. With `write_config` it serves nothing, but writes the
    file and returns its path. `replicas` of each model is a number, or "LEAST:MOST". `limits` are fields of
    `serving.limits.Limits`. Clients may name paths below `roots`; for the next version also paths beside the
    served runs, where nothing is written.
    """
    from fissura.serving.allowed_roots import Roots
    from fissura.serving.limits import Limits
    from fissura.serving.tokens import check_exposure, read_token, token_digest

    # the cheap checks come before the slow imports
    token, allowed = read_token(maybe_path(token_file)), texts_of(roots)
    check_exposure(host, token)
    Roots(allowed)
    checked = Limits.load(dict(limits or {}), source="limits")
    from fissura.distributed.environment import check_temporary_folder, prepare_environment

    if write_config is None:
        check_temporary_folder(address)
    prepare_environment(address)
    from fissura.distributed.serving.host import Front
    from fissura.distributed.serving.listener import Address
    from fissura.distributed.serving.start import run_service
    from fissura.distributed.serving.start import write_config as write

    versions = _versions(texts_of(runs), paths_of(best), threshold)
    front = Front(
        default=versions[0].name,
        limits=checked,
        replicas=_replicas(replicas, cpus_per_replica, gpus_per_replica, models=len(versions)),
        roots=tuple(dict.fromkeys(map(_absolute, allowed))),
        runs=tuple(dict.fromkeys(str(version.run.parent) for version in versions)),
        jobs=_jobs_folder(allowed),
        token_digest=None if token is None else token_digest(token),
    )
    if write_config is not None:
        file = path_of(write_config)
        write(file, front, versions, at=Address(host=host, port=port))
        return file
    run_service(front, versions, at=Address(host=host, port=port), address=address, say=say, ready=ready)
    return None


def rollout(
    run: AnyPath | None = None,
    *,
    endpoint: str,
    name: str | None = None,
    threshold: float | None = None,
    token_file: AnyPath | None = None,
) -> dict[str, Any]:
    """Replaces a served model by `run`, or by its previous run if `run` is None; returns the card of the
    model that answers now. The new version is loaded beside the old one; no request fails."""
    from urllib.parse import quote

    from fissura.batches.http import service_address
    from fissura.serving.tokens import read_token

    endpoint, token = service_address(endpoint), read_token(maybe_path(token_file))
    name = name or _call("GET", f"{endpoint}/v1/models", token)["default"]
    address = f"{endpoint}/v1/models/{quote(name, safe='')}"
    if run is None:
        return _call("POST", f"{address}/rollback", token)
    return _call("PUT", address, token, {"run": str(path_of(run).resolve()), "threshold": threshold})


def _versions(runs: Sequence[str], best: Sequence[Path], threshold: float | None) -> "list[Version]":
    from fissura.distributed.serving.replica import Version

    # a path may contain `=`, but a name contains no `/`
    named = [text.partition("=") if "=" in text.partition("/")[0] else ("", "", text) for text in runs]
    folders = [(name, Path(run).expanduser().resolve()) for name, _, run in named]
    folders += [("", _best_run(study)) for study in best]
    if not folders:
        raise SpecError("name a run's folder to serve, or --best STUDY")
    versions: list[Version] = []
    problems: list[str] = []
    for index, (name, run) in enumerate(folders):
        model_name = name or ("default" if index == 0 else run.name)
        try:
            versions.append(
                Version.load(
                    {"name": model_name, "run": str(run), "threshold": threshold},
                    source=f"{model_name}={run}",
                )
            )
        except SpecError as error:
            problems += error.problems
    names = [version.name for version in versions]
    problems += [
        f"`{name}` names two runs; give each a name of its own, NAME=RUN"
        for name in dict.fromkeys(name for name in names if names.count(name) > 1)
    ]
    if problems:
        raise SpecError(*problems)
    return versions


def _absolute(root: str) -> str:
    """A root as an absolute path, for processes with another working folder."""
    return root if "://" in root else str(Path(root).expanduser().resolve())


def _jobs_folder(roots: Sequence[str]) -> Path | None:
    """The folder of jobs: in the first folder among the roots, hidden from listings of its images.

    Raises:
        DataError: the folder is not writable, or belongs to another user.
    """
    from fissura.serving.allowed_roots import JOBS
    from fissura.serving.job_files import own_folder

    folders = [Path(root).expanduser().resolve() for root in roots if "://" not in root]
    if not folders:
        return None
    try:
        check_writable(folders[0] / JOBS)
    except DataError:
        raise DataError(
            f"--root {folders[0]}: jobs are kept in the first root, and this one is read-only; name one first"
            " that can be written"
        ) from None
    if (folders[0] / JOBS).exists():
        own_folder(folders[0] / JOBS)
    return folders[0] / JOBS


def _best_run(path: Path) -> Path:
    from fissura.records.study_ranking import best_trials
    from fissura.records.trial_attributes import RUN
    from fissura.studies.study import find_study

    study = find_study(path)
    trials = best_trials(study.load())
    if not trials:
        raise DataError(f"{study.path}: no trial of this study is complete yet; go on with it by --resume")
    run: str = trials[0].user_attrs[RUN]
    return (study.runs / run).resolve()


def _replicas(text: str, cpus: int | None, gpus: float, *, models: int) -> "Replicas":
    from fissura.distributed.serving.replica import Replicas
    from fissura.training.runtime import usable_cpus

    least, _, most = text.partition(":")
    if not all(part.isascii() and part.isdigit() for part in (least, most or least)):
        raise SpecError(f"--replicas {text}: a number, or LEAST:MOST, such as 1:4")
    highest = int(most or least)
    share = max(1, usable_cpus() // max(1, highest * models))
    fields = {"least": int(least), "most": highest, "cpus": cpus or share, "gpus": gpus}
    if int(least) > highest:
        raise SpecError(f"--replicas {text}: the first number is at most the second; swap them")
    return Replicas.load(fields, source="--replicas")


def _call(method: str, url: str, token: str | None, body: Any = None) -> dict[str, Any]:
    """The JSON document that the service responds with.

    Raises:
        DataError: the service is unreachable, or refuses the request.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from fissura.batches.http import MAX_DOCUMENT_BYTES
    from fissura.batches.refusals import read_problem

    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        request = Request(url, data=data, headers=headers, method=method)  # noqa: S310  checked before
        with urlopen(request, timeout=LOADING_SECONDS) as response:  # noqa: S310
            document: dict[str, Any] = json.loads(response.read(MAX_DOCUMENT_BYTES))
            return document
    except HTTPError as error:
        kind, problem = read_problem(error.read(MAX_DOCUMENT_BYTES), error.code)
        raise DataError(problem if kind else f"{url}: {problem}; is it fissura's service?") from None
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"{url}: does not answer ({error}); start it with `fissura serve`") from None
