"""docs/reference/catalogue.md: its example is valid, no key is left out, and the built-in services are these."""

import re
from pathlib import Path
from textwrap import indent

import pytest

from rules.catalogue.builtin import BUILTIN, builtin
from rules.catalogue.document import AccountDocument, LookupDocument, ServiceDocument, ToolDocument, known_service
from rules.catalogue.usage_document import UsageDocument
from rules.policy.reading import read

DOC = (Path(__file__).parents[2] / "docs" / "reference" / "catalogue.md").read_text()


def test_the_example_of_usage_is_valid() -> None:
    (text,) = re.findall(r"^```yaml catalogue\n(.*?)^```$", DOC, re.M | re.S)
    reading, errors = read(text.encode(), "ours.yaml")
    assert reading is not None
    assert not errors
    usage = known_service(ServiceDocument.model_validate(reading.data)).tools["ours.ask"].usage
    assert usage is not None
    assert usage.events == (("start", "usage"), ("usage",))


def test_the_example_of_what_a_reply_corrects_is_valid() -> None:
    (text,) = re.findall(r"^```yaml told\n(.*?)^```$", DOC, re.M | re.S)
    reading, errors = read(f"catalogue: 1\nservice: crm\ntools:\n{indent(text, '  ')}".encode(), "crm.yaml")
    assert reading is not None
    assert not errors
    tools = known_service(ServiceDocument.model_validate(reading.data)).tools
    assert tools["crm.search"].told == (("rows", ("meta", "count")),)
    assert tools["crm.export"].told == (("rows", "x-rows"),)


def test_the_example_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", DOC, re.M | re.S)
    reading, errors = read(text.encode(), "crm.yaml")
    assert reading is not None
    assert not errors
    assert len(known_service(ServiceDocument.model_validate(reading.data)).tools) == 3


@pytest.mark.parametrize(
    ("title", "document"),
    [
        ("A service", ServiceDocument),
        ("Account", AccountDocument),
        ("A tool", ToolDocument),
        ("Lookups", LookupDocument),
        ("Usage", UsageDocument),
    ],
)
def test_every_key_is_explained(title: str, document: type) -> None:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOC, re.M | re.S)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M))
    assert list(rows) == list(document.model_fields)  # type: ignore[attr-defined]


def test_the_built_in_services_are_listed() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \|$", DOC, re.M)
    services = [service for name in BUILTIN if (service := builtin(name)) is not None]
    assert [(name, int(tools), re.findall(r"`(.*?)`", hosts)) for name, tools, hosts in rows] == [
        (service.name, len(service.tools), list(service.hosts)) for service in services
    ]
