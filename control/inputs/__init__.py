"""Decision inputs, kept sealed beside the ledger: a loss costs a replay one answer, and no call waits for it.

gate -> KeptInputs.keep -> a bounded queue -> one thread -> sealed rows in inputs.sqlite, under keys/inputs.sqlite
"""

from control.inputs.kept import KeptInputs, Losses
from control.inputs.rows import Opened, Row, Selection

__all__ = ["KeptInputs", "Losses", "Opened", "Row", "Selection"]
