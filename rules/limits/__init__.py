"""The mathematics of limits: pure functions that are told the time. Who counts is the store behind `rules.claims`."""
