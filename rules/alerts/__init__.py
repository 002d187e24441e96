"""Where alerts go: destinations, as a policy names them, and what their secrets have to be."""
