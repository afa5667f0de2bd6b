"""Pictures and clips that show what they are: the job's label, its prompt, its task id, and that time passes.

Bytes depend on the card alone. One clip is one card drawn once; per frame only a bar and a clock change, drawn
straight on the luma and chroma planes, and most of the frame compresses to nothing.
"""

from __future__ import annotations

import colorsys
import functools
import hashlib
import io
import re
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

FPS = 4
"""Frames a second: a clock that ticks in quarters; every frame costs about 1 ms of CPU at 720p."""

RATE = 8000
"""Samples of sound a second."""

ENCODER = {
    "preset": "ultrafast",
    "tune": "stillimage",
    "crf": "32",
    "bf": "0",
    "g": str(FPS * 60),
    "x264-params": "cabac=1:deblock=1,1:aq-mode=1",
}
"""Fast before small; CABAC, deblocking and adaptive quantisation cost some 10 ms a clip and halve its size."""

_PIL = threading.Lock()  # font objects are shared and not safe to draw with from two threads

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class Card:
    """What a picture shows. `width` and `height` are even, in pixels; `seconds`, and whether there is a track of sound
    (a silent one), count for clips only."""

    title: str
    text: str
    footer: str
    detail: str
    width: int
    height: int
    seconds: int = 0
    sound: bool = False


@functools.cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size=size)


_PIECE = re.compile(r"(\s*)([^\s/_+-]*[/_+-]*)")


def _wrap(text: str, font: _Font, width: float, lines: int) -> list[str]:
    """`text` in at most so many lines of at most `width` pixels; what does not fit ends in an ellipsis.

    Lines break at spaces and after the signs that job keys are made of, and anywhere in what is longer than a line.
    """
    done: list[str] = []
    line = ""
    for space, piece in _PIECE.findall(text):
        candidate = f"{line}{' ' if space and line else ''}{piece}"
        if font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            done.append(line)
        while font.getlength(piece) > width and len(done) <= lines:  # one long word, or a script without spaces
            cut = max(1, int(len(piece) * width / font.getlength(piece)))
            while cut > 1 and font.getlength(piece[:cut]) > width:
                cut -= 1
            done.append(piece[:cut])
            piece = piece[cut:]
        line = piece
        if len(done) > lines:
            break
    if line:
        done.append(line)
    if len(done) > lines:
        done = done[:lines]
        while done[-1] and font.getlength(done[-1] + "…") > width:
            done[-1] = done[-1][:-1]
        done[-1] = done[-1].rstrip() + "…"
    return done


def _colours(title: str) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
    """Top, bottom and accent colour: a hue of the title's own, dark enough for white text."""
    hue = int.from_bytes(hashlib.sha256(title.encode()).digest()[:2], "big") / 65536

    def rgb(turn: float, light: float, saturation: float) -> tuple[int, int, int]:
        r, g, b = colorsys.hls_to_rgb((hue + turn) % 1.0, light, saturation)
        return round(r * 255), round(g * 255), round(b * 255)

    return rgb(0.0, 0.27, 0.55), rgb(0.12, 0.11, 0.6), rgb(0.06, 0.72, 0.8)


