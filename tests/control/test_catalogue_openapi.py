"""`exeat catalogue import openapi`: documents as services write them, and as somebody writes them who means harm."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.catalogue import document_reading
from control.catalogue.openapi import SHADOWED, Imported, import_openapi
from control.cli import run_command
from control.operations import Refused
from rules.catalogue.document import ServiceDocument, known_service
from rules.catalogue.known import KnownService
from rules.policy.load import load_policy
from rules.policy.reading import read
from rules.policy.templates import normal_segments

type Command = Callable[..., tuple[int, str, str]]

YAML = """\
openapi: 3.1.0
info: {title: "A: CRM", version: "1"}
servers:
  - url: https://api.acme.example/v2/
x-common: &common {description: anything, deep: {er: {and: {deeper: [1, 2, {three: 4}]}}}}
components: {schemas: {Lead: {type: object, properties: {self: {$ref: "#/components/schemas/Lead"}}}}}
paths:
  /leads:
    parameters: [*common]
    get: {operationId: listLeads, responses: {"200": *common}}
    post:
      operationId: createLead
      requestBody: {content: {application/json: {schema: {$ref: "other.yaml#/Lead"}}}}
  "/leads/{leadId}":
    get: {operationId: leads/get}
    head: {}
    delete: {operationId: leads/get}
    patch: {summary: no id}
    trace: {operationId: echo}
  "/leads/{leadId}:merge":
    post: {operationId: mergeLead}
  "/exports/{name}.{format}":
    get: {operationId: export}
  /moved: {$ref: "./moved.yaml"}
"""


def document(paths: object, **more: object) -> bytes:
    return json.dumps({"openapi": "3.0.3", "paths": paths, **more}).encode()


def imported(raw: bytes, service: str | None = "acme", hosts: tuple[str, ...] = ()) -> Imported:
    """Imported, and read back as a policy's folder would."""
    found = import_openapi(raw, service, hosts)
    assert known(found).name == found.service
    return found


def known(found: Imported) -> KnownService:
    reading, errors = read(found.text.encode(), "it.yaml")
    assert reading is not None
    assert not errors
    return known_service(ServiceDocument.model_validate(reading.data))


def calls(found: Imported) -> dict[str, tuple[str, ...]]:
    return {tool.name: tool.calls for tool in found.tools}


def tool_of(service: KnownService, method: str, path: str) -> list[str]:
    segments = normal_segments(path)
    assert segments is not None
    return [tool.name for tool, _ in service.candidates(method, segments)]


def test_operations_become_tools_with_the_effects_of_their_methods() -> None:
    found = imported(YAML.encode(), service=None)
    assert (found.service, found.hosts) == ("acme", ("api.acme.example",))
    assert [(tool.name, tool.effect, *tool.calls) for tool in found.tools] == [
        ("listLeads", "read", "GET /v2/leads"),
        ("createLead", "write", "POST /v2/leads"),
        ("leads/get", "read", "GET /v2/leads/{lead_id}"),
        ("leads/get-2", "delete", "DELETE /v2/leads/{lead_id}"),
        ("head.leads.leadId", "read", "HEAD /v2/leads/{lead_id}"),
        ("patch.leads.leadId", "write", "PATCH /v2/leads/{lead_id}"),
    ]
    assert [(left.operation, left.reason) for left in found.left_out] == [
        ("TRACE /leads/{leadId}", "a method that is never forwarded"),
        ("POST /leads/{leadId}:merge", "a parameter that is only a part of a segment"),
        ("GET /exports/{name}.{format}", "a parameter that is only a part of a segment"),
        ("any method /moved", "its path stands elsewhere: $ref, alias or merge"),
    ]
    assert "4 of its operations" in found.text


def test_json_and_yaml_of_one_document_are_one_file() -> None:
    raw = {
        "openapi": "3.0.0",
        "servers": [{"url": "https://api.acme.example"}],
        "paths": {"/a": {"get": {"operationId": "a"}, "post": {"operationId": "b", "servers": [{"url": "/v3"}]}}},
    }
    plain = """\
openapi: 3.0.0
servers: [{url: "https://api.acme.example"}]
paths:
  /a:
    get: {operationId: a}
    post: {operationId: b, servers: [{url: /v3}]}
"""
    one, other = imported(json.dumps(raw).encode()), imported(plain.encode())
    assert one.text.splitlines()[2:] == other.text.splitlines()[2:]
    assert calls(one) == {"a": ("GET /a",), "b": ("POST /v3/a",)}


