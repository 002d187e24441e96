"""The demonstration's agents: ordinary programs that know nothing of Exeat. Run as `python -m control.demo.agent WHAT`.

They use the OpenAI SDK where it is installed and httpx2 where it is not; each prints what it observed as JSON lines.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

try:
    import openai
except ImportError:  # it is a development dependency only
    HAS_SDK = False
else:
    HAS_SDK = True

MODELS = "https://models.demo.test/v1"
TICKETS = "https://tickets.demo.test/v1"
OWN_KEY = "not-a-key"
"""All the key an agent needs: the SDK insists on one."""


def main() -> None:
    """One scene, named on the command line."""
    {"chat": chat, "delete": delete, "tickets": tickets, "spend": spend, "stream": stream}[sys.argv[1]]()


def tell(**observed: object) -> None:
    """One observation, at once."""
    sys.stdout.write(json.dumps(observed) + "\n")
    sys.stdout.flush()


def ask(prompt: str) -> tuple[int, str, str | None]:
    """Status, text or title, and code of one chat completion."""
    if not HAS_SDK:
        answer = httpx2.post(f"{MODELS}/chat/completions", json=_body(prompt), headers=_own(), timeout=30)
        document = answer.json()
        if answer.status_code != 200:
            return answer.status_code, document["title"], document["code"]
        return 200, document["choices"][0]["message"]["content"], None
    try:
        done = _sdk().chat.completions.create(model="demo-1", messages=[{"role": "user", "content": prompt}])
    except openai.APIStatusError as error:
        return error.status_code, f"{type(error).__name__}: {_title(error.body)}", error.code
    return 200, str(done.choices[0].message.content), None


def chat() -> None:
    """An allowed call, and a look for the real secret wherever this program can look."""
    status, text, _ = ask("Can ticket 41 be closed?")
    client = "the OpenAI SDK" if HAS_SDK else "httpx2; the OpenAI SDK is not installed"
    tell(client=client, status=status, text=text, environment=_readable_environment())


def delete() -> None:
    """A call that no rule allows and one forbids."""
    if not HAS_SDK:
        answer = httpx2.delete(f"{MODELS}/models/demo-1", headers=_own(), timeout=30)
        tell(status=answer.status_code, error=None, code=answer.json()["code"], rule=answer.json()["rule"])
        return
    try:
        _sdk().models.delete("demo-1")
    except openai.APIStatusError as error:
        rule = error.body.get("rule") if isinstance(error.body, dict) else None
        tell(status=error.status_code, error=type(error).__name__, code=error.code, rule=rule)


def tickets() -> None:
    """Reads until a rate limit says stop."""
    with httpx2.Client(timeout=30) as client:
        for number in range(1, 11):
            answer = client.get(f"{TICKETS}/tickets/{number}")
            document = answer.json()
            wait = answer.headers.get("retry-after")
            tell(number=number, status=answer.status_code, code=document.get("code"), retry_after=wait)
            if answer.status_code != 200:
                return


def spend() -> None:
    """Asks until the money is gone."""
    for number in range(1, 21):
        status, text, code = ask(f"Question {number}")
        tell(number=number, status=status, code=code, text=text)
        if status != 200:
            return


def stream() -> None:
    """Reads a long answer word by word until it ends, however that happens; then tries once more."""
    words, ended = 0, "completed"
    pieces = _stream_sdk() if HAS_SDK else _stream_httpx()
    try:
        for _ in pieces:
            words += 1
            tell(words=words, at=time.time())
    except Exception as error:  # noqa: BLE001 - whatever a client makes of a cut connection is what is shown
        ended = type(error).__name__
    tell(ended=ended, words=words, at=time.time())
    status, text, code = _once_more()
    tell(again=True, status=status, text=text, code=code)


def _once_more() -> tuple[int, str, str | None]:
    try:
        return ask("Are you there?")
    except Exception as error:  # noqa: BLE001 - as above
        # SDKs hide why a CONNECT was refused behind a connection error; the proxy's status is in the cause.
        return 0, f"{type(error).__name__} ({error.__cause__ or error})", None


def _stream_sdk() -> Iterator[str]:
    answer = _sdk().chat.completions.create(
        model="demo-1", messages=[{"role": "user", "content": "Write a book."}], stream=True
    )
    for chunk in answer:
        yield str(chunk.choices[0].delta.content)


def _stream_httpx() -> Iterator[str]:
    body = _body("Write a book.") | {"stream": True}
    with httpx2.stream("POST", f"{MODELS}/chat/completions", json=body, headers=_own(), timeout=30) as answer:
        yield from (line for line in answer.iter_lines() if line.startswith("data: "))


def _sdk() -> "openai.OpenAI":
    return openai.OpenAI(base_url=MODELS, api_key=OWN_KEY, max_retries=0, timeout=30)


def _own() -> dict[str, str]:
    return {"Authorization": f"Bearer {OWN_KEY}"}


def _body(prompt: str) -> dict[str, object]:
    return {"model": "demo-1", "messages": [{"role": "user", "content": prompt}]}


def _title(body: object) -> str:
    return str(body.get("title")) if isinstance(body, dict) else ""


def _readable_environment() -> str:
    """Everything this program can read about itself: variables and command line, as the kernel has them."""
    own = Path("/proc/self/environ"), Path("/proc/self/cmdline")
    return "\n".join([*(f"{k}={v}" for k, v in os.environ.items()), *(p.read_text() for p in own if p.exists())])


if __name__ == "__main__":
    main()
