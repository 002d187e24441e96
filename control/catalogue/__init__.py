"""The catalogue for operators: what it knows, and files for it from what services publish about themselves."""