def test_the_same_document_gives_the_same_file() -> None:
    assert imported(YAML.encode()).text == imported(YAML.encode()).text


@pytest.mark.parametrize(
    ("servers", "hosts", "call"),
    [
        ([{"url": "https://API.Acme.example:8443/v1/"}], ("api.acme.example",), ("GET /v1/a",)),
        ([{"url": "/v1"}], (), ("GET /v1/a",)),
        ([], (), ("GET /a",)),
        (
            [{"url": "https://a.example/x"}, {"url": "https://b.example"}],
            ("a.example", "b.example"),
            ("GET /x/a", "GET /a"),
        ),
        (
            [{"url": "https://{r}.a.example", "variables": {"r": {"default": "eu", "enum": ["eu", "us"]}}}],
            ("eu.a.example", "us.a.example"),
            ("GET /a",),
        ),
        ([{"url": "https://{r}.a.example", "variables": {"r": {"default": "you"}}}], ("*.a.example",), ("GET /a",)),
        ([{"url": "https://{r}.com"}], (), ("GET /a",)),
        ([{"url": "https://a.example/{v}", "variables": {"v": {"default": "v9"}}}], ("a.example",), ("GET /v9/a",)),
        ([{"url": "https://a.example/{tenantId}"}], ("a.example",), ("GET /{tenant_id}/a",)),
        ([{"url": "https://user:pw@a.example@evil.example/"}], ("evil.example",), ("GET /a",)),
        ([{"url": "https://a b.example/"}, {"url": 7}, "x", {"url": "https://*.example"}], (), ("GET /a",)),
    ],
)
def test_servers_say_hosts_and_where_paths_begin(servers: Any, hosts: tuple[str, ...], call: tuple[str, ...]) -> None:
    found = imported(document({"/a": {"get": {"operationId": "a"}}}, servers=servers))
    assert found.hosts == hosts
    assert calls(found)["a"] == call


def test_hosts_that_are_given_stand_in_place_of_the_documents() -> None:
    raw = document({"/a": {"get": {}}}, servers=[{"url": "https://api.stripe.com/v1"}])
    found = imported(raw, hosts=("Crm.Example", "*.crm.example"))
    assert found.hosts == ("crm.example", "*.crm.example")
    assert calls(found) == {"get.a": ("GET /v1/a",)}


def test_no_request_of_a_path_that_cannot_be_written_is_taken_for_a_neighbour() -> None:
    found = imported(
        document(
            {
                "/jobs": {"post": {"operationId": "create"}},
                "/jobs/{id}": {"get": {"operationId": "get"}, "post": {"operationId": "update"}},
                "/jobs/{id}:cancel": {"post": {"operationId": "cancel"}},
                "/jobs/all": {"post": {"operationId": "all"}},
                "/{kind}/{id}": {"post": {"operationId": "any"}, "delete": {"operationId": "drop"}},
                "/files/{path+}": {"get": {"operationId": "file"}},
                "/files/{a}/{b}": {"get": {"operationId": "two"}, "put": {"operationId": "put"}},
                "/files/{a}/meta": {"get": {"operationId": "meta"}},
                "/act?do=drop": {"post": {"operationId": "act.drop"}},
                "/act": {"post": {"operationId": "act"}},
                "/there/{x}": {"$ref": "there.yaml"},
                "/there/{y}/": {"get": {"operationId": "slash"}},
                "/there/now": {"get": {"operationId": "now"}},
            }
        )
    )
    assert sorted(calls(found)) == ["all", "create", "get", "meta", "now", "put", "slash"]
    service = known(found)
    assert tool_of(service, "POST", "/jobs/7:cancel") == []
    assert tool_of(service, "POST", "/act") == []
    assert tool_of(service, "GET", "/files/a/b") == []
    assert tool_of(service, "GET", "/there/later") == []
    assert sorted(left.operation for left in found.left_out if left.reason == SHADOWED) == [
        "DELETE /{kind}/{id}",
        "GET /files/{a}/{b}",
        "POST /act",
        "POST /jobs/{id}",
        "POST /{kind}/{id}",
    ]


