"""How much of a message is accepted. Every number has its precedent beside it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of both directions; enforced while bytes stream in, before more than the bound is held."""

    max_header_bytes: int = 32 * 1024
    """Request line and fields together. nginx 4 x 8 KiB, Apache 8 KiB a field, Node 16 KiB, squid 64 KB."""
    max_header_count: int = 100
    """Apache LimitRequestFields 100, Go's http2 about 100, Django 100 parameters."""
    max_target_bytes: int = 8 * 1024
    """RFC 9112 section 3 asks for at least 8000; Apache 8190, nginx 8 KiB."""
    max_body_bytes: int | None = 1024 * 1024
    """What is held and digested before the intent. None: the caller counts (rules that stream)."""
    pause_bytes: int = 256 * 1024
    """Above this many unconsumed bytes the caller stops reading from its peer (`wants_pause`)."""
    max_pipelined_bytes: int = 1024 * 1024
    """Backstop behind `pause_bytes`: a caller that did not pause gets a refusal, not unbounded memory."""
    free_chunks: int = 1024
    """Chunks of any size in a request; beyond them a chunk has to carry 16 bytes on average. A body of one-byte chunks
    costs a parser some hundred times its size in work."""
    max_response_header_bytes: int = 64 * 1024
    """Origins send long Set-Cookie, Link and CSP fields. curl 300 KB in all, Node 16 KiB, Go 1 MiB, nginx 4-8 KiB."""
    max_response_header_count: int = 200
    """GitHub sends about 30, some CDNs 60."""
    max_interim_responses: int = 8
    """1xx before the final response. Go's net/http client stops at 5."""
    max_trailer_bytes: int = 8 * 1024
    """Response trailers; validated, then dropped."""
    max_chunk_extension_bytes: int = 1024
    """One response chunk's extensions, ignored after validation. Go stops at 16 KiB in all (CVE-2023-39326)."""
    free_response_chunks: int = 65536
    """As `free_chunks`, for event streams that send a few bytes at a time over hours."""
