"""The state of one installation: what operators decide, and the keys and records behind it.

`State` owns the folder: one process at a time, everything in it readable by us alone. Every change an operator makes
follows the same order: it is written to the database together with the record that will say so, the record becomes
durable in the ledger, and only then is it in force and reported. The one exception is a revocation, which is in force
first. What a crash interrupts is finished, or found never to have been promised, when the state is opened again.
"""

from control.state.errors import (
    RevocationIncomplete,
    StateError,
    StateInvalid,
    StateLocked,
    StateRefused,
    StateUnavailable,
)
from control.state.policies import Applied
from control.state.revocations import RestoreDone, RevocationDone
from control.state.sealing import SecretVersion
from control.state.state import State

__all__ = [
    "Applied",
    "RestoreDone",
    "RevocationDone",
    "RevocationIncomplete",
    "SecretVersion",
    "State",
    "StateError",
    "StateInvalid",
    "StateLocked",
    "StateRefused",
    "StateUnavailable",
]
