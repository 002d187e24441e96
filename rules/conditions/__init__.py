"""Conditions on rules: expressions in CEL over what is known of a call, compiled when the policy loads."""
