"""Commitments to payloads: testable by who holds the tenant's key, guessable by nobody else, dead once it is erased."""

import hmac


def commitment(key: bytes, call: str, field: str, data: bytes) -> str:
    """`hmac-sha256:<64 hex>` that binds the data to this call and field.

    salt = HMAC-SHA256(key, call || "|" || field); commitment = HMAC-SHA256(salt, "ledger/v1/" || field || NUL || data).
    One salt a field of a call: disclosing it opens that one value and no other. `key` has at least 16 bytes.
    """
    if len(key) < 16:
        raise ValueError("a commitment key has at least 16 bytes")
    return "hmac-sha256:" + hmac.digest(salt(key, call, field), _context(field) + data, "sha256").hex()


def salt(key: bytes, call: str, field: str) -> bytes:
    """What is disclosed together with a value to let somebody check its commitment."""
    return hmac.digest(key, f"{call}|{field}".encode(), "sha256")


def commitment_holds(disclosed_salt: bytes, field: str, data: bytes, expected: str) -> bool:
    """True when the value and salt belong to the commitment."""
    computed = "hmac-sha256:" + hmac.digest(disclosed_salt, _context(field) + data, "sha256").hex()
    return hmac.compare_digest(computed, expected)


def _context(field: str) -> bytes:
    return f"ledger/v1/{field}\x00".encode()
