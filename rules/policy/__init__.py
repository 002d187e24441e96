"""The policy: YAML in, one frozen `PolicySet` out, identified by the digest of its bundle."""
