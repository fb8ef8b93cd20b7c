"""Memory that tensors leave behind is kept for the next ones, until a process has run short."""

import json
import subprocess
import sys

import pytest

PAGES = """
import json, resource, threading
import numpy as np
from fissura.training.allocator import keep_memory, return_memory

def faults():
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        layers = [np.ones(12 * 2**20, np.uint8) for _ in range(6)]  # 18,000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024

def counted(found):
    faults()
    found["by_itself"] = faults()
    keep_memory()
    faults()
    found["kept"], found["kept_mib"] = faults(), resident()
    return_memory()
    found["returned"], found["returned_mib"] = faults(), resident()

found = {}
if WHERE == "thread":
    thread = threading.Thread(target=counted, args=(found,))
    thread.start()
    thread.join()
else:
    counted(found)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="another allocator is left as it is")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_kept_memory_is_not_faulted_in_again_and_is_given_back_on_demand(where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"WHERE = {where!r}\n{PAGES}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)

    assert found["kept"] < 0.05 * 20 * 18_000
    assert found["returned"] > found["kept"]
    assert found["returned_mib"] < found["kept_mib"] - 40
