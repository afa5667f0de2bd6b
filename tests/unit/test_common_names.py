"""What a manifest may say for any model, and what each model is sent for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchrunner.catalogue import models
from batchrunner.core.names import COMMON, CommonName
from batchrunner.manifest import Manifest, ManifestError, load

URL = "https://example.com/a.png"

SENT: dict[str, dict[str, Any]] = {
    # Each model, asked in common names for what it can: the fields that its table has for it.
    "kling-3-0-turbo": {"first_frame_image": URL, "aspect_ratio": "9:16", "resolution": "1080p", "duration": 8},
    "kling-3-0": {"image_urls": [URL], "aspect_ratio": "9:16", "mode": "pro", "duration": 8, "sound": True},
    "doubao-seedance-2.0": {
        "image_with_roles": [{"url": URL, "role": "first_frame"}],
        "size": "9:16",
        "resolution": "1080p",
        "duration": 8,
        "generate_audio": True,
    },
    "veo3.1-fast": {
        "image_urls": [URL],
        "generation_type": "frame",
        "aspect_ratio": "9:16",
        "resolution": "1080p",
        "duration": 8,
    },
    "wan2.7-video": {"image_urls": [URL], "size": "9:16", "resolution": "1080P", "duration": 8},
    "grok-imagine-1.0-video": {"image_urls": [URL], "size": "9:16", "quality": "720p", "duration": 8},
    "happyhorse-1-1": {"image_urls": [URL], "resolution": "1080p", "duration": 8},
    "viduq3-turbo": {"image_urls": [URL], "resolution": "1080p", "duration": 8, "audio": True},
    "viduq3-pro": {"image_urls": [URL], "resolution": "1080p", "duration": 8, "audio": True},
    "gemini-omni": {"image_urls": [URL], "aspect_ratio": "9:16", "resolution": "1080p", "duration": 8},
    "gpt-image-2": {"size": "9:16", "resolution": "2k"},
    "imagen-4-0": {"size": "9:16"},
    "z-image": {"aspect_ratio": "9:16"},
    "fal-ai/flux/schnell": {"image_size": "portrait_16_9"},
    "fal-ai/kling-video/v3/turbo/pro/text-to-video": {"aspect_ratio": "9:16", "duration": 8},
    "fal-ai/kling-video/v2.5-turbo/pro/image-to-video": {"image_url": URL, "duration": 10},
    "black-forest-labs/flux-schnell": {"aspect_ratio": "9:16"},
    "minimax/video-01-director": {"first_frame_image": URL},
}
FLUX = {"fal-ai/flux/schnell", "black-forest-labs/flux-schnell"}
FAL_TEXT, FAL_FRAME = (n for n in SENT if n.startswith("fal-ai/kling"))
WISHES = {"first_frame": URL, "aspect_ratio": "9:16", "resolution": "1080p", "duration": 8, "audio": True}
CANT = {
    "first_frame": {"gpt-image-2", "imagen-4-0", "z-image", FAL_TEXT} | FLUX,
    "aspect_ratio": {"happyhorse-1-1", "viduq3-turbo", "viduq3-pro"}  # not with a picture
    | {FAL_FRAME, "minimax/video-01-director"},
    "resolution": {"imagen-4-0", "z-image", FAL_TEXT, FAL_FRAME, "minimax/video-01-director"} | FLUX,
    "duration": {"gpt-image-2", "imagen-4-0", "z-image", "minimax/video-01-director"} | FLUX,
    "audio": set(models())
    - {"kling-3-0", "doubao-seedance-2.0", "viduq3-turbo", "viduq3-pro"},
}  # fmt: skip
LONGEST = {FAL_FRAME: 10}
"""What is asked for instead of 8 s where a model doesn't make that."""
BEST = {"grok-imagine-1.0-video": "720p", "gpt-image-2": "2k"}
"""What is asked for instead of 1080p where a model doesn't have it."""


def written(folder: Path, text: str) -> Manifest:
    (folder / "m.yaml").write_text("version: 1\nbatch: b\n" + text, "utf-8")
    return load(folder / "m.yaml")


def requests(manifest: Manifest) -> list[dict[str, Any]]:
    return [{k: v for k, v in job.request.items() if k not in ("model", "prompt")} for job in manifest.jobs]


