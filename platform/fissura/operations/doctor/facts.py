"""The facts about the nodes: plain values, so that a check depends on nothing else.

Sizes are bytes, times seconds. A node's facts cross to the driver as `asdict(...)`.
"""

from dataclasses import dataclass, field

from fissura.distributed.processes import ListeningPort

STORAGE_FOLDER, CACHE_FOLDER, SESSION_FOLDER = "storage", "cache", "Ray's session"


@dataclass(frozen=True)
class RayResources:
    """The resources that Ray counts on a node and schedules, whatever the hardware."""

    cpus: float
    gpus: float
    object_store: float


@dataclass(frozen=True)
class NodeQuery:
    """The query to a node: `folders` by purpose, `ray` and its session folder (None and empty without Ray).
    `nonce` makes the mark of its token useless elsewhere; `started_in` is the driver's folder, which Ray puts
    on its workers' path."""

    node: str
    nonce: str
    ray: RayResources | None
    session: str
    folders: dict[str, str]
    started_in: str
    shm: str = "/dev/shm"  # noqa: S108  the device itself is what is looked at


@dataclass(frozen=True)
class NodeFolder:
    """A folder as one node sees it. `problem` is why it cannot be used, or empty."""

    purpose: str
    path: str
    free: int = 0
    total: int = 0
    filesystem: str = ""
    options: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Token:
    """How Ray's processes of a node authenticate. `mark` names the token without giving it away, `mode` is
    RAY_AUTH_MODE; `permissions` are those of the file at `path`, None where there is none."""

    mode: str
    path: str
    permissions: int | None
    mark: str


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi shows it; `others` is the memory of processes that are not Ray's."""

    name: str
    driver: str
    total: int
    others: int


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a node, from three sources: the device files, nvidia-smi and PyTorch."""

    device_files: int = 0
    smi_problem: str = ""
    seen: tuple[Gpu, ...] = ()
    torch_count: int = 0
    torch_cuda: str = ""
    torch_problem: str = ""


@dataclass(frozen=True)
class Facts:
    """One node. `exposed` is the folder of Ray's sockets if any user can replace them, or empty. `settings`
    and the limits are those of its raylet, which its workers inherit; without one, this process's own.
    `versions` lacks what is not installed; `clusters` are the session folders of the Rays whose head runs on
    the machine."""

    node: str
    python: str
    versions: dict[str, str]
    code: str
    import_problem: str
    ray: RayResources | None
    folders: tuple[NodeFolder, ...]
    cpus: int
    cpu_limit: float | None
    memory: int
    memory_free: int
    shm: NodeFolder
    exposed: str
    files_limit: int
    files_open: int
    settings: dict[str, str]
    shadows: tuple[str, ...]
    tools: tuple[str, ...]
    clusters: tuple[str, ...]
    listeners: tuple[ListeningPort, ...]
    token: Token
    gpus: Gpus


@dataclass(frozen=True)
class Written:
    """The result of a node's small writes to the storage; `seconds` is the median of several synced
    writes."""

    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Shared:
    """The storage as the nodes used it: what each wrote, whose files each saw, and whether the second of two
    processes got each lock (`refused` is right; `granted` is wrong; or why it could not be tried)."""

    path: str
    written: dict[str, Written]
    saw: dict[str, tuple[str, ...]]
    locks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Offset:
    """A node's clock minus the driver's, exact to `bound` seconds."""

    seconds: float
    bound: float


@dataclass(frozen=True)
class Seen:
    """All facts. `ranges` are the versions that this fissura requires; `silent` maps nodes without facts to
    the reason; `data` and `data_problems` map each data set to digests and problems by node."""

    nodes: tuple[Facts, ...]
    ranges: dict[str, str]
    silent: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, Offset] = field(default_factory=dict)
    shared: Shared | None = None
    data: dict[str, dict[str, str]] = field(default_factory=dict)
    data_problems: dict[str, dict[str, str]] = field(default_factory=dict)
    address: str | None = None
    address_problem: str = ""
