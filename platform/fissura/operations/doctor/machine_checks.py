"""Checks of the machines: room, memory, threads, limits, GPUs."""

from collections.abc import Iterator

from fissura.core.text import count, size
from fissura.operations.doctor.facts import SESSION_FOLDER, Facts, Seen
from fissura.operations.doctor.findings import Finding, NodeFault, faults, span
from fissura.operations.doctor.probe import UNLIMITED

GIB = 2**30
LOW, EMPTY = 5 * GIB, GIB // 4
# above this share Ray spills no objects to the file system (local_fs_capacity_threshold)
SPILL_SHARE = 0.95
CONTAINER_SHM = 64 * 2**20
FEW_FILES = 8192
OTHERS_SHARE = 0.1


def disk(seen: Seen) -> list[Finding]:
    """Room in the storage, the cache of prepared images, and Ray's session folder."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        for folder in node.folders:
            name = f"{folder.purpose} {folder.path}"
            if folder.problem:
                yield NodeFault(
                    "error", f"{name}: {folder.problem}", "mend its permissions, or name another folder"
                )
            elif folder.free < LOW:
                yield NodeFault(
                    "error" if folder.free < EMPTY else "warning",
                    f"{name}: {size(folder.free)} free of {size(folder.total)}",
                    "free some, or name another folder",
                )
            elif folder.purpose == SESSION_FOLDER and folder.free < (1 - SPILL_SHARE) * folder.total:
                yield NodeFault(
                    "warning",
                    f"{name}: more than {SPILL_SHARE:.0%} of the disk is used, so Ray spills nothing to it",
                    "free some, or start Ray with --temp-dir on another disk",
                )

    ok = span([folder.free for node in seen.nodes for folder in node.folders], size)
    return faults("disk", seen, judge) or [Finding("disk", "ok", f"{ok} free")]


def sockets(seen: Seen) -> list[Finding]:
    """No other user can replace Ray's sockets: Ray's folders have mode 0777, so a parent must be private."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        if node.exposed:
            yield NodeFault(
                "warning",
                f"{node.exposed} can be written by every user of the machine: any of them can take the place"
                " of Ray's sockets, and so run code and read data",
                "`mkdir -m 700 ~/.fissura-ray`, and start Ray with --temp-dir=$HOME/.fissura-ray/ray, as in"
                " cluster.yaml",
            )

    return faults("sockets", seen, judge) or [Finding("sockets", "ok", "no other user reaches Ray's")]


def memory(seen: Seen) -> list[Finding]:
    """Enough memory is free."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        if node.memory_free < max(2 * GIB, 0.1 * node.memory):
            yield NodeFault(
                "warning",
                f"{size(node.memory_free)} of memory free of {size(node.memory)}; Ray ends workers at 95 %",
                "end what else runs there, or lower --concurrency",
            )

    ok = span([node.memory_free for node in seen.nodes], size)
    return faults("memory", seen, judge) or [Finding("memory", "ok", f"{ok} free")]


def shared_memory(seen: Seen) -> list[Finding]:
    """Shared memory holds Ray's object store; Docker gives a container 64 MiB of it."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        store = node.ray.object_store if node.ray else 0.3 * node.memory
        remedy = (
            f"start the container with `--shm-size={max(1, round(store / GIB))}g`, or Ray with a smaller"
            " --object-store-memory"
        )
        if node.shm.total <= CONTAINER_SHM:
            yield NodeFault(
                "warning",
                f"{node.shm.path} has {size(node.shm.total)}, a container's default; Ray keeps its objects on"
                " the disk then, much slower",
                remedy,
            )
        elif node.shm.total < store:
            yield NodeFault(
                "warning",
                f"{node.shm.path} has {size(node.shm.total)}, Ray's object store wants {size(store)}",
                remedy,
            )

    ok = span([node.shm.total for node in seen.nodes], size)
    return faults("shared memory", seen, judge) or [Finding("shared memory", "ok", f"{ok}")]