def test_two_operations_that_nothing_tells_apart_are_one() -> None:
    found = imported(document({"/a/{x}": {"get": {"operationId": "one"}}, "/a/{y}": {"get": {"operationId": "two"}}}))
    assert calls(found) == {"one": ("GET /a/{x}",)}
    assert [left.operation for left in found.left_out] == ["GET /a/{y}"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("a\n  evil: {call: GET /x, effect: read}\n", "a_evil_call_GET_/x_effect_read"),
        ('a": {effect: read}, "b', "a_effect_read_b"),
        ("unknown", "unknown-2"),
        ("never", "never-2"),
        ("true", "true"),
        ("..", "get.a"),
        ("", "get.a"),
        ("ünï", "n"),
        ("a..b//c./d", "a.b/c/d"),
        ("*", "get.a"),
        ("\x1b[2J", "2J"),
    ],
)
def test_an_operation_id_becomes_a_name_and_nothing_else(given: str, name: str) -> None:
    found = imported(document({"/a": {"get": {"operationId": given}}}))
    assert calls(found) == {name: ("GET /a",)}


def test_names_are_bounded_and_stay_apart() -> None:
    paths = {f"/p{number}": {"get": {"operationId": "x" * 5000}} for number in range(3)}
    names = list(calls(imported(document({**paths, "/q": {"get": {"operationId": "x" * 4000}}}))))
    assert len(set(names)) == 4
    assert all(len(name) <= 110 for name in names)


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a//b",
        "//evil.example/a",
        "a",
        "/a\n  evil: {}",
        "/a%2fb",
        "/a/{x}/**",
        "/a\\b",
        "/{}",
        "/{a}{b}",
        "/a}{",
        "/" + "a/" * 40,
        "https://evil.example/a",
    ],
)
def test_a_path_that_is_none_is_left_out(path: str) -> None:
    found = imported(document({path: {"get": {"operationId": "evil"}}, "/good": {"get": {"operationId": "good"}}}))
    assert calls(found) == {"good": ("GET /good",)}
    assert len(found.left_out) == 1
    assert found.left_out[0].operation.isprintable()


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64))


@pytest.mark.parametrize(
    "raw",
    [
        YAML.replace("info:", BOMB + "info:").encode(),
        YAML.replace("anything", "!!python/object/apply:os.system [id]").encode(),
        YAML.replace("{description: anything", "{d: " + "[" * 100 + "]" * 100).encode(),
    ],
    ids=["a bomb of aliases", "a tag", "depth"],
)
def test_what_is_not_needed_is_skipped_whatever_it_is(raw: bytes) -> None:
    assert imported(raw).tools == imported(YAML.encode()).tools


def test_an_alias_where_something_is_needed_is_left_out() -> None:
    raw = b"openapi: 3.0.0\nx: &op {operationId: hidden}\npaths:\n  /a: {get: *op}\n  /b: {get: {<<: *op}}\n  /c: *op\n"
    found = imported(raw)
    assert calls(found) == {"get.b": ("GET /b",)}
    assert len(found.left_out) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b'{"openapi": "3.0.0", "paths": {"/a": {"get": {"operationId": "x"}}, "/a": {"get": {}}, "/b": {"get": {}}}}',
        b"openapi: 3.0.0\npaths:\n  /a: {get: {operationId: x}}\n  /a: {get: {}}\n  /b: {get: {}}\n",
    ],
)
def test_a_path_that_stands_twice_is_left_out(raw: bytes) -> None:
    found = imported(raw)
    assert calls(found) == {"get.b": ("GET /b",)}
    assert [left.operation for left in found.left_out] == ["any method /a"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not an OpenAPI document"),
        (b"[]", "not an OpenAPI document"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"a: b: c", "not YAML"),
        (b'a: "\\UFFFFFFFF"', "not YAML"),
        (b"? [a]\n: b\n", "a key that is not text"),
        (b"a: 1\n---\nb: 2\n", "several documents"),
        (b"a: " + b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"openapi": "3.0.0", "x": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"swagger: '2.0'\npaths: {}\n", "Swagger 2.0"),
        (b"openapi: 4.0.0\npaths: {/a: {get: {}}}\n", "not an OpenAPI 3.0 or 3.1"),
        (b"openapi: 3.0.0\n", "no paths"),
        (b"openapi: 3.0.0\npaths: {/a: {}}\n", "none of the document's operations"),
        (document({f"/p{n}": {"get": {}} for n in range(5001)}), "at most 5000 tools"),
        (document({f"/p{n}": {"get": {}} for n in range(10_001)}), "more than 10000 operations"),
    ],
)
def test_what_is_no_document_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(Refused) as caught:
        import_openapi(raw, "acme", ())
    assert says in str(caught.value)


