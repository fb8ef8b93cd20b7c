"""Asks every ADDRESS:PORT of its arguments, by HTTP and by gRPC, with the token in TOKEN, or none.

Prints as JSON what each did: "closed" (no connection), "refused" (it wants a token), "answered", "unknown".
Run on a host that is no part of the cluster, with Ray's Python.
"""

import http.client
import json
import os
import socket
import sys
import urllib.error
import urllib.request

import grpc

# one call of each service that a process of Ray offers
CALLS = (
    "rpc.NodeInfoGcsService/GetAllNodeInfo",
    "rpc.NodeManagerService/GetNodeStats",
    "rpc.ObjectManagerService/Pull",
    "rpc.CoreWorkerService/GetCoreWorkerStats",
    "rpc.ReporterService/GetTraceback",
    "rpc.RayletDriver/ClusterInfo",
    "serve.ASGIService/HandleRequest",
)
TOKEN = os.environ["TOKEN"]
BEARER = (("authorization", f"Bearer {TOKEN}"),) if TOKEN else ()


def by_http(target: str) -> str:
    """What a GET request comes to."""
    asked = urllib.request.Request(f"http://{target}/", headers=dict(BEARER))
    try:
        with urllib.request.urlopen(asked, timeout=20):  # noqa: S310
            return "answered"
    except urllib.error.HTTPError as error:
        return "refused" if error.code in {401, 403} else "answered"
    except (OSError, http.client.HTTPException):
        return "unknown"


def by_grpc(target: str) -> str:
    """What the calls come to that the port offers."""
    found = set()
    with grpc.insecure_channel(target) as channel:
        for call in CALLS:
            try:
                channel.unary_unary(f"/ray.{call}")(b"", metadata=BEARER, timeout=20)
                found.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                found.add(error.code())
    found -= {grpc.StatusCode.UNIMPLEMENTED}
    if found == {grpc.StatusCode.UNAUTHENTICATED}:
        return "refused"
    return "answered" if grpc.StatusCode.OK in found else "unknown"


def ask(target: str) -> str:
    """What the port does."""
    address, _, port = target.rpartition(":")
    try:
        socket.create_connection((address, int(port)), timeout=20).close()
    except OSError:
        return "closed"
    found = by_http(target)
    return by_grpc(target) if found == "unknown" else found


json.dump({target: ask(target) for target in sys.argv[1:]}, sys.stdout)
