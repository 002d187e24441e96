"""uvicorn with one of its two parsers. Arguments: port, chain, key, parser. Each request is one line of JSON."""

import base64
import json
import sys
from typing import Any

import uvicorn


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    seen = {
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    }
    print(json.dumps(seen), flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"ok"})


uvicorn.run(
    app, host="127.0.0.1", port=int(sys.argv[1]), ssl_certfile=sys.argv[2], ssl_keyfile=sys.argv[3],
    http=sys.argv[4], lifespan="off", log_level="error", access_log=False, h11_max_incomplete_event_size=131072,
)  # fmt: skip
