"""Environment variables that Ray reads when it is imported; set them before."""

import logging
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fissura.core.errors import FissuraError, ResourceError
from fissura.core.files import remove_folder

_LOGGER = logging.getLogger(__name__)
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of a Unix socket's path
_SESSION = "ray-abcdefgh/s/session_2000-01-01_00-00-00_000000_{process}/sockets/plasma_store"
REMOVING_SECONDS = 5.0


def prepare_environment(address: str | None) -> None:
    """Sets the variables for a cluster at `address`, or for a local Ray if it is None.

    A local Ray listens on all of the machine's addresses, so it requires a token that only this process and
    its children know. For a cluster the user's own RAY_AUTH_* settings apply.
    """
    # waiting threads that spin slow a shared machine down several times; PyTorch reads this at import
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # distributed/stopping.py handles signals
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # a failed or interrupted trial ends without its metric
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # the study's log and its trials record the reason of each failure
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    # Tune's own state is never restored, and a snapshot of it walks all trials
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"
    # the old output engine is the one that "silent" silences
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    if address is None and "ray" not in sys.modules:
        # polling two or three replicas ten times a second takes a fortieth of a small machine
        os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.3")
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def temporary_folder() -> tuple[str, Path]:
    """The variable that sets Ray's folder of sockets and logs, and the folder, by Ray's own rules."""
    on_linux = sys.platform.startswith("linux")
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    if variable == "RAY_TMPDIR" or (variable and on_linux):
        return variable, Path(os.environ[variable])
    return "TMPDIR", Path("/tmp")  # noqa: S108  Ray's own


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder for the sockets, logs and objects of a Ray (its `_temp_dir`) that no other user can enter.

    Ray gives its own folders mode 0777, so any user could replace one of Ray's sockets; this one lies in a
    folder of mode 0700. The end of the block removes both, except after an unexpected error, for which Ray's
    logs stay; a note of the error names them.
    """
    outer = Path(tempfile.mkdtemp(prefix="ray-", dir=temporary_folder()[1]))
    inner = outer / "s"
    inner.mkdir()
    try:
        yield inner
    except Exception as error:
        if isinstance(error, FissuraError | OSError):
            _remove(outer)
        else:
            error.add_note(f"Ray's logs are in {outer}")
        raise
    except BaseException:
        _remove(outer)
        raise
    else:
        _remove(outer)


def _remove(folder: Path) -> None:
    if not remove_folder(folder, within=REMOVING_SECONDS):
        _LOGGER.warning("Ray's folder %s is still written to, and stays; remove it", folder)


def check_temporary_folder(address: str | None) -> None:
    """Checks that a local Ray can create its folder; call it before anything is written. A cluster has one.

    Raises:
        ResourceError: the folder is not writable, other users could replace it, or the paths of Ray's sockets
            would exceed the operating system's limit.
    """
    ray = sys.modules.get("ray")
    if address is not None or (ray is not None and ray.is_initialized()):
        return
    variable, folder = temporary_folder()
    longest = len(os.fsencode(folder / _SESSION.format(process=os.getpid())))
    if longest > SOCKET_BYTES:
        room = SOCKET_BYTES - longest + len(os.fsencode(folder))
        raise ResourceError(
            f"{variable}={folder}: Ray keeps its Unix sockets below it, and the path of one has at most"
            f" {SOCKET_BYTES} bytes: here it would have {longest}; set RAY_TMPDIR to a folder of at most"
            f" {room} bytes, such as /tmp"
        )
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(
            f"{variable}={folder}: Ray keeps its sockets and logs below it, and it is no folder that can be"
            " written; set RAY_TMPDIR to one, such as /tmp"
        )
    for ancestor in (folder.resolve(), *folder.resolve().parents):
        mode = ancestor.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ResourceError(
                f"{variable}={folder}: any user may put a folder in Ray's place, since {ancestor} has mode"
                f" {stat.S_IMODE(mode):04o}; `chmod +t {ancestor}`, or set RAY_TMPDIR to another folder"
            )


def check_current_cluster() -> None:
    """Checks who defines the cluster "auto": Ray reads it from a file in a world-writable folder, and sends
    that cluster its token.

    Raises:
        ResourceError: the file belongs to another user.
    """
    file = temporary_folder()[1] / "ray" / "ray_current_cluster"
    try:
        owner = file.stat().st_uid
    except OSError:
        return
    if owner not in (0, os.geteuid()):
        raise ResourceError(
            f"--address auto: {file}, which says what cluster that is, belongs to another user (uid {owner});"
            " name the cluster by --address HOST:PORT"
        )
