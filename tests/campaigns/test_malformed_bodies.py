# ruff: noqa: E501  # bodies are written as they are sent
"""Malformed bodies: refused, or what leaves is what the rules saw, as a reader that is not this product's reads it."""

import bz2
import email
import email.policy
import gzip
import json
import os
import random
import urllib.parse
import zlib
from pathlib import Path

import pytest

from ledger import commitment
from proxy.config import GateConfig
from proxy.deciding import Decided
from proxy.records import request_digest
from rules.inputs import Body, DecisionInputs
from tests.worlds.authority import Authority
from tests.worlds.gate import running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: read, allow: {{connection: saas, methods: [POST], path: /read}}, when: body != 7}}
"""
CODES = {
    "content_refused",
    "encoding_refused",
    "malformed_request",
    "ambiguous_request",
    "ambiguous_framing",
    "body_too_large",
    "condition_failed",
    "not_allowed",
}
JSON, FORM, PARTS = "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
JSONS = [
    b'{"a":1,"a":2}', b'{"a":1,"A":2}', b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":%d}' % 2**70,
    b'{"a":9007199254740993}', b'{"a":0.1e-5,"b":-0}', b"[" * 60 + b"]" * 60, b"[" * 3000, b'\xef\xbb\xbf{"a":1}',
    '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16-le"), b'{"a":1} x', b'{"a":1}\n\n', b'{"a":1}\0',
    b'{"a":"\\ud800"}', b'{"a":"\\ud83d\\ude00"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xff"}', b"{'a':1}", b'{"a":01}',
    b'{"a":1,}', b'{"a":1/**/}', b'{"query":"mutation{a}","variables":{"x":1}}', b'{"query":"{a}","query":"{b}"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}', b'[{"jsonrpc":"2.0","method":"ping"}]',
    b'{"jsonrpc":"2.0","method":"a","method":"b"}', b'"text"', b"null", b"", b" ", b'{"\\u0061":1,"a":2}', b'{"":{"":[]}}',
]  # fmt: skip
FORMS = [
    b"a=1&a=2", b"a=1&A=2", b"a=1;b=2", b"a[b]=1&a[c]=2", b"a[]=1&a[]=2", b"a[b=1", b"a]b=1", b"a=%zz", b"a=%", b"=1",
    b"a=%00", b"a=%ff", b"a=1&a[b]=2", b"a.b=1&a_b=2", b"&a=1", b"a", b"a=b=c", b"a=+%2B", b"a%5Bb%5D=1", b'{"a":1}=',
    b"a[0][b]=1&a[0][c]=2", b"a=\xc3\xbc", b"%61=1&a=2", b"a=1&&b=2", b"a=x" + b"&b=1" * 1200,
]  # fmt: skip
_HEAD = b'--b\r\nContent-Disposition: form-data; name="a"'
MULTIPARTS = [
    _HEAD + b"\r\n\r\n1\r\n--b--\r\n", _HEAD + b"\r\n\r\n1\r\n" + _HEAD + b"\r\n\r\n2\r\n--b--\r\n",
    b"hi\r\n" + _HEAD + b"\r\n\r\n1\r\n--b--\r\n", _HEAD + b"\r\n\r\n1\r\n--b--\r\nbye", _HEAD + b"\r\n\r\n1\r\n--b\r\n",
    _HEAD + b'; filename="x"\r\n\r\n1\r\n--b--\r\n', _HEAD + b"; filename*=utf-8''x\r\n\r\n1\r\n--b--\r\n",
    _HEAD + b"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n1\r\n--c--\r\n--b--\r\n",
    _HEAD.replace(b"=b", b"") + b"\n\n1\n--b--\n", _HEAD + b'; name="b"\r\n\r\n1\r\n--b--\r\n',
    _HEAD + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n--b--\r\n", _HEAD + b"\r\n\r\n1\r\n--bb\r\n--b--\r\n",
]  # fmt: skip
TYPES = [
    JSON, FORM, PARTS, "application/json; charset=utf-8", "application/json; charset=utf-16", "application/json;charset",
    "text/json", "application/vnd.x+json", "text/plain", "APPLICATION/JSON", "application/json, text/plain", "",
    "multipart/form-data", 'multipart/form-data; boundary="b"', "multipart/form-data; boundary=b; boundary=c",
    "application/x-www-form-urlencoded; charset=latin1", "application/graphql", "application/json\t",
]  # fmt: skip


def _encoded(how: random.Random, body: bytes) -> tuple[str | None, bytes]:
    raw = zlib.compressobj(wbits=-15)
    packed = gzip.compress(body)
    return how.choice(
        [
            ("gzip", packed), ("deflate", zlib.compress(body)), ("deflate", raw.compress(body) + raw.flush()),
            ("gzip", packed[:-5]), ("gzip", packed + packed), ("gzip", packed + b"x"), ("gzip", body),
            ("gzip", gzip.compress(b" " * 8_000_000)), ("gzip, gzip", gzip.compress(packed)), ("br", body),
            ("zstd", body), ("x-gzip", packed), ("identity", body), ("gzip, identity", packed), ("bzip2", bz2.compress(body)),
            ("deflate", packed), ("gzip", zlib.compress(body)), ("", body), ("GZIP", packed),
        ]
    )  # fmt: skip


def generated(how: random.Random) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and a body."""
    kind, bodies = how.choice([(JSON, JSONS), (FORM, FORMS), (PARTS, MULTIPARTS)])
    body = how.choice(bodies)
    if body and how.random() < 0.3:
        at = how.randrange(len(body))
        body = how.choice([body[:at], body[:at] + how.randbytes(1) + body[at + 1 :], body[:at] + body])
    headers = [("Content-Type", how.choice(TYPES) if how.random() < 0.3 else kind)]
    if how.random() < 0.05:
        headers.append(("Content-Type", how.choice(TYPES)))
    if how.random() < 0.3:
        encoding, body = _encoded(how, body)
        headers.append(("Content-Encoding", encoding or ""))
    return headers, body


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a name twice left"
    return found


