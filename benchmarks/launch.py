"""Starts one process and measures it. Small, because a child's peak memory begins at that of whoever starts it.

python -I -S benchmarks/launch.py RESULT COMMAND...
"""

import json
import os
import signal
import sys
import time

signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C for the group is the command's
began = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, setsigdef=[signal.SIGINT])
_, status, usage = os.wait4(pid, 0)
found = {
    "wall": time.monotonic() - began,
    "cpu": usage.ru_utime + usage.ru_stime,
    "rss": usage.ru_maxrss * 1024 / 1e6,
    "code": os.waitstatus_to_exitcode(status),
    "began": began,
}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