def refused(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        written(folder, text)
    return [f"{f.line}:{f.column}: {f.message}" for f in caught.value.findings]


def warned(manifest: Manifest) -> list[str]:
    return [f"{f.line}:{f.column}: {f.message}" for f in manifest.warnings]


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent(name: str, tmp_path: Path) -> None:
    asked = {k: v for k, v in WISHES.items() if name not in CANT[k]}
    if name in BEST:
        asked["resolution"] = BEST[name]
    if name in LONGEST:
        asked["duration"] = LONGEST[name]
    fields = "".join(f", {k}: {'true' if v is True else repr(v)}" for k, v in asked.items())
    head = f"provider: {models()[name].provider}\nshots:\n"
    common = written(tmp_path, f"{head}  - {{id: a, model: {name}, prompt: a corgi{fields}}}\n")
    assert requests(common) == [SENT[name]]
    own = "".join(
        f", {k}: {str(v).replace('True', 'true')}" if not isinstance(v, str) else f", {k}: '{v}'"
        for k, v in SENT[name].items()
    )
    spelled = written(tmp_path, f"{head}  - {{id: a, model: {name}, prompt: a corgi{own}}}\n")
    assert [job.fingerprint for job in spelled.jobs] == [job.fingerprint for job in common.jobs]
    job = next(iter(common.jobs))
    assert {k: v for k, v in models()[name].common(job.request).items() if k in asked} == asked


def test_every_model_says_what_it_makes_of_every_common_name() -> None:
    assert set(SENT) == set(models())
    for model in models().values():
        assert tuple(model.names) == COMMON
        for name, common in model.names.items():
            assert bool(common.fields) != bool(common.reason), (model.name, name)
            assert set(common.fields) <= set(model.fields)
            assert set(common.not_with) <= set(model.fields)


MIXED = """\
defaults: {model: kling-3-0-turbo, aspect_ratio: 16:9, resolution: 720p, duration: 8, audio: false}
shots:
  - {id: turbo, prompt: a corgi}
  - {id: kling, prompt: a corgi, model: kling-3-0}
  - {id: wan, prompt: a corgi, model: wan2.7-video}
  - {id: still, prompt: a corgi, model: z-image}
  - {id: vidu, prompt: a corgi, model: viduq3-pro, first_frame: 'https://example.com/a.png'}
  - {id: own, prompt: a corgi, model: kling-3-0, mode: 4K}
"""


def test_defaults_that_shots_of_several_models_share(tmp_path: Path) -> None:
    manifest = written(tmp_path, MIXED)
    assert requests(manifest) == [
        {"aspect_ratio": "16:9", "resolution": "720p", "duration": 8},
        {"aspect_ratio": "16:9", "mode": "std", "duration": 8, "sound": False},
        {"size": "16:9", "resolution": "720P", "duration": 8},
        {"aspect_ratio": "16:9"},
        {"image_urls": [URL], "resolution": "720p", "duration": 8, "audio": False},
        {"aspect_ratio": "16:9", "mode": "4K", "duration": 8, "sound": False},
    ]
    assert warned(manifest) == [
        "3:50: viduq3-pro takes no aspect_ratio with image_urls; there it is left out",
        "3:68: z-image takes no resolution: the size of its images is fixed; it is left out",
        "3:84: z-image takes no duration: an image has no length; it is left out",
        "3:94: kling-3-0-turbo takes no audio: it has no switch for sound; it is left out",
        "3:94: wan2.7-video takes no audio: it has no switch for sound; audio_url is the sound to use; it is left out",
        "3:94: z-image takes no audio: an image has no sound; it is left out",
    ]


def test_a_default_that_a_model_cant_take_is_an_error_with_the_mend(tmp_path: Path) -> None:
    text = "defaults: {audio: true, duration: 5}\nshots:\n  - {id: a, model: veo3.1-fast, prompt: a corgi}\n"
    assert refused(tmp_path, text) == [
        (
            "3:19: shot a (veo3.1-fast): veo3.1-fast can't take audio: it has no switch for sound; take it out, and "
            "give it in the shots whose model takes it"
        ),
        "3:35: shot a (veo3.1-fast): duration must be 8, got 5; give such shots a duration of their own",
    ]


def test_what_a_shot_itself_asks_for_is_never_left_out(tmp_path: Path) -> None:
    text = (
        "shots:\n"
        "  - {id: a, model: z-image, prompt: a corgi, duration: 5}\n"
        "  - {id: b, model: gpt-image-2, prompt: a corgi, first_frame: 'https://example.com/a.png'}\n"
        "  - {id: c, model: viduq3-pro, image_urls: ['https://example.com/a.png'], aspect_ratio: 16:9}\n"
        "  - {id: d, model: kling-3-0-turbo, prompt: a corgi, audio: true}\n"
    )
    assert refused(tmp_path, text) == [
        "4:56: z-image can't take duration: an image has no length; take it out",
        (
            "5:63: gpt-image-2 can't take first_frame: an image has no first frame; image_urls are pictures to "
            "work from; take it out"
        ),
        "6:75: aspect_ratio can't be used with image_urls: the picture's own ratio is kept",
        "7:61: kling-3-0-turbo can't take audio: it has no switch for sound; take it out",
    ]


def test_values_are_told_in_the_words_of_the_manifest(tmp_path: Path) -> None:
    text = (
        "shots:\n"
        "  - {id: a, model: kling-3-0, prompt: a corgi, resolution: 540p}\n"
        "  - {id: b, model: kling-3-0, prompt: a corgi, resolution: std}\n"
        "  - {id: c, model: wan2.7-video, prompt: a corgi, aspect_ratio: 21:9}\n"
        "  - {id: d, model: doubao-seedance-2.0, prompt: a corgi, duration: 5, first_frame: still.png}\n"
        "  - {id: e, model: gpt-image-2, prompt: a corgi, resolution: 4k, aspect_ratio: 1:1}\n"
    )
    assert refused(tmp_path, text) == [
        "4:60: resolution must be one of 720p, 1080p, 4k, got '540p'; kling-3-0 calls it mode",
        "5:60: resolution must be one of 720p, 1080p, 4k, got 'std' (or mode: std); kling-3-0 calls it mode",
        (
            "6:65: aspect_ratio must be one of 16:9, 9:16, 1:1, 4:3, 3:4, got '21:9' (did you mean 16:9?); "
            "wan2.7-video calls it size"
        ),
        (
            "7:84: first_frame 'still.png' is not valid: a public https URL is allowed, such as "
            "https://example.com/still.png; doubao-seedance-2.0 calls it image_with_roles[0].url"
        ),
        "8:80: size must be 16:9, 9:16, 2:1, 1:2, 21:9 or 9:21 at 4k; aspect_ratio sets size",
    ]


def test_one_thing_said_twice(tmp_path: Path) -> None:
    shot = "  - {id: a, model: wan2.7-video, prompt: a corgi, aspect_ratio: 1:1, size: '1:1'}\n"
    assert refused(tmp_path, "shots:\n" + shot) == [
        "4:65: aspect_ratio and size are both given and mean one thing; keep one of them"
    ]
    over = "profiles: {tall: {aspect_ratio: 9:16}, wide: {size: 16:9}}\ndefaults: {aspect_ratio: 3:4}\nshots:\n"
    (tmp_path / "m.yaml").write_text(
        f"version: 1\nbatch: b\n{over}  - {{id: a, model: wan2.7-video, prompt: a, size: '1:1'}}\n"
    )
    for profile, size in ((None, "1:1"), ("tall", "9:16"), ("wide", "16:9")):
        assert requests(load(tmp_path / "m.yaml", profile=profile)) == [{"size": size}]


def test_in_a_matrix_a_table_a_variable_and_a_file_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,model,prompt,aspect_ratio,audio,first_frame\n"
        f"a,kling-3-0,a corgi,9:16,true,{URL}\n"
        "b,wan2.7-video,a corgi,,false,\n"
    )
    manifest = written(
        tmp_path,
        "vars: {ratio: 4:3, length: 3}\n"
        "output: {name: '${shot}-${resolution}-${aspect_ratio}.x'}\n"
        "shots_from: [{file: t.csv}]\n"
        "shots:\n"
        "  - {id: c, model: wan2.7-video, prompt: '${aspect_ratio}', duration: '${length}',"
        " matrix: {aspect_ratio: [1:1, '${ratio}']}}\n",
    )
    assert requests(manifest) == [
        {"image_urls": [URL], "aspect_ratio": "9:16", "sound": True},
        {},
        {"size": "1:1", "duration": 3},
        {"size": "4:3", "duration": 3},
    ]
    assert [job.matrix for job in manifest.jobs][2:] == [{"aspect_ratio": "1:1"}, {"aspect_ratio": "4:3"}]
    assert [job.output for job in manifest.jobs] == [
        "a-1080p-9_16.x",
        "b-1080P-16_9.x",
        "c-1080P-1_1.x",
        "c-1080P-4_3.x",
    ]


