"""Cartoon faces drawn with signed distances, so that edges are smooth at 48x48.

What an emotion changes is brows, eyes and mouth; pose, size, shape of the head, hair, light,
contrast and noise vary from face to face. Lengths are in units of half the head's width, with u
to the right and v down from the head's centre.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fer_features.faces.dataset import SIDE

Plane = npt.NDArray[Any]  # float32 (48, 48)


class Expression(NamedTuple):
    """What an emotion does to a face.

    ``tilt`` above 0 lowers the inner ends of the brows, ``lift`` raises them as a whole; ``eye``
    is the opening of the eyes as a share of their width; ``smile`` above 0 raises the corners of
    the mouth; ``mouth`` is half its opening, ``width`` half its width; ``teeth`` is the share of
    the opening that they fill; ``sneer`` raises one side of the upper lip and wrinkles the nose;
    ``cheeks`` is the strength of the lines beside the nose.
    """

    tilt: float
    lift: float
    eye: float
    smile: float
    mouth: float
    width: float
    teeth: float
    sneer: float
    cheeks: float


EXPRESSIONS = {
    "anger": Expression(0.24, -0.10, 0.40, -0.10, 0.06, 0.36, 0.9, 0.0, 0.3),
    "disgust": Expression(0.14, -0.06, 0.22, -0.12, 0.04, 0.32, 0.3, 1.0, 0.9),
    "fear": Expression(-0.20, 0.12, 0.85, -0.08, 0.11, 0.32, 0.5, 0.0, 0.0),
    "happiness": Expression(-0.02, 0.05, 0.38, 0.26, 0.10, 0.44, 0.7, 0.0, 0.7),
    "sadness": Expression(-0.24, 0.02, 0.34, -0.22, 0.00, 0.28, 0.0, 0.0, 0.1),
    "surprise": Expression(0.00, 0.22, 0.95, 0.00, 0.25, 0.19, 0.0, 0.0, 0.0),
    "neutral": Expression(0.00, 0.00, 0.52, 0.00, 0.00, 0.32, 0.0, 0.0, 0.0),
}

_JITTER = Expression(0.05, 0.04, 0.08, 0.04, 0.015, 0.04, 0.15, 0.1, 0.15)
_LOW = Expression(-0.5, -0.2, 0.12, -0.5, 0.0, 0.12, 0.0, 0.0, 0.0)
_HIGH = Expression(0.5, 0.4, 1.1, 0.5, 0.4, 0.6, 1.0, 1.2, 1.0)
_Y, _X = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2


def _length(x: Plane, y: Plane) -> Plane:
    # hypot guards against overflow, which cannot happen here, and takes five times as long.
    length: Plane = np.sqrt(x * x + y * y)
    return length


def draw_face(emotion: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one face that shows ``emotion`` (a key of EXPRESSIONS): uint8 (48, 48), 0 to 255."""
    face = _Canvas(rng)
    _draw_head(face, rng)
    shown = _expression(emotion, rng)
    _draw_eyes(face, shown, rng)
    _draw_nose(face, shown, rng)
    _draw_mouth(face, shown, rng)
    return face.photographed(rng)


