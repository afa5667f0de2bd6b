"""The services' own words, as the double of the crash tests speaks them: one account, answering as it is called.

Word for word by the pages that `batchrunner.providers` names. Made without the adapters, the catalogue or the
simulator: what they have wrong is not wrong here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MODERATED = 80006
"""The code of a task that the content policy has ended; any other is a failure of the service."""

Body = dict[str, Any]


class Voice:
    """One service's; these are reAPI's words (REAPI.md)."""

    name = "reapi"
    variables = ("REAPI_BASE_URL", "REAPI_API_KEY")
    models = ("kling-3-0-turbo", "kling-3-0-turbo")
    """A model of it for a prompt, and one for a prompt and the field below."""
    first_frame = "first_frame_image"
    id_field = "id"
    created_status = 200

    def request(self, prompt: str, frame: object = None) -> Body:
        """What a job asks for, in the catalogue's words."""
        model = self.models[frame is not None]
        return {"model": model, "prompt": prompt, "duration": 5} | ({} if frame is None else {self.first_frame: frame})

    def sent(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body that it is sent as."""
        return request

    def charges(self, code: int) -> bool:
        """Whether a task that failed so is charged, as far as its pages say."""
        del code
        return False

    def error(self, status: int, code: int, message: str) -> Body:
        del status
        return {"error": {"code": code, "message": message, "request_id": "req_double"}}

    def created(self, task_id: str) -> Body:
        return {"id": task_id, "model": self.models[0], "status": "processing", "created_at": 1}

    def running(self, task_id: str) -> tuple[int, Body]:
        """Status and body, of a task that works."""
        return 200, self.created(task_id)

    def ended(self, task_id: str) -> Body | None:
        """What a poll is told of a task that has ended, where the rest is asked for apart."""
        del task_id
        return None

    def failed(self, task_id: str, code: int, message: str) -> tuple[int, Body]:
        """Status and body."""
        error = {"code": code, "message": message}
        return 200, self.created(task_id) | {"status": "failed", "output": None, "error": error}

    def completed(self, task_id: str, urls: Sequence[str], last_frame: str | None, price: int | None) -> Body:
        """Of a task that is done.

        Args:
            urls: of its outputs.
            last_frame: where it gives one.
            price: where it names one.
        """
        output: Body = {"video_urls": [*urls]}
        if last_frame is not None:
            output["last_frame_url"] = last_frame
        usage = {} if price is None else {"usage": {"credits": price}}
        return self.created(task_id) | {"status": "completed", "output": output} | usage


class Fal(Voice):
    """fal's queue. What a task has come to is asked for in two calls: its status, and its result."""

    name = "fal"
    variables = ("FAL_BASE_URL", "FAL_KEY")
    models = (
        "fal-ai/kling-video/v3/turbo/pro/text-to-video",
        "fal-ai/kling-video/v2.5-turbo/pro/image-to-video",
    )
    first_frame = "image_url"
    id_field = "request_id"

    def sent(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {k: str(v) if k == "duration" else v for k, v in request.items() if k != "model"}

    def charges(self, code: int) -> bool:
        return code == MODERATED  # as a 422, which may be charged; what ends with 500 and above never is

    def error(self, status: int, code: int, message: str) -> Body:
        del status, code
        return {"detail": message}

    def created(self, task_id: str) -> Body:
        there = f"https://queue.fal.run/fal-ai/kling-video/requests/{task_id}"
        urls = {"response_url": there, "status_url": f"{there}/status", "cancel_url": f"{there}/cancel"}
        return {"request_id": task_id, "status": "IN_QUEUE", **urls, "queue_position": 0}

    def running(self, task_id: str) -> tuple[int, Body]:
        return 202, {"status": "IN_PROGRESS", "request_id": task_id}

    def ended(self, task_id: str) -> Body | None:
        return {"status": "COMPLETED", "request_id": task_id}

    def failed(self, task_id: str, code: int, message: str) -> tuple[int, Body]:
        del task_id
        if code == MODERATED:
            error = {"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation", "input": "x"}
            return 422, {"detail": [error]}
        return 500, {"detail": message, "error_type": "internal_error"}

    def completed(self, task_id: str, urls: Sequence[str], last_frame: str | None, price: int | None) -> Body:
        del task_id, last_frame, price
        return {"videos": [{"url": url} for url in urls]} if len(urls) > 1 else {"video": {"url": urls[0]}}


class Replicate(Voice):
    """Replicate's predictions."""

    name = "replicate"
    variables = ("REPLICATE_BASE_URL", "REPLICATE_API_TOKEN")
    models = ("minimax/video-01-director", "minimax/video-01-director")
    created_status = 201

    def request(self, prompt: str, frame: object = None) -> Body:
        request = super().request(prompt, frame)
        del request["duration"]
        return request

    def sent(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"input": {k: v for k, v in request.items() if k != "model"}}

    def charges(self, code: int) -> bool:
        del code
        return True

    def error(self, status: int, code: int, message: str) -> Body:
        return {"title": f"Error {code}", "detail": message, "status": status}

    def created(self, task_id: str) -> Body:
        there = f"https://api.replicate.com/v1/predictions/{task_id}"
        return {
            "id": task_id,
            "model": self.models[0],
            "version": "hidden",
            "status": "starting",
            "output": None,
            "error": None,
            "data_removed": False,
            "urls": {"get": there, "cancel": f"{there}/cancel"},
        }

    def running(self, task_id: str) -> tuple[int, Body]:
        return 200, self.created(task_id) | {"status": "processing"}

    def failed(self, task_id: str, code: int, message: str) -> tuple[int, Body]:
        error = f"{message} ({'E005' if code == MODERATED else 'E1000'})"
        return 200, self.created(task_id) | {"status": "failed", "error": error}

    def completed(self, task_id: str, urls: Sequence[str], last_frame: str | None, price: int | None) -> Body:
        del last_frame, price
        return self.created(task_id) | {"status": "succeeded", "output": [*urls] if len(urls) > 1 else urls[0]}


REAPI, FAL, REPLICATE = Voice(), Fal(), Replicate()
VOICES = {voice.name: voice for voice in (REAPI, FAL, REPLICATE)}


def called(method: str, parts: Sequence[str]) -> tuple[Voice, str, str]:
    """Whom a path calls, what for, and about which task: `post`, `poll`, `result`, `balance`, `elsewhere` or ``."""
    match method, [*parts]:
        case "POST", ["api", "v1", "videos", "generations"]:
            return REAPI, "post", ""
        case "POST", ["api", "v1", "elsewhere"]:
            return REAPI, "elsewhere", ""
        case "GET", ["api", "v1", "tasks", task]:
            return REAPI, "poll", task
        case "GET", ["api", "v1", "balance"]:
            return REAPI, "balance", ""
        case "POST", ["v1", "models", _, _, "predictions"]:
            return REPLICATE, "post", ""
        case "GET", ["v1", "predictions", task]:
            return REPLICATE, "poll", task
        case "POST", ["fal-ai", "kling-video", *_]:
            return FAL, "post", ""
        case "GET", ["fal-ai", "kling-video", "requests", task, "status"]:
            return FAL, "poll", task
        case "GET", ["fal-ai", "kling-video", "requests", task]:
            return FAL, "result", task
    return REAPI, "", ""
