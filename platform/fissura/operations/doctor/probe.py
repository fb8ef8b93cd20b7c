"""The facts of a node, from the standard library and files alone, so that a broken node still answers."""

import contextlib
import hashlib
import hmac
import importlib.metadata
import os
import resource
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fissura.distributed.processes import Process, command_line, environment, listeners, ray_processes
from fissura.operations.doctor.facts import SESSION_FOLDER, Facts, NodeFolder, NodeQuery, Token
from fissura.operations.doctor.gpus import look_at_gpus

PACKAGES = ("fissura", "ray", "torch", "optuna", "numpy")
TOOLS = ("ssh", "sshd", "rsync")
SETTINGS = (
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("RAY_ADDRESS", "RAY_AUTH_MODE"),
)
UNLIMITED = 2**62


def take(query: NodeQuery) -> dict[str, Any]:
    """The facts of this node, in plain types."""
    all_processes = ray_processes()
    processes = [process for process in all_processes if query.session in ("", process.session)]
    raylet = _raylet(processes, query.session)
    settings = (environment(raylet) if raylet else {}) or dict(os.environ)
    versions, code, problem = _software()
    folders = query.folders | ({SESSION_FOLDER: query.session} if query.session else {})
    memory, free = _memory()
    return asdict(
        Facts(
            node=query.node,
            python=".".join(map(str, sys.version_info[:3])),
            versions=versions,
            code=code,
            import_problem=problem,
            ray=query.ray,
            folders=tuple(look_at_folder(purpose, path) for purpose, path in folders.items()),
            cpus=len(os.sched_getaffinity(0)),
            cpu_limit=_cpu_limit(),
            memory=memory,
            memory_free=free,
            shm=look_at_folder("shared memory", query.shm),
            exposed=exposed(Path(query.session, "sockets")) if query.session else "",
            files_limit=_files_limit(raylet),
            files_open=sum(1 for _ in Path(f"/proc/{raylet or os.getpid()}/fd").iterdir()),
            settings={name: settings[name] for name in SETTINGS if name in settings},
            shadows=tuple(_shadows([*sys.path, query.started_in])),
            tools=tuple(
                tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
            ),
            clusters=tuple(sorted({process.session for process in all_processes if process.role == "head"})),
            listeners=tuple(listeners(processes)),
            token=_token(settings, query.nonce),
            gpus=look_at_gpus(settings),
        )
    )


def look_at_folder(purpose: str, path: str) -> NodeFolder:
    """A folder's room and file system; for a missing folder, those of its nearest existing parent."""
    existing = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    try:
        room = os.statvfs(existing)
    except OSError as error:
        return NodeFolder(purpose, path, problem=error.strerror or str(error))
    kind, options = _mount(str(existing.resolve()))
    writable = os.access(existing, os.W_OK | os.X_OK)
    return NodeFolder(
        purpose, path, room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize, kind, options,
        "" if writable else f"{existing} is read-only for {os.environ.get('USER') or os.geteuid()}",
    )  # fmt: skip


def exposed(folder: Path) -> str:
    """The folder, if any user can enter its parents and write to it; else empty."""
    try:
        parent_modes = [parent.stat().st_mode for parent in folder.resolve().parents]
        own = folder.stat().st_mode
    except OSError:
        return ""
    open_to_all = own & stat.S_IWOTH and all(mode & stat.S_IXOTH for mode in (own, *parent_modes))
    return str(folder) if open_to_all else ""


def _software() -> tuple[dict[str, str], str, str]:
    """Versions, the digest of fissura's own source, and why it cannot be imported."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    try:
        import fissura
    except Exception as error:
        return versions, "", f"{type(error).__name__}: {error}"
    digest = hashlib.sha256()
    root = Path(str(fissura.__file__)).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return versions, digest.hexdigest()[:12], ""


def _raylet(processes: list[Process], session: str) -> int | None:
    """The raylet that started this process, or else the session's only one here."""
    parent = os.getppid()
    if "raylet/raylet" in command_line(parent):
        return parent
    raylets = [process.pid for process in processes if session and "raylet/raylet" in process.command]
    return raylets[0] if len(raylets) == 1 else None


def _files_limit(pid: int | None) -> int:
    soft, _ = resource.prlimit(pid or 0, resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _memory() -> tuple[int, int]:
    """Total and free memory, within the control group's limit."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1}
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemFree"])
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit_bytes, used_bytes = _group_number(limit), _group_number(used)
        if limit_bytes is not None and limit_bytes < total:
            return int(limit_bytes), int(max(0, min(free, limit_bytes - (used_bytes or 0))))
    return total, free


def _cpu_limit() -> float | None:
    """The CPUs that the control group allows; None without a limit."""
    for file in _group_files("cpu.max"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = file.read_text(encoding="ascii").split()
            return float(quota) / float(period)
    quota_us, period_us = _group_number("cpu.cfs_quota_us"), _group_number("cpu.cfs_period_us")
    return quota_us / period_us if quota_us and quota_us > 0 and period_us else None


def _group_number(name: str) -> float | None:
    for file in _group_files(name):
        with contextlib.suppress(OSError, ValueError):
            return float(file.read_text(encoding="ascii"))
    return None


def _group_files(name: str) -> Iterator[Path]:
    """The possible files of a limit of this process's control group, the nearest first."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            roots = (
                [Path("/sys/fs/cgroup", controller) for controller in controllers.split(",")]
                if controllers
                else []
            )
            for root in roots or [Path("/sys/fs/cgroup")]:
                own = root / group.lstrip("/")
                yield from (folder / name for folder in (own, *own.parents) if folder.is_relative_to(root))


def _shadows(folders: list[str]) -> Iterator[str]:
    """Files that would be imported instead of the standard library's `platform`."""
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    for folder in dict.fromkeys(str(Path(path or ".").resolve()) for path in folders):
        for candidate in (Path(folder, "platform.py"), Path(folder, "platform", "__init__.py")):
            if candidate.is_file() and candidate.parent != standard:
                yield str(candidate)


def _token(settings: Mapping[str, str], nonce: str) -> Token:
    home = settings.get("HOME") or str(Path.home())
    path = Path(settings.get("RAY_AUTH_TOKEN_PATH") or Path(home, ".ray", "auth_token"))
    text, permissions = settings.get("RAY_AUTH_TOKEN", ""), None
    if not text:
        with contextlib.suppress(OSError):
            permissions = path.stat().st_mode & 0o777
            text = path.read_text(encoding="utf-8", errors="replace").strip()
    mark = hmac.new(nonce.encode(), text.encode(), "sha256").hexdigest()[:12] if text else ""
    return Token(settings.get("RAY_AUTH_MODE", "").lower(), str(path), permissions, mark)


def _mount(path: str) -> tuple[str, tuple[str, ...]]:
    """The type and options of the file system that holds `path`."""
    best = ""
    filesystem: tuple[str, tuple[str, ...]] = ("", ())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            left, right = line.split(" - ", 1)
            point, words = left.split()[4], right.split()
            inside = point == "/" or path == point or path.startswith(f"{point}/")
            if inside and len(point) >= len(best):
                best, filesystem = point, (words[0], tuple(words[2].split(",")))
    return filesystem
