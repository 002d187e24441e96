"""Adapters that keep state: the database, the ledger's register and the counters of limits."""
