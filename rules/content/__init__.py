"""What a request's body or query says, read in exactly one way, or refused.

Rules judge what these readers return, and the origin reads the same bytes with a parser of its own. So whatever two
parsers in use are known to read differently is refused here, even where a specification would decide it.
"""
