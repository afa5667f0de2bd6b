"""The tests of the tests: named mistakes in the real code, every one of which must be caught."""
