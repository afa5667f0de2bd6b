"""batchrunner: hundreds of paid, slow, remote generation jobs, done by morning, each paid for once."""

__version__ = "0.1.0"