class _Canvas:
    """Grey values, 0 to 1, and the coordinates of one head's pose in which they are painted."""

    def __init__(self, rng: np.random.Generator) -> None:
        turn = math.radians(rng.normal(0, 7))
        cos, sin = math.cos(turn), math.sin(turn)
        self.scale = rng.uniform(14.5, 19.5)  # pixels to half a head
        x, y = _X - rng.normal(0, 1.6), _Y - rng.normal(0, 1.6)
        self.u: Plane = (cos * x + sin * y) / self.scale
        self.v: Plane = (cos * y - sin * x) / self.scale
        self.skin = rng.uniform(0.42, 0.85)
        self.grey: Plane = rng.uniform(0.05, 0.95) + _Y / SIDE * rng.uniform(-0.3, 0.3)

    def paint(self, distance: Plane, value: float | Plane, strength: float = 1.0) -> None:
        """Cover what lies at a negative distance, with an edge one pixel wide."""
        if strength <= 0:
            return
        cover = strength * np.clip(0.5 - distance * self.scale, 0, 1)
        self.grey += cover * (value - self.grey)

    def ellipse(self, u: float, v: float, a: float, b: float) -> Plane:
        """Return the distance to an ellipse's edge, to the first order."""
        x, y = (self.u - u) / a, (self.v - v) / b
        radius = _length(x, y)
        steepness = _length(x / a, y / b)
        distance: Plane = radius * (radius - 1) / np.maximum(steepness, 1e-6)
        return distance

    def stroke(
        self, u: float, v: float, half: float, slope: float, bend: float, thick: float
    ) -> Plane:
        """Return the distance to a stroke around (u, v), ``bend`` lower in the middle than ends."""
        along = self.u - u
        t = np.clip(along / half, -1, 1)
        rise = slope - (2 * bend / half) * t
        across = (self.v - v - slope * half * t - bend * (0.5 - t * t)) / np.sqrt(1 + rise * rise)
        return _length(across, np.maximum(np.abs(along) - half, 0)) - thick

    def photographed(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Light the picture from one side, set contrast and brightness, add noise."""
        towards = rng.uniform(0, 2 * math.pi)
        slope = (math.cos(towards) * _X + math.sin(towards) * _Y) / SIDE
        grey = self.grey * (1 + rng.uniform(0, 0.8) * slope)
        grey = 0.5 + rng.normal(0, 0.07) + rng.uniform(0.55, 1.1) * (grey - 0.5)
        grey += rng.uniform(0.01, 0.045) * rng.standard_normal(grey.shape, dtype=np.float32)
        lit: npt.NDArray[np.uint8] = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
        return lit


def _expression(emotion: str, rng: np.random.Generator) -> Expression:
    """Return the emotion's expression at a random strength, with a person's own deviations."""
    neutral, full = np.array(EXPRESSIONS["neutral"]), np.array(EXPRESSIONS[emotion])
    strength = rng.uniform(0.5, 1.1)
    mixed = neutral + strength * (full - neutral) + rng.normal(0, 1, len(full)) * _JITTER
    return Expression(*np.clip(mixed, _LOW, _HIGH).tolist())


def _draw_head(face: _Canvas, rng: np.random.Generator) -> None:
    long = rng.uniform(1.2, 1.45)
    hair = rng.uniform(0.03, 0.25) if rng.random() < 0.7 else rng.uniform(0.3, 0.9)
    face.paint(face.ellipse(0, 1.9, rng.uniform(0.9, 1.6), 0.9), rng.uniform(0.1, 0.9))
    if rng.random() < 0.35:  # long hair
        face.paint(face.ellipse(0, 0.1, 1.22, long + 0.25), hair)
    face.paint(face.ellipse(0, -0.25, 1.1, long - 0.05), hair)
    for side in (-1, 1):
        face.paint(face.ellipse(side * 1.0, 0.05, 0.14, 0.24), face.skin * 0.9)
    shade = face.skin * (1 - 0.16 * np.clip(_length(face.u, face.v / long), 0, 1.2) ** 2)
    jaw = rng.uniform(0.86, 1.0)
    skull = np.maximum(face.ellipse(0, 0, 1, long), -face.v - rng.uniform(0.62, 1.0))
    chin = face.ellipse(0, 0.25, jaw, long - 0.2)
    face.paint(np.minimum(skull, np.maximum(chin, -face.v)), shade)
    if rng.random() < 0.08:  # a beard
        beard = np.maximum(chin, 0.42 - face.v + 0.25 * np.cos(4 * face.u))
        face.paint(beard, hair, 0.6)


def _draw_eyes(face: _Canvas, shown: Expression, rng: np.random.Generator) -> None:
    apart, height = rng.uniform(0.38, 0.46), rng.uniform(-0.28, -0.16)
    half = rng.uniform(0.17, 0.22)
    opening = half * shown.eye
    white, iris = min(1.0, face.skin + 0.25), rng.uniform(0.03, 0.25)
    gaze = rng.normal(0, 0.03)
    brow, thick = face.skin * rng.uniform(0.15, 0.5), rng.uniform(0.035, 0.07)
    glasses = rng.random() < 0.08
    for side in (-1, 1):
        u = side * apart
        eye = face.ellipse(u, height, half, max(opening, 0.03))
        face.paint(eye, white)
        face.paint(np.maximum(eye, face.ellipse(u + gaze, height, 0.095, 0.095)), iris)
        face.paint(face.stroke(u, height - opening, half, 0, -opening, 0.03), face.skin * 0.25)
        face.paint(
            face.stroke(u, height - 0.34 - shown.lift, half * 1.2, -side * shown.tilt * 2.2,
                        -0.06 - 0.2 * max(shown.lift, 0), thick),
            brow,
        )  # fmt: skip
        if glasses:
            rim = np.abs(face.ellipse(u, height + 0.02, 0.33, 0.27)) - 0.025
            face.paint(rim, 0.1)


def _draw_nose(face: _Canvas, shown: Expression, rng: np.random.Generator) -> None:
    low, wide = rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.17)
    lit = 0.08 if rng.random() < 0.5 else -0.08
    face.paint(face.stroke(0, low, wide, 0, 0.07, 0.03), face.skin * 0.5, 0.8)
    face.paint(face.ellipse(lit, low - 0.22, 0.05, 0.22), face.skin * 0.75, 0.6)
    for row in range(2):
        wrinkle = face.stroke(0, low - 0.3 - 0.12 * row, 0.12, 0, -0.08, 0.02)
        face.paint(wrinkle, face.skin * 0.4, 0.8 * min(shown.sneer, 1))
    for side in (-1, 1):
        cheek = face.stroke(side * 0.4, low + 0.16, 0.14, side * 1.1, -0.05, 0.02)
        face.paint(cheek, face.skin * 0.5, 0.7 * shown.cheeks)


def _draw_mouth(face: _Canvas, shown: Expression, rng: np.random.Generator) -> None:
    height, half = rng.uniform(0.6, 0.7), shown.width
    t = np.clip(face.u / half, -1, 1)
    middle = height + shown.smile * (0.5 - t * t)
    opening = shown.mouth * np.sqrt(1 - t * t)
    sneering = 1 if rng.random() < 0.5 else -1
    raised = 0.14 * shown.sneer * np.clip(0.4 + sneering * t, 0, 1) * (1 - t * t)
    top, bottom = middle - 0.7 * opening - raised, middle + 1.3 * opening
    beyond = np.abs(face.u) - half
    lips = face.skin * rng.uniform(0.3, 0.62)
    between = np.maximum(np.maximum(top - face.v, face.v - bottom), beyond)
    face.paint(between - rng.uniform(0.035, 0.065), lips)
    if shown.mouth > 0.02:
        face.paint(between, 0.08)
        teeth = np.maximum(between, face.v - top - shown.teeth * (bottom - top))
        face.paint(teeth, min(1.0, face.skin + 0.3))