def _flat(value: object, name: str = "") -> list[tuple[str, object]]:
    """A nested form as its pairs; positions in lists as they came."""
    if isinstance(value, dict) and not (name and {"filename", "type", "size"} == value.keys()):
        return [pair for key, of in value.items() for pair in _flat(of, f"{name}[{key}]" if name else key)]
    if isinstance(value, list):
        return [pair for of in value for pair in _flat(of, f"{name}[]")]
    return [(name, value)]


def independent(content_type: str, body: bytes) -> object:
    """What the origin makes of its bytes: JSON as a value, forms as sorted pairs of names and texts."""
    if not body:
        return None
    if "json" in content_type.lower():
        return json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    if "urlencoded" in content_type.lower():
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=False, errors="strict")
        return sorted(pairs)
    message = email.message_from_bytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body, policy=email.policy.HTTP
    )
    assert not message.defects
    found = []
    for part in message.iter_parts():
        data = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        file = part.get_filename()
        text = (
            data.decode()
            if file is None
            else {"filename": file, "type": str(part.get("content-type", "")), "size": len(data)}
        )
        found.append((name, text))
    return sorted(found, key=str)


class Kept(list[Decided]):
    def keep(self, decided: Decided) -> None:
        self.append(decided)


async def run(folder: Path, number: int, seed: int) -> dict[str, int]:
    print(f"seed {seed}")
    how, counts, kept = random.Random(seed), {"forwarded": 0}, Kept()
    digests: dict[str, tuple[bytes, str]] = {}
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        policy = write_policy(folder / "policy", POLICY.format(port=origin.port), {"ca.pem": authority.pem})
        config = GateConfig(listen=(("127.0.0.1", 0),))
        async with running_gate(folder, policy, config=config, inputs=kept) as gate:
            agent = None
            for turn in range(number):
                headers, body = generated(how)
                where = f"seed {seed}, request {turn}: {headers} {body[:200]!r}"
                if agent is None:
                    agent = await Town(gate, origin).agent().__aenter__()
                before = len(origin.requests)
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
                agent.writer.write(
                    f"POST /read HTTP/1.1\r\nHost: saas.test\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                answer = await agent.read_answer("POST")
                if answer.code is not None or answer.headers.get("connection") == "close":
                    await agent.__aexit__()
                    agent = None
                if answer.code is not None:
                    assert answer.code in CODES, f"{answer.code}: {where}"
                    assert len(origin.requests) == before, f"refused and sent: {where}"
                    counts[answer.code] = counts.get(answer.code, 0) + 1
                    continue
                counts["forwarded"] += 1
                assert (answer.status, len(origin.requests)) == (200, before + 1), where
                seen, inputs = origin.requests[-1], DecisionInputs.from_bytes(kept[-1].inputs)
                assert seen.header("content-encoding") in (None, "identity"), where
                assert inputs.body in (Body.READ, Body.ABSENT), where
                ours = None if inputs.content is None else inputs.content.value
                kind = seen.header("content-type") or ""
                theirs = independent(kind, seen.body)
                if "json" not in kind.lower() and ours is not None:
                    ours = sorted(_flat(ours), key=str)
                    theirs = sorted(theirs or [], key=str)
                assert ours == theirs or (not seen.body and not ours), f"{ours!r} is not {theirs!r}: {where}"
                digests[kept[-1].call] = request_digest(seen.raw, seen.body), where
            if agent is not None:
                await agent.__aexit__()
            intents = {
                intent.body["call"]: intent.body["req"]["commit"] for intent in await gate.records("call.intent")
            }
            assert intents.keys() == digests.keys()
            for call, (digest, where) in digests.items():
                assert intents[call] == commitment(b"k" * 32, call, "req", digest), where
    print(counts)
    assert counts["forwarded"], counts
    assert len(counts) > 2, counts
    return counts


async def test_what_leaves_is_what_the_rules_saw(tmp_path: Path) -> None:
    await run(tmp_path, 60, int.from_bytes(os.urandom(4)))


@pytest.mark.campaign
async def test_what_leaves_is_what_the_rules_saw_of_thousands(tmp_path: Path) -> None:
    await run(tmp_path, 3000, int.from_bytes(os.urandom(4)))
