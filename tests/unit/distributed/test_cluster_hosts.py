"""What `make test-cluster` says on a machine that cannot hold hosts."""

import os
import shutil

import pytest

from cluster.hosts import missing


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing()[0] == "hosts are made by root: run this as root"


def test_packages_that_are_not_here_are_named_as_apt_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    absent = {"sshd", "rsync", "ss", "ip"}
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool in absent else f"/bin/{tool}")
    assert missing() == ["programs are not here: apt install iproute2 openssh-server rsync"]
