"""Counters, leases and budgets of several processes, in Redis or Valkey.

place     where the server is and how to be let in
wire      one pipelined connection
link      the wire that is up, the breaker, and what a server must be like
scripts   what runs in the server: one atomic step before a call, one after it
outbox    ends of reservations on their way to the server
store     the port
books     reading, loading and correcting what is counted
"""
