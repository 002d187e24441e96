"""Thousands of tunnels that rest: what they cost, and that whoever calls meanwhile is served."""

import resource
import socket
import ssl
import time
import urllib.request
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

HOST = "saas.test"
ACCOUNTS = 10
OWNERS = "owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """\
exeat: 1
tenant: acme
credentials: {{ttl: 1h, max_ttl: 1h}}
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab}}
accounts:
"""
ACCOUNT = "  {name}:\n    {owners}\n    rules: [{{id: read, allow: {{connection: lab, methods: [GET], path: /x}}}}]\n"


def open_tunnel(door: tuple[str, int], token: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A tunnel of this account's, its TLS established."""
    plain = socket.create_connection(door, 30)
    basic = b64encode(f"agent:{token}".encode()).decode()
    plain.sendall(
        f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += plain.recv(1)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return context.wrap_socket(plain, server_hostname=HOST)


def call(tunnel: ssl.SSLSocket) -> int:
    """One call through a standing tunnel; its status."""
    tunnel.sendall(f"GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += tunnel.recv(4096)
    return int(answer[9:12])


def gauge(product: Product, name: str) -> float:
    with urllib.request.urlopen(f"{product.health()}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"exeat_{name} ")))


def resident_bytes(product: Product) -> int:
    assert product.process is not None
    with open(f"/proc/{product.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="short"), pytest.param(9_900, id="long", marks=pytest.mark.campaign)]
)
def test_tunnels_that_rest_cost_memory_and_nobody_waits_for_them(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 1000:
        pytest.skip(f"{count} connections need a limit of {count + 1000} open files; it is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = [f"a{number}" for number in range(ACCOUNTS)]
    try:
        with ExitStack() as stack:
            origin = stack.enter_context(OriginThread((HOST,)))
            policy = POLICY.format(port=origin.port)
            policy += "".join(ACCOUNT.format(name=name, owners=OWNERS) for name in (*names, "other"))
            files = {"ca.pem": origin.authority.pem}
            product = stack.enter_context(running(policy=policy, files=files, secrets={"lab": b"upstream-canary-1"}))
            tokens = {
                name: str(product.cli("token", "issue", name, "--ttl", "1h", "--json").ok().json["token"])
                for name in (*names, "other")
            }
            context = ssl.create_default_context(cadata=product.cli("ca", "export").ok().out)
            door = product.door()
            with closing(open_tunnel(door, tokens["other"], context)) as first:
                assert call(first) == 200  # what a first call costs is nobody's idleness
                before = resident_bytes(product)
                began = time.perf_counter()
                with ThreadPoolExecutor(4) as threads:
                    todo = [tokens[names[number % ACCOUNTS]] for number in range(count)]
                    tunnels = list(threads.map(lambda token: open_tunnel(door, token, context), todo))
                seconds = time.perf_counter() - began
                for tunnel in tunnels:
                    stack.callback(tunnel.close)
                assert gauge(product, "open_connections") == count + 1
                each = (resident_bytes(product) - before) / count
                print(
                    f"\n{count} idle tunnels: opened at {count / seconds:.0f}/s, {each / 1e3:.0f} KB each"
                    " (performance target: at most 165)"
                )
                assert each < 400_000
                assert call(first) == 200
                with closing(open_tunnel(door, tokens["other"], context)) as newcomer:
                    assert call(newcomer) == 200
                for tunnel in tunnels[:: max(1, count // 50)]:
                    assert call(tunnel) == 200
                for tunnel in tunnels:
                    tunnel.close()
                deadline = time.monotonic() + 60
                while gauge(product, "open_connections") > 1:
                    assert time.monotonic() < deadline, "connections that are gone are still counted"
                    time.sleep(0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