def _draw(card: Card) -> Image.Image:
    """The still part of the picture, RGB."""
    top, bottom, accent = _colours(card.title)
    ramp = Image.new("RGB", (1, 2))
    ramp.putpixel((0, 0), top)
    ramp.putpixel((0, 1), bottom)
    image = ramp.resize((1, card.height), Image.Resampling.BILINEAR).resize((card.width, card.height))
    draw = ImageDraw.Draw(image)
    unit = min(card.width, card.height) / 720
    margin = round(56 * unit)
    inner = card.width - 2 * margin
    small, middle = _font(round(22 * unit)), _font(round(34 * unit))

    draw.text((margin, margin), "SIMULATED", font=small, fill=accent)
    draw.text((card.width - margin, margin), card.detail, font=small, fill=accent, anchor="ra")
    y = margin + round(62 * unit)
    title, size = _wrap(card.title, _font(round(58 * unit)), inner, 3), 58
    if len(title) > 2:
        title, size = _wrap(card.title, _font(round(42 * unit)), inner, 3), 42
    for line in title:
        draw.text((margin, y), line, font=_font(round(size * unit)), fill="white")
        y += round(size * 1.2 * unit)
    draw.rectangle((margin, y + round(12 * unit), margin + round(96 * unit), y + round(17 * unit)), fill=accent)
    y += round(48 * unit)
    pitch = round(46 * unit)
    room = card.height - round(150 * unit) - margin - y
    for line in _wrap(card.text, middle, inner, max(1, room // pitch)):
        draw.text((margin, y), line, font=middle, fill=(232, 234, 240))
        y += pitch
    draw.text((margin, card.height - round(112 * unit)), card.footer, font=small, fill=(190, 196, 208))
    return image


def still(card: Card, *, jpeg: bool = False) -> bytes:
    """The card as a PNG, or a JPEG."""
    with _PIL:
        image = _draw(card)
        out = io.BytesIO()
        if jpeg:
            image.save(out, "JPEG", quality=85)
        else:
            image.save(out, "PNG", compress_level=4)
    return out.getvalue()


class _Planes:
    """The frames of a clip as YUV 4:2:0 planes.

    Only a strip at the foot changes from frame to frame, so one frame is written over and over: x264 copies what it
    is given.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        unit = min(card.width, card.height) / 720
        rgb = av.VideoFrame.from_image(_draw(card))  # type: ignore[no-untyped-call]  # PyAV's stub has no types here
        self.frame: av.VideoFrame = rgb.reformat(format="yuv420p")
        self._strip = (card.height - round(116 * unit)) // 4 * 4  # first line of the strip
        self._still = [self._cut(plane, number) for number, plane in enumerate(self.frame.planes)]
        self._margin = round(56 * unit)
        self._thick = max(4, round(12 * unit) // 4 * 4)
        self._font = _font(round(22 * unit))
        self._clock = card.height - round(112 * unit) - self._strip
        self._bar = (card.height - round(64 * unit)) // 4 * 4 - self._strip

    def _cut(self, plane: Any, number: int) -> Image.Image:
        """The strip of a plane as a grey picture, as wide as its line in memory."""
        first = self._strip // (2 if number else 1)
        data = memoryview(plane)[first * plane.line_size : plane.height * plane.line_size]
        return Image.frombytes("L", (plane.line_size, plane.height - first), bytes(data))

    def draw(self, index: int, count: int) -> None:
        """Make `frame` the frame `index` of `count`: a bar that fills, a knob at its end, and a clock."""
        left, right = self._margin // 2 * 2, (self._card.width - self._margin) // 2 * 2
        at = left + (right - left) * index // max(1, count - 1) // 2 * 2
        for number, plane in enumerate(self.frame.planes):
            strip = self._still[number].copy()
            draw = ImageDraw.Draw(strip)
            halve = 2 if number else 1
            track, bar, knob = (128, 128, 128) if number else (70, 205, 235)
            top, low = self._bar // halve, (self._bar + self._thick) // halve - 1
            draw.rectangle((left // halve, top, right // halve - 1, low), fill=track)
            draw.rectangle((left // halve, top, at // halve, low), fill=bar)
            radius, middle = self._thick // halve, (top + low + 1) // 2
            draw.ellipse((at // halve - radius, middle - radius, at // halve + radius, middle + radius), fill=knob)
            if not number:
                text = f"{index / FPS:.2f} / {self._card.seconds} s"
                draw.text((right, self._clock), text, font=self._font, fill=225, anchor="ra")
            data = strip.tobytes()
            end = plane.height * plane.line_size
            memoryview(plane)[end - len(data) : end] = data


def clip(card: Card) -> bytes:
    """The card as an MP4: H.264, yuv420p, `FPS` frames a second, exactly `seconds` long.

    One encoder thread, so that the same card always gives the same bytes.
    """
    out = io.BytesIO()
    with _PIL:
        planes = _Planes(card)
    count = card.seconds * FPS
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = card.width, card.height, "yuv420p"
        stream.options = ENCODER
        stream.thread_count = 1
        if card.sound:
            container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(count):
            with _PIL:
                planes.draw(index, count)
            frame = planes.frame
            frame.pts, frame.time_base, frame.duration = index, Fraction(1, FPS), 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if card.sound:
            _silence(container, card.seconds)
    return out.getvalue()


def _silence(container: Any, seconds: int) -> None:
    """A track of so many seconds in which nothing is heard."""
    stream = container.streams.audio[0]
    samples = stream.codec_context.frame_size or 1024
    for at in range(0, seconds * RATE, samples):
        frame = av.AudioFrame(format="fltp", layout="mono", samples=min(samples, seconds * RATE - at))
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