def test_an_axis_that_makes_a_field_is_only_a_variable(tmp_path: Path) -> None:
    """A manifest of before there were common names."""
    manifest = written(
        tmp_path,
        "shots:\n  - id: a\n    model: kling-3-0-turbo\n    prompt: '${audio}'\n"
        "    first_frame_image: '${first_frame}'\n"
        f"    matrix: {{first_frame: ['{URL}'], audio: [rain]}}\n",
    )
    assert [job.request for job in manifest.jobs] == [
        {"model": "kling-3-0-turbo", "first_frame_image": URL, "prompt": "rain"}
    ]


def test_the_language() -> None:
    frame = CommonName({"frames": [{"url": "$", "role": "first"}], "kind": "frame"})
    assert frame.own("u") == {"frames": [{"url": "u", "role": "first"}], "kind": "frame"}
    assert (frame.path, frame.called) == (("frames", 0, "url"), "frames[0].url")
    assert frame.told({"frames": [{"url": "u"}]}) == "u"
    assert frame.told({"frames": []}) is None
    assert frame.told({"frames": 5}) is None
    mode = CommonName({"mode": "$"}, {"720p": "std"})
    assert (mode.word("720p"), mode.word("4k"), mode.told({"mode": "std"})) == ("std", "4k", "720p")
    cant = CommonName(reason="no", leave_out=(False,))
    assert cant.path == ()
    assert cant.told({"": 1}) is None or cant.told({}) is None
    assert cant.needless(False, shared=False)
    assert not cant.needless(0, shared=True)
    assert CommonName(reason="no", leave_out=True).needless(5, shared=True)
    assert not CommonName(reason="no", leave_out=True).needless(5, shared=False)
