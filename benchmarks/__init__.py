"""One command that measures this product beside its peers: `python -m benchmarks`.

Figures are only comparable within one run: rounds are interleaved, every peer serves the same client and the same
origin, and the ratios are what to keep. Everything stays on the loopback interface.

- `peers/`: one file a peer and one line in its ordered tuple
- `origin`: the TLS service that is called; a process of its own
- `load`: the client; runs in this process
- `measure`: one reading of one peer: throughput, new tunnels, memory
- `place`: certificates, folders, ports and cores shared by a run
- `report`: the table and the JSON
"""
