"""What has no value in a call."""


class Unknown(Exception):
    """There is no value: a condition that needs it cannot be told."""
