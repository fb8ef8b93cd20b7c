"""The GPUs of this machine, from three sources that can disagree: device files, nvidia-smi and PyTorch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fissura.distributed.processes import command_line
from fissura.operations.doctor.facts import Gpu, Gpus

ANSWER_SECONDS = 60
MIB = 2**20
# a process of its own: PyTorch is slow to import, and Ray hides the GPUs from workers that asked for none
TORCH = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    problem = ""
    try:
        if count:
            torch.ones(1, device="cuda").sum().item()
        else:
            torch.cuda.init()
    except Exception as error:
        problem = str(error)
print(json.dumps([count, torch.version.cuda or "", problem or "; ".join(str(w.message) for w in caught)]))
"""


def look_at_gpus(settings: Mapping[str, str]) -> Gpus:
    """The GPUs from each source; `settings` is the environment in which workers start.

    PyTorch is queried only if another source shows a GPU.
    """
    files = len(list(Path("/dev").glob("nvidia[0-9]*")))
    tool = shutil.which("nvidia-smi", path=settings.get("PATH"))
    if not files and not tool:
        return Gpus()
    seen, smi_problem = _nvidia_smi(tool) if tool else ((), "nvidia-smi is not on PATH")
    count, cuda, problem = _torch(settings)
    return Gpus(files, smi_problem, seen, count, cuda, problem)


def _nvidia_smi(tool: str) -> tuple[tuple[Gpu, ...], str]:
    code, text = _run([tool, "--query-gpu=uuid,name,driver_version,memory.total,memory.used", *_CSV])
    if code:
        return (), " ".join(text.split())[:300] or f"nvidia-smi ended with {code}"
    _, apps = _run([tool, "--query-compute-apps=gpu_uuid,pid,used_memory", *_CSV])
    rays: dict[str, int] = {}
    for words in _rows(apps, 3):
        if command_line(_number(words[1])).startswith("ray::"):
            rays[words[0]] = rays.get(words[0], 0) + _number(words[2])
    return tuple(
        Gpu(name, driver, _number(total) * MIB, max(0, _number(used) - rays.get(uuid, 0)) * MIB)
        for uuid, name, driver, total, used in _rows(text, 5)
    ), ""


_CSV = ("--format=csv,noheader,nounits",)


def _torch(settings: Mapping[str, str]) -> tuple[int, str, str]:
    code, text = _run([sys.executable, "-c", TORCH], settings)
    if code:
        return 0, "", " ".join(text.split())[-300:]
    count, cuda, problem = json.loads(text.splitlines()[-1])
    return count, cuda, " ".join(problem.split())[:300]


def _run(words: list[str], settings: Mapping[str, str] | None = None) -> tuple[int, str]:
    try:
        completed = subprocess.run(  # noqa: S603  the words are ours
            words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False, env=settings
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return (
        completed.returncode,
        completed.stdout if completed.returncode == 0 else completed.stderr + completed.stdout,
    )


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
