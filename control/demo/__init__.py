"""The demonstration: the real product on loopback, a small service, real clients. Nothing here is the product."""
