"""What Ray's C++ writes to standard error stays out of it, and nothing else does."""

import os
import subprocess
import sys

PROGRAM = """
import logging, os, subprocess, sys
from fissura.distributed.ray_lines import without_ray_lines

def raw(text):
    os.write(2, text.encode() + b"\\n")

raw("[2026-11-29 10:54:23,618 E 1 1] core_worker.cc:1: before")
with without_ray_lines(print):
    raw("[2026-11-29 10:54:23,618 E 26301 26301] core_worker.cc:2465: Actor with class name: 'MapWorker'")
    raw("[2026-11-29 10:54:23,618 W 26301 26399] (raylet) node_manager.cc:12: late")
    raw("[2026-11-29 10:54:23,618 I 2 2] src/ray/util/logging.cc:303: Set ray log level")
    raw("a library's own line")
    raw("[2026-11-29] a line of ours.cc: no")
    print("said", file=sys.stderr)
    print(os.isatty(sys.stderr.fileno()), file=sys.stderr)
    handler = logging.StreamHandler()
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'of a child')"], check=True)
logging.getLogger().addHandler(handler)
logging.warning("kept")
raw("[2026-11-29 10:54:23,618 E 1 1] core_worker.cc:1: after")
"""


def test_only_the_lines_of_rays_cpp_are_left_out_and_only_inside_the_block():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "Ray: [2026-11-29 10:54:23,618 E 26301 26301] core_worker.cc:2465: Actor with class name: 'MapWorker'",  # noqa: E501
        "Ray: [2026-11-29 10:54:23,618 W 26301 26399] (raylet) node_manager.cc:12: late",
        "Ray: [2026-11-29 10:54:23,618 I 2 2] src/ray/util/logging.cc:303: Set ray log level",
    ]
    assert sorted(ran.stderr.splitlines()) == sorted(
        [
            "[2026-11-29 10:54:23,618 E 1 1] core_worker.cc:1: before",
            "a library's own line",
            "[2026-11-29] a line of ours.cc: no",
            "said",
            "False",
            "of a childkept",
            "[2026-11-29 10:54:23,618 E 1 1] core_worker.cc:1: after",
        ]
    )


def test_standard_error_on_a_terminal_stays_one():
    terminal, inside = os.openpty()
    program = (
        "import sys; from fissura.distributed.ray_lines import without_ray_lines\n"
        "with without_ray_lines(print): sys.exit(0 if sys.stderr.isatty() else 3)"
    )
    assert subprocess.run([sys.executable, "-c", program], stderr=inside, check=False).returncode == 0
    os.close(terminal)
    os.close(inside)


def test_standard_error_that_another_has_replaced_inside_is_left_to_it(tmp_path):
    program = (
        "import os; from fissura.distributed.ray_lines import without_ray_lines\n"
        "other = os.open('other', os.O_CREAT | os.O_WRONLY)\n"
        "with without_ray_lines(print): os.dup2(other, 2)\n"
        "os.write(2, b'after')"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True)
    assert ran.stderr == b""
    assert (tmp_path / "other").read_bytes() == b"after"
