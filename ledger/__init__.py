"""The ledger: every call in a signed, hash-chained log that a stranger can verify offline.

What a program needs to know:

- `Ledger` writes: `submit` returns once the record is durable, with a `Receipt`. If it cannot, it says so, and the
  caller must deny. It is the only writer of its directory.
- `read_records`, `Cursor` and `find_call` read what is committed.
- `verify` recomputes everything from the bytes and names what is wrong; it trusts only the trust file.
- `LockStore` is the one thing a caller has to bring: a register outside the directory for the newest checkpoint.

This package imports none of the others and needs nothing but the standard library and `cryptography`.
"""

from ledger.batch import Batch, Receipt, receipt_holds
from ledger.clock import Clock, SystemClock
from ledger.commitment import commitment, commitment_holds, salt
from ledger.errors import LedgerError, LedgerHeld, LedgerRefused, LedgerUnavailable, RecordRefused
from ledger.files import Files, PosixFiles
from ledger.findings import KINDS, Finding, Weight
from ledger.lifecycle import OpenIntent
from ledger.locks import LockStore, MemoryLockStore
from ledger.log import Head, Ledger
from ledger.reading import Cursor, Record, find_call, read_records, receipts_again
from ledger.report import EXIT_COULD_NOT_RUN, EXIT_WRONG_USE, Report, printable, render
from ledger.resume import FileResumeStore, ResumeStore
from ledger.sequencer import Limits
from ledger.sources import DirectorySource, MemorySource, Source
from ledger.trust import Trust, TrustInvalid
from ledger.verify import WrongUse, verify

__all__ = [
    "EXIT_COULD_NOT_RUN",
    "EXIT_WRONG_USE",
    "KINDS",
    "Batch",
    "Clock",
    "Cursor",
    "DirectorySource",
    "FileResumeStore",
    "Files",
    "Finding",
    "Head",
    "Ledger",
    "LedgerError",
    "LedgerHeld",
    "LedgerRefused",
    "LedgerUnavailable",
    "Limits",
    "LockStore",
    "MemoryLockStore",
    "MemorySource",
    "OpenIntent",
    "PosixFiles",
    "Receipt",
    "Record",
    "RecordRefused",
    "Report",
    "ResumeStore",
    "Source",
    "SystemClock",
    "Trust",
    "TrustInvalid",
    "Weight",
    "WrongUse",
    "commitment",
    "commitment_holds",
    "find_call",
    "printable",
    "read_records",
    "receipt_holds",
    "receipts_again",
    "render",
    "salt",
    "verify",
]
