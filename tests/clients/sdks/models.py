"""A fake of two vendors of models, which counts: what it answers depends on what it is asked, and it keeps a bill.

The counts are made up from the request (a token a word), and stated in the reply as the vendor states them; the bill
has them also where the vendor would not have told: in a stream without `include_usage`, or one that nobody read to its
end.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from tests.worlds.origin import Peer, Request, reply

WORDS = ("Once", " upon", " a", " time")
CACHED = 3
"""Of each request's tokens, read from the vendor's cache."""


@dataclass
class Models:
    """Whoever asks for the model `slow` gets one word, and then waits for ever."""

    bill: list[tuple[int, int]] = field(default_factory=list)
    """Of each request: tokens read (the cached ones among them) and written."""

    async def answer(self, request: Request, peer: Peer) -> None:
        """As the vendor of the request's host."""
        asked = json.loads(request.body)
        read = len(request.body.split()) + CACHED
        written = 0 if request.target == "/v1/embeddings" else len(WORDS)
        self.bill.append((read, written))
        match request.target:
            case "/v1/chat/completions":
                await self._chat(asked, peer, read, written)
            case "/v1/responses":
                await self._responses(asked, peer, read, written)
            case "/v1/embeddings":
                data = [{"object": "embedding", "index": 0, "embedding": [0.5] * 1536}]
                usage = {"prompt_tokens": read, "total_tokens": read}
                await peer.send(_json({"object": "list", "model": asked["model"], "data": data, "usage": usage}))
            case "/v1/messages":
                await self._messages(asked, peer, read, written)
            case _:
                await peer.send(reply(b"{}", status="418 I'm a teapot"))

    async def _chat(self, asked: Any, peer: Peer, read: int, written: int) -> None:
        usage = {
            "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": CACHED},
        }  # fmt: skip
        common = {"id": "c1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            await peer.send(_json(common | {"object": "chat.completion", "choices": [choice], "usage": usage}))
            return
        told = (asked.get("stream_options") or {}).get("include_usage")
        more: Any = {"usage": None} if told else {}
        chunks = [
            common | more | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
            for word in WORDS
        ]
        if told:
            chunks.append(common | {"object": "chat.completion.chunk", "choices": [], "usage": usage})
        await _stream(peer, [("", chunk) for chunk in chunks] + [("", "[DONE]")], hang=asked["model"] == "slow")

    async def _responses(self, asked: Any, peer: Peer, read: int, written: int) -> None:
        usage = {
            "input_tokens": read, "input_tokens_details": {"cached_tokens": CACHED}, "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read + written,
        }  # fmt: skip
        text = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
        output = [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [text]}]
        common = {
            "id": "resp_1", "object": "response", "created_at": 1, "model": asked["model"], "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": [],
        }  # fmt: skip
        done = common | {"status": "completed", "output": output, "usage": usage}
        if not asked.get("stream"):
            await peer.send(_json(done))
            return
        events: list[tuple[str, Any]] = [
            ("response.created", {"response": common | {"status": "in_progress", "output": [], "usage": None}})
        ]
        where = {"item_id": "m1", "output_index": 0, "content_index": 0, "logprobs": []}
        events += [("response.output_text.delta", where | {"delta": word}) for word in WORDS]
        events.append(("response.completed", {"response": done}))
        numbered = [(kind, {"type": kind, "sequence_number": n} | data) for n, (kind, data) in enumerate(events)]
        await _stream(peer, numbered, hang=asked["model"] == "slow")

    async def _messages(self, asked: Any, peer: Peer, read: int, written: int) -> None:
        usage = {
            "input_tokens": read - CACHED, "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0,
            "output_tokens": written,
        }  # fmt: skip
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "stop_sequence": None,
        }
        if not asked.get("stream"):
            text = [{"type": "text", "text": "".join(WORDS)}]
            await peer.send(_json(message | {"content": text, "stop_reason": "end_turn", "usage": usage}))
            return
        begun = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
        events: list[tuple[str, Any]] = [("message_start", {"message": begun})]
        events.append(("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}))
        events += [
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}) for word in WORDS
        ]
        events.append(("content_block_stop", {"index": 0}))
        end = {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": written}}
        events += [("message_delta", end), ("message_stop", {})]
        await _stream(peer, [(kind, {"type": kind} | data) for kind, data in events], hang=asked["model"] == "slow")


def _json(value: object) -> bytes:
    return reply(json.dumps(value).encode())


async def _stream(peer: Peer, events: list[tuple[str, Any]], *, hang: bool) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number, (kind, data) in enumerate(events):
        name = f"event: {kind}\n" if kind else ""
        line = f"{name}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        await peer.send(b"%x\r\n%b\r\n" % (len(line), line))
        if hang and number >= 3:
            await peer.connection.closed.wait()
            return
        await asyncio.sleep(0)
    await peer.send(b"0\r\n\r\n")
