"""Deterministic simulation: the whole runner on virtual time, one seed = one trace."""