def test_a_document_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_reading, "MAX_EVENTS", 50)
    with pytest.raises(Refused, match="more than 50 values"):
        import_openapi(YAML.encode(), "acme", ())
    monkeypatch.setattr(document_reading, "MAX_YAML_BYTES", 100)
    with pytest.raises(Refused, match="MiB of YAML"):
        import_openapi(YAML.encode(), "acme", ())
    with pytest.raises(Refused, match="larger than 64 MiB"):
        import_openapi(b" " * (document_reading.MAX_JSON_BYTES + 1), "acme", ())


@pytest.mark.parametrize(
    ("service", "servers", "says"),
    [
        (None, [], "names no host"),
        ("Not One", [], "not the name of a service"),
        ("stripe", [], "is built in"),
        (None, [{"url": "https://api.stripe.com"}], "stripe is built in"),
    ],
)
def test_a_service_has_a_name_of_its_own(service: str | None, servers: Any, says: str) -> None:
    with pytest.raises(Refused) as caught:
        import_openapi(document({"/a": {"get": {}}}, servers=servers), service, ())
    assert says in str(caught.value)


@pytest.fixture
def exeat(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["catalogue", "import", "openapi", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_the_file_loads_in_a_policys_folder(exeat: Command, tmp_path: Path) -> None:
    (tmp_path / "acme.json").write_text(YAML)
    folder = tmp_path / "policy"
    folder.mkdir()
    code, out, err = exeat(tmp_path / "acme.json", "--output", folder / "crm.yaml")
    assert (code, out) == (0, "")
    assert "acme: 6 tools (3 read, 2 write, 1 delete)" in err
    assert "left out 2: a parameter that is only a part of a segment, as in POST /leads/{leadId}:merge" in err
    (folder / "tenant.yaml").write_text("""\
exeat: 1
tenant: acme
connections: {crm: {host: api.acme.example}}
accounts:
  agent:
    owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}
    rules: [{id: leads, allow: acme.listLeads}, {id: reads, allow: {tools: ["acme.*"], effects: [read]}}]
""")
    assert [service.service for service in load_policy(folder).services] == ["acme"]


def test_what_was_reviewed_is_not_overwritten(exeat: Command, tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text(YAML)
    (tmp_path / "out.yaml").write_text("reviewed")
    code, _, err = exeat(tmp_path / "in.yaml", "--output", tmp_path / "out.yaml")
    assert code == 2
    assert "is there already" in err
    assert (tmp_path / "out.yaml").read_text() == "reviewed"


def test_programs_get_what_was_left_out(exeat: Command, tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text(YAML)
    code, out, err = exeat(tmp_path / "in.yaml", "--service", "crm", "--host", "crm.example", "--json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert (answer["service"], answer["hosts"], answer["file"]) == ("crm", ["crm.example"], None)
    assert answer["text"] == import_openapi(YAML.encode(), "crm", ("crm.example",)).text
    assert len(answer["left_out"]) == 4


def test_a_file_that_is_not_there_could_not_be_read(exeat: Command, tmp_path: Path) -> None:
    code, _, err = exeat(tmp_path / "none.yaml")
    assert code == 3
    assert "cannot be read" in err
