"""What an MCP server answers, as the account may see it: a list of tools has only those that may be called.

messages.py      one JSON-RPC message, or a batch: its lists of tools with what may stay
definition.py    the digest of a tool's definition
event_stream.py  Server-Sent Events: each event's message, as soon as the event is complete
whole.py         any other answer, held until it is whole
mcp.py           which of them an answer needs; where the pipeline asks
"""