def cpus(seen: Seen) -> list[Finding]:
    """Ray counts no more CPUs than its processes may use."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        counted = node.ray.cpus if node.ray else node.cpus
        usable = min(node.cpus, node.cpu_limit or node.cpus)
        if counted > usable:
            why = "its control group allows" if usable < node.cpus else "the machine has"
            yield NodeFault(
                "warning",
                f"Ray counts {counted:g} CPUs, {why} {usable:g}: trials would share them unseen",
                f"start Ray there with --num-cpus={max(1, int(usable))}, or give the container more",
            )

    ok = span([node.ray.cpus if node.ray else node.cpus for node in seen.nodes], lambda count: f"{count:g}")
    return faults("CPUs", seen, judge) or [Finding("CPUs", "ok", f"{ok} a node")]


def threads(seen: Seen) -> list[Finding]:
    """Ray sets one thread a CPU of a worker, unless OMP_NUM_THREADS is set where it starts."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            value = node.settings.get(name, "").split(",")[0]
            if value.isdigit() and int(value) > 1 and node.ray is not None:
                yield NodeFault(
                    "warning",
                    f"{name}={value} on {node.cpus} CPUs: every worker takes as many, whatever its share",
                    f"`unset {name}` where Ray is started; Ray sets it for each worker",
                )
            elif value.isdigit() and int(value) > node.cpus:
                yield NodeFault("warning", f"{name}={value} on {node.cpus} CPUs", f"`unset {name}`")
        if node.settings.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
            yield NodeFault(
                "warning",
                "OMP_WAIT_POLICY=ACTIVE: threads that wait keep their CPU from other trials",
                "unset it, or set it to PASSIVE, where Ray is started",
            )

    return faults("threads", seen, judge) or [Finding("threads", "ok", "left to Ray")]


def open_files(seen: Seen) -> list[Finding]:
    """The limit of open files suffices: each worker costs Ray's processes some."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        remedy = "`ulimit -n 65536` before Ray is started, as in cluster.yaml"
        if node.files_limit < FEW_FILES:
            yield NodeFault(
                "warning",
                f"ulimit -n is {node.files_limit}; Ray needs {FEW_FILES} or more for many workers",
                remedy,
            )
        elif node.files_open > 0.8 * node.files_limit:
            yield NodeFault("warning", f"{node.files_open} of {node.files_limit} files are open", remedy)

    ok = span(
        [node.files_limit for node in seen.nodes],
        lambda count: "unlimited" if count >= UNLIMITED else f"{count:g}",
    )
    return faults("open files", seen, judge) or [Finding("open files", "ok", f"limit {ok}")]


def gpus(seen: Seen) -> list[Finding]:
    """Device files, nvidia-smi, PyTorch and Ray agree, and no other process holds the memory."""

    def judge(node: Facts) -> Iterator[NodeFault]:
        found = node.gpus
        if not found.device_files and not found.seen and not found.smi_problem:
            if node.ray and node.ray.gpus:
                yield NodeFault(
                    "error",
                    f"Ray counts {count(node.ray.gpus, 'GPU')}, the machine shows none",
                    "start Ray there without --num-gpus, or give the container its GPUs (`--gpus all`)",
                )
            return
        if found.smi_problem:
            yield NodeFault(
                "error" if found.device_files else "warning",
                f"nvidia-smi: {found.smi_problem}",
                "reinstall the driver, or reboot after its update; start a container with `--gpus all`",
            )
        if found.torch_count == 0 and (found.seen or found.device_files):
            built = f"built for CUDA {found.torch_cuda}" if found.torch_cuda else "built without CUDA"
            driver = f", driver {found.seen[0].driver}" if found.seen else ""
            yield NodeFault(
                "error",
                f"PyTorch ({built}) cannot use the GPUs{driver}: {found.torch_problem or 'no reason given'}",
                "update the driver, or install a PyTorch built for a CUDA that it supports",
            )
        elif found.torch_problem:
            yield NodeFault(
                "error",
                f"PyTorch sees {count(found.torch_count, 'GPU')} and fails on them: {found.torch_problem}",
                "install a PyTorch built for these GPUs, or update the driver",
            )
        elif node.ray and node.ray.gpus != found.torch_count:
            yield NodeFault(
                "warning",
                f"Ray counts {count(node.ray.gpus, 'GPU')}, PyTorch sees {found.torch_count}",
                f"start Ray there with --num-gpus={found.torch_count}, and look at CUDA_VISIBLE_DEVICES",
            )
        for number, gpu in enumerate(found.seen):
            if gpu.others > OTHERS_SHARE * gpu.total:
                yield NodeFault(
                    "warning",
                    f"GPU {number} ({gpu.name}): others hold {size(gpu.others)} of {size(gpu.total)}",
                    "end what else runs on it, or keep it from Ray with CUDA_VISIBLE_DEVICES",
                )

    total = sum(node.gpus.torch_count for node in seen.nodes)
    names = sorted({gpu.name for node in seen.nodes for gpu in node.gpus.seen})
    return faults("GPUs", seen, judge) or [
        Finding("GPUs", "ok", f"{total} ({', '.join(names)})" if total else "none, training is on CPUs")
    ]
