"""The agent's leg: mitmproxy's TLS core under our own listener. The only place that imports mitmproxy.

What is used of it: `ClientTLSLayer`, the sans-IO state machine that reads a ClientHello, asks for a certificate and
carries TLS. What is not: its HTTP layers, its addons, its options, its hooks' `safecall` (which logs an exception and
forwards all the same), its connection handler (no back-pressure, no cut). See docs/decisions/0001.
"""
