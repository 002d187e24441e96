"""One ledger, several processes that write into it: the sequencer's process, and the ledger as the others see it.

- `python -m control.sequencing FOLDER` runs the sequencer (`program`, `server`, `connection`, `graces`);
- `RemoteLedger` is what a worker, or the control process, has instead of a `ledger.Ledger` (`client`);
- `Identity` is who a process is; its name is the records' `env.worker`.
"""

from control.sequencing.client import RemoteLedger, as_control
from control.sequencing.wire import CONTROL, WORKER, Identity

__all__ = ["CONTROL", "WORKER", "Identity", "RemoteLedger", "as_control"]
