"""Several processes that are one gate: a supervisor, one control, N workers, one sequencer of the ledger.

supervisor   holds the doors' sockets, starts the others, starts again what died; knows no secret
control      holds the state; operators, health and metrics; tells the workers what is in force
workers      a gate each, all at the same doors; know what control told them, for as long as they hear from it
sequencer    the only writer of the ledger (`control.sequencing`)
"""
