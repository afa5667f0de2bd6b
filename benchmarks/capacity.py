"""What the double can do, so that nobody has to believe that it was not the bottleneck."""

from __future__ import annotations

import re
from pathlib import Path

from .harness import Check, Context, Double, Result, Unavailable, measure
from .peers.runners import tool

POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Connection"] = "%s"
wrk.body = '{"duration":3,"model":"kling-3-0-turbo","prompt":"%s","resolution":"720p"}'
"""


def run(context: Context) -> Result:
    folder = context.room("capacity")
    result = Result("double", "the provider double by itself, asked by `wrk` with 64 connections")
    try:
        wrk = tool("wrk", "wrk")
    except Unavailable as reason:
        result.checks.append(Check("capacity of the double", f"not measured: {reason}"))
        return result
    seconds = context.pick(5, 2)
    result.table = [("call", "calls/s", "us of its CPU a call", "calls/s that one core is good for")]
    with Double.started() as double:
        task = f"/api/v1/tasks/task_{0:026d}"
        for what, path, script in (
            ("GET task, connection kept", task, None),
            ("POST, connection kept", "/api/v1/videos/generations", POST % ("keep-alive", "x" * 200)),
            ("POST, a connection each", "/api/v1/videos/generations", POST % ("close", "x" * 200)),
            ("GET file of 400 bytes", f"/media/tasks/task_{0:026d}/0.mp4", None),
            ("GET file of 5 MB", f"/media/tasks/task_{0:026d}/0.mp4", None),
        ):
            double.reset(tasks=1, file_bytes=5_000_000 if "5 MB" in what else 400)
            command = [wrk, "-t1", "-c64", f"-d{seconds}s", f"{double.url}{path}"]
            if script is not None:
                lua = Path(folder) / "post.lua"
                lua.write_text(script)
                command += ["-s", str(lua)]
            found = measure(command, folder, double=double)
            calls = found.told["polls"] + found.told["posts"] + found.told["downloads"]
            rate = calls / seconds
            each = found.told["cpu"] / max(calls, 1)
            match = re.search(r"Requests/sec:\s+([\d.]+)", found.output)
            rate = float(match[1]) if match else rate
            result.table.append((what, f"{rate:,.0f}", f"{each * 1e6:.0f}", f"{1 / each:,.0f}"))
            result.data[what] = {"per_second": rate, "cpu_us": each * 1e6}
    result.notes.append(
        "On a machine with few cores `wrk` and the double share them: the CPU a call is the figure to trust."
    )
    return result
