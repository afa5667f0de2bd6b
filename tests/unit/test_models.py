"""Every model against the documentation's table: ten requests that it takes, ten that it refuses, and its prices."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchrunner.catalogue import models
from batchrunner.manifest import Manifest, ManifestError, load
from batchrunner.manifest.requests import FieldProblem, ModelRules
from batchrunner.manifest.schema_errors import Explainer
from batchrunner.simulator.api import ApiError, parse_request

FOLDER = Path(__file__).parent.parent / "data" / "models"
CASES: dict[str, dict[str, Any]] = {
    p.stem.replace("__", "/"): yaml.safe_load(p.read_text("utf-8")) for p in sorted(FOLDER.glob("*.yaml"))
}
_SHORT = re.compile(r"(x|urls)\*(\d+)")


def meant(value: Any) -> Any:
    """A request as it is meant: `x*3` is `xxx`, `urls*2` a list of two URLs."""
    if isinstance(value, dict):
        return {k: meant(v) for k, v in value.items()}
    if isinstance(value, list):
        return [meant(v) for v in value]
    short = _SHORT.fullmatch(value) if isinstance(value, str) else None
    if short is None:
        return value
    count = int(short[2])
    return "x" * count if short[1] == "x" else [f"https://example.com/{n}.png" for n in range(count)]


def place(problem: FieldProblem) -> str:
    """Where a problem stands, as a path: `multi_prompt[0].duration`."""
    path = problem.field or ""
    for step in problem.problem.steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def test_every_model_has_ten_of_each() -> None:
    assert set(CASES) == set(models())
    for name, case in CASES.items():
        assert case["model"] == name
        assert len(case["valid"]) == 10
        assert len(case["invalid"]) == 10
        written = [json.dumps(r, sort_keys=True) for r in [*case["valid"], *(i["request"] for i in case["invalid"])]]
        assert len(set(written)) == 20, name


@pytest.mark.parametrize("name", CASES)
def test_what_the_table_allows_is_valid_here_and_in_the_simulator(name: str) -> None:
    model = models()[name]
    rules = ModelRules(model, model.price)
    whole = Explainer(model.schema)
    for raw in CASES[name]["valid"]:
        request = {**meant(raw), "model": name}
        assert rules.valid(request), raw
        assert rules.problems(request) == [], raw
        assert whole.problems(request) == [], raw
        assert parse_request(model.endpoint, json.dumps(request).encode()) == (model, request)


@pytest.mark.parametrize("name", CASES)
def test_what_the_table_refuses_is_explained_where_it_stands(name: str) -> None:
    model = models()[name]
    rules = ModelRules(model, model.price)
    whole = Explainer(model.schema)
    for case in CASES[name]["invalid"]:
        request = {**meant(case["request"]), "model": name}
        assert not rules.valid(request), case
        assert whole.problems(request), case
        found = {(place(p), p.problem.message) for p in rules.problems(request, "shot a")}
        assert any(at == case["at"] and case["says"] in message for at, message in found), (case, found)
        assert len(found) == 1, (case, found)
        with pytest.raises(ApiError) as refused:
            parse_request(model.endpoint, json.dumps(request).encode())
        assert refused.value.status == 400


REFERENCES = {"image_urls": ["https://example.com/a.png"]}
PRICES: list[tuple[str, dict[str, Any], int | None]] = [
    # Defaults: what a request with a prompt and nothing else costs. Dollars a second x seconds x 1000, rounded up.
    ("kling-3-0-turbo", {}, 630),  # 0.12584 x 5 = 0.6292
    ("kling-3-0", {}, 495),  # pro: 0.099 x 5 = 0.495
    ("doubao-seedance-2.0", {}, None),  # the default length is not documented
    ("veo3.1-fast", {}, 189),  # 0.189 a clip
    ("wan2.7-video", {}, 603),  # 1080P: 0.1206 x 5 = 0.603
    ("grok-imagine-1.0-video", {}, 53),  # 0.00875 x 6 = 0.0525
    ("happyhorse-1-1", {}, 908),  # 720p: 0.1815 x 5 = 0.9075
    ("viduq3-turbo", {}, 276),  # 720p: 0.0552 x 5 = 0.276
    ("viduq3-pro", {}, 690),  # 720p: 0.138 x 5 = 0.69
    ("gemini-omni", {}, 660),  # 6 s: 0.66 a clip
    ("gpt-image-2", {}, 30),  # 1k: 0.03
    ("imagen-4-0", {}, 46),  # 0.046
    ("z-image", {}, 5),  # 0.0044
    ("fal-ai/flux/schnell", {}, 3),  # 0.003 a megapixel, landscape_4_3 has 0.79
    ("fal-ai/kling-video/v3/turbo/pro/text-to-video", {}, 700),  # 0.14 x 5
    ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {}, 350),  # 0.07 x 5
    ("black-forest-labs/flux-schnell", {}, 3),  # 0.003 an image
    ("minimax/video-01-director", {}, None),  # no page names its price
    # Every other line of the price list.
    ("fal-ai/flux/schnell", {"num_images": 4}, 12),
    ("fal-ai/flux/schnell", {"num_images": 2, "image_size": "square_hd"}, 12),  # 1.05 megapixels, counted as two
    ("fal-ai/flux/schnell", {"num_images": 3}, 9),
    ("fal-ai/flux/schnell", {"image_size": "square_hd"}, 6),
    ("fal-ai/flux/schnell", {"num_images": 3, "image_size": "square_hd"}, 18),
    ("fal-ai/flux/schnell", {"num_images": 4, "image_size": "square_hd"}, 24),
    ("fal-ai/flux/schnell", {"num_images": 2}, 6),
    ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {"duration": 10}, 700),
    ("black-forest-labs/flux-schnell", {"num_outputs": 2}, 6),
    ("black-forest-labs/flux-schnell", {"num_outputs": 3}, 9),
    ("black-forest-labs/flux-schnell", {"num_outputs": 4}, 12),
    ("kling-3-0-turbo", {"resolution": "1080p"}, 788),  # 0.15752 x 5 = 0.7876
    ("kling-3-0", {"mode": "std"}, 385),  # 0.077 x 5
    ("kling-3-0", {"mode": "4K"}, 1843),  # 0.3685 x 5 = 1.8425
    ("kling-3-0", {"mode": "std", "sound": True}, 550),  # 0.11 x 5
    ("kling-3-0", {"sound": True}, 743),  # 0.1485 x 5 = 0.7425
    ("kling-3-0", {"mode": "4K", "sound": True, "duration": 3}, 1106),  # 0.3685 x 3 = 1.1055
    ("kling-3-0", {"sound": False, "duration": 15}, 1485),  # 0.099 x 15
    ("doubao-seedance-2.0", {"duration": 5}, 859),  # 0.1718 x 5
    ("doubao-seedance-2.0", {"duration": 5, "resolution": "480p"}, 399),  # 0.0798 x 5
    ("doubao-seedance-2.0", {"duration": 5, "resolution": "1080p"}, 1936),  # 0.3872 x 5
    ("doubao-seedance-2.0", {"duration": 4, "resolution": "4k"}, 3271),  # 0.8176 x 4 = 3.2704
    ("doubao-seedance-2.0", {"duration": 5, "resolution": "480p", **REFERENCES}, 242),  # 0.0484 x 5
    ("doubao-seedance-2.0", {"duration": 5, **REFERENCES}, 519),  # 0.1038 x 5
    ("doubao-seedance-2.0", {"duration": 5, "resolution": "1080p", "video_urls": ["u"]}, 1175),  # 0.2350 x 5
    ("doubao-seedance-2.0", {"duration": 5, "resolution": "4k", "image_with_roles": [{}]}, 2516),  # 0.5031 x 5 = 2.5155
    ("doubao-seedance-2.0", {"duration": 5, "image_urls": []}, 859),  # no reference: text
    ("veo3.1-fast", {"resolution": "1080p", "duration": 8}, 189),
    ("veo3.1-fast", {"resolution": "4k"}, 660),
    ("wan2.7-video", {"resolution": "720P"}, 365),  # 0.0730 x 5
    ("grok-imagine-1.0-video", {"duration": 30, "quality": "720p"}, 263),  # 0.00875 x 30 = 0.2625
    ("happyhorse-1-1", {"resolution": "1080p"}, 1210),  # 0.242 x 5
    ("viduq3-turbo", {"resolution": "540p"}, 184),  # 0.0368 x 5
    ("viduq3-turbo", {"resolution": "1080p"}, 322),  # 0.0644 x 5
    ("viduq3-pro", {"resolution": "540p"}, 322),  # 0.0644 x 5
    ("viduq3-pro", {"resolution": "1080p", "duration": 16}, 2356),  # 0.1472 x 16 = 2.3552
    ("gemini-omni", {"duration": 4}, 495),
    ("gemini-omni", {"duration": 8, "resolution": "1080p"}, 825),
    ("gemini-omni", {"duration": 10}, 990),
    ("gemini-omni", {"resolution": "4k"}, None),  # not in the price list
    ("gemini-omni", {"video_urls": ["u"]}, None),  # the price is by length, which the clip decides
    ("gpt-image-2", {"resolution": "2k"}, 50),
    ("gpt-image-2", {"resolution": "4k", "size": "16:9"}, 80),
    ("imagen-4-0", {"size": "1:1"}, 46),
    ("z-image", {"aspect_ratio": "4:3"}, 5),
]


@pytest.mark.parametrize(("name", "request_", "credits"), PRICES)
def test_prices_computed_by_hand(name: str, request_: dict[str, Any], credits: int | None) -> None:  # noqa: A002
    model = models()[name]
    request = {"model": name, "prompt": "a corgi", **request_}
    assert ModelRules(model, model.price).credits(request) == credits
    assert (model.price.credits(request, model.defaults) if model.price else None) == credits


def test_every_model_and_every_rate_is_priced_by_hand() -> None:
    for name, model in models().items():
        assert model.price is not None or (name, {}, None) in PRICES
        hit, rates = set(), model.price.rates if model.price else ()
        for _, request, _ in [p for p in PRICES if p[0] == name]:
            full = {**model.defaults, **request}
            hit.add(next((n for n, rate in enumerate(rates) if rate.applies(full)), None))
        assert hit >= set(range(len(rates))), name


DEFAULTS = {  # bold in the table
    "kling-3-0-turbo": {"resolution": "720p", "duration": 5, "aspect_ratio": "16:9"},
    "kling-3-0": {"duration": 5, "aspect_ratio": "16:9", "mode": "pro"},
    "doubao-seedance-2.0": {"resolution": "720p"},
    "veo3.1-fast": {"duration": 8, "aspect_ratio": "16:9", "resolution": "720p"},
    "wan2.7-video": {"size": "16:9", "resolution": "1080P", "duration": 5, "prompt_extend": True},
    "grok-imagine-1.0-video": {"size": "16:9", "duration": 6, "quality": "480p"},
    "happyhorse-1-1": {"resolution": "720p", "duration": 5},
    "viduq3-turbo": {"resolution": "720p", "duration": 5, "audio": True},
    "viduq3-pro": {"resolution": "720p", "duration": 5, "audio": True},
    "gemini-omni": {"resolution": "720p", "aspect_ratio": "16:9", "duration": 6},
    "gpt-image-2": {"size": "1:1", "resolution": "1k"},
    "imagen-4-0": {"size": "16:9"},
    "z-image": {"aspect_ratio": "1:1"},
}


def test_defaults_are_those_of_the_table() -> None:
    assert {name: model.defaults for name, model in models().items() if model.provider == "reapi"} == DEFAULTS


def test_images_and_videos_have_their_endpoints() -> None:
    images = {name for name, model in models().items() if model.endpoint == "/images/generations"}
    assert images == {"gpt-image-2", "imagen-4-0", "z-image"}
    reapi = {name: m for name, m in models().items() if m.provider == "reapi"}
    assert all(m.output == ("image" if name in images else "video") for name, m in reapi.items())
    assert {m.endpoint for m in reapi.values()} == {"/images/generations", "/videos/generations"}


# --- in a manifest ---------------------------------------------------------------------------------------


def loaded(folder: Path, text: str) -> Manifest:
    (folder / "m.yaml").write_text("version: 1\nbatch: b\n" + text, "utf-8")
    return load(folder / "m.yaml")


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        loaded(folder, text)
    return [f"{f.line}:{f.column}: {f.message}" for f in caught.value.findings]


def test_rules_between_fields_are_told_with_their_position(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        "shots:\n"
        "  - {id: a, model: gpt-image-2, prompt: x, resolution: 4k, size: '1:1'}\n"
        "  - {id: b, model: happyhorse-1-1, image_urls: ['https://example.com/a.png'], aspect_ratio: '16:9'}\n"
        "  - {id: c, model: kling-3-0, multi_shots: true, prompt: x}\n",
    )
    assert found == [
        "4:66: size must be 16:9, 9:16, 2:1, 1:2, 21:9 or 9:21 at 4k",
        "5:79: aspect_ratio can't be used with image_urls: the picture's own ratio is kept",
        "6:5: shot c needs multi_prompt, since multi_shots is true",
    ]


def test_what_is_not_known_is_a_warning(tmp_path: Path) -> None:
    manifest = loaded(
        tmp_path,
        "shots:\n"
        "  - {id: a, model: doubao-seedance-2.0, prompt: a corgi}\n"
        "  - {id: b, model: gemini-omni, prompt: a corgi, resolution: 4k}\n"
        "  - {id: c, model: viduq3-pro, prompt: a corgi, aspect_ratio: '21:9'}\n"
        "  - {id: d, model: wan2.7-video, seed: 1}\n",
    )
    assert [job.credits for job in manifest.jobs] == [None, None, 690, 603]
    told = [f"{f.line}:{f.column}: {f.message}" for f in manifest.warnings]
    assert told[0].startswith("4:20: doubao-seedance-2.0 is charged by the second and its default length is not known")
    assert told[0].endswith("give duration")
    assert told[1].startswith("5:20: no price is known for gemini-omni as it is used here")
    assert told[2].startswith("6:63: the 5 ratios that the model takes are not listed by the source")
    assert told[3].startswith("7:5: there is neither a prompt nor a picture")
    assert len(told) == 4


def test_with_a_budget_an_unknown_price_is_an_error(tmp_path: Path) -> None:
    shots = "budget: {max_credits: 9000}\nshots:\n  - {id: a, model: gemini-omni, prompt: a corgi, resolution: 4k}\n"
    assert refused(tmp_path, shots)[0].startswith("5:20: no price is known for gemini-omni as it is used here")
    price = "prices: {gemini-omni: {per: output, rates: [{when: {resolution: [4k]}, without: [video_urls], usd: 2}]}}\n"
    assert [job.credits for job in loaded(tmp_path, price + shots).jobs] == [2000]


def test_conditions_of_a_price_in_the_manifest_are_checked(tmp_path: Path) -> None:
    rates = "[{when: {resolution: [4k, 8k]}, given: [image_url], usd: 2}]"
    found = refused(tmp_path, f"prices: {{gemini-omni: {{per: output, rates: {rates}}}}}\nshots: []\n")
    assert found == [
        "3:65: resolution must be one of 720p, 1080p, 4k, got '8k'",
        "3:84: gemini-omni has no field 'image_url' (did you mean image_urls?); its fields: "
        + ", ".join(models()["gemini-omni"].fields),
    ]


UNCHANGED = {
    "corgi-beach-1": "4122772a1dac36cf3fa00a18bdd39547",
    "paper-boat-1": "9b464d30c57004d45c556489614f3297",
    "corgi@duration=5+place=beach-1": "459f7e6109d87fdf4e6a38646c6caac6",
    "kites@place=dunes-1": "3dd58faa45f7397fd3ace59993cdafcc",
    "portrait-2": "81e7d57150e59de52351dbb73b8f252d",
    "product@side=back-1": "584cf80f539c8d25a1feb8449c577367",
    "2-01-skyline@hour=dusk-1": "bbf4d9e003ac20945e4cab3d5405ef40",
}
"""Fingerprints as batchrunner 0.1 recorded them."""


def test_keys_and_fingerprints_of_manifests_that_are_in_use_stay() -> None:
    folder = Path(__file__).parent.parent.parent / "manifests"
    names = ("first.yaml", "nightly.yaml", "image-to-video.yaml", "storyboard.yaml")
    found = {job.key: job.fingerprint for name in names for job in load(folder / name).jobs}
    assert {key: found.get(key) for key in UNCHANGED} == UNCHANGED
