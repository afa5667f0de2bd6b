"""One module a verb: parse, call, render, exit code. No logic."""
