"""A TLS 1.3 client that says what no library says: Python's handshake, then records made by hand (RFC 8446)."""

import asyncio
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HANDSHAKE, _DATA = 22, 23


class HandMade:
    """One connection. What is read goes through Python's TLS, what is sent does not after `connect`."""

    def __init__(self, context: ssl.SSLContext, folder: Path) -> None:
        log = folder / "tls-keys"
        context.keylog_filename = str(log)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._log = log
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._context = context
        self._sent = 0

    async def connect(self, port: int, name: str) -> None:
        """The handshake is done."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self._tls = self._context.wrap_bio(self._in, self._out, server_hostname=name)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.writer.write(self._out.read())
                self._in.write(await self.reader.read(65536))
        self.writer.write(self._out.read())
        line = next(line for line in self._log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0"))
        self._secret = bytes.fromhex(line.split()[2])
        cipher = (self._tls.cipher() or ("", "", 0))[0]
        self._hash = hashes.SHA384() if "SHA384" in cipher else hashes.SHA256()
        self._key_bytes = 16 if "AES_128" in cipher else 32
        self._aead = ChaCha20Poly1305 if "CHACHA20" in cipher else AESGCM

    def data(self, content: bytes) -> bytes:
        """A record of application data."""
        return self._record(_DATA, content)

    def key_update(self) -> bytes:
        """A KeyUpdate that asks for another in return (section 4.6.3); what follows is under the next key."""
        record = self._record(_HANDSHAKE, b"\x18\x00\x00\x01\x01")
        self._secret = self._expand(b"traffic upd", self._hash.digest_size)
        self._sent = 0
        return record

    async def read(self) -> bytes:
        """Everything that comes until the other side closes."""
        received = bytearray()
        while data := await self.reader.read(65536):
            self._in.write(data)
            try:
                while piece := self._tls.read(65536):
                    received += piece
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLZeroReturnError:
                break
            break
        return bytes(received)

    def _record(self, kind: int, content: bytes) -> bytes:
        """Sections 5.2 and 5.3."""
        nonce = int.from_bytes(self._expand(b"iv", 12)) ^ self._sent
        self._sent += 1
        inner = content + bytes([kind])
        header = struct.pack(">BHH", _DATA, 0x0303, len(inner) + 16)
        cipher = self._aead(self._expand(b"key", self._key_bytes))
        return header + cipher.encrypt(nonce.to_bytes(12), inner, header)

    def _expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (section 7.1) without a context."""
        full = b"tls13 " + label
        return HKDFExpand(self._hash, length, struct.pack(">HB", length, len(full)) + full + b"\0").derive(self._secret)
