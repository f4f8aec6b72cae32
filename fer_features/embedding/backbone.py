"""Which frozen network: BackboneSpec, the one value that says what the embeddings depend on."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fer_features.embedding.applications import APPLICATIONS, Application
from fer_features.embedding.weights import (
    KerasFile,
    check_published,
    count_parameters,
    file_hash,
    imagenet_file,
    inspect_keras_file,
    inspect_weights_file,
)
from fer_features.errors import BackboneError

PREPROCESSING = 1
"""Version of what happens to pixels before the network; a change to its numbers must raise it."""

DEFAULT = "InceptionResNetV2"
TINY = "tiny"
FINAL = "final"
"""The name of a network's own pooled output, beside those of its inner layers."""

TINY_SIZE = 64
TINY_PARAMETERS = 4128

FREE_SIZE = 224
"""Pixels that faces are resized to for a Keras file that takes any size: ImageNet's usual form."""

LARGEST = 2048
"""Pixels on a side, of input and of images: more is a slip of the hand."""

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_RANDOM = re.compile(r"random:\d{1,18}@keras-\S+")
_RESERVED = re.compile(rf"[,+/\x00]|^\.*$|^{FINAL}$")


@dataclass(frozen=True)
class BackboneSpec:
    """Identity of a frozen network: whatever changes the embeddings, and which of them to keep.

    Every field is an argument, so a spec survives :func:`dataclasses.replace`, and a round trip
    through JSON: ``BackboneSpec(**json.loads(json.dumps(dataclasses.asdict(spec))))``.

    Parameters
    ----------
    backbone : str
        A network of ``keras.applications`` by Keras's own name, in any case, such as
        ``"EfficientNetV2B0"`` (:data:`~fer_features.embedding.applications.APPLICATIONS`); or the
        path of a ``.keras`` file: float RGB images from 0 to 255 in, a vector or a map out, with
        its own scaling inside. Kept as Keras spells it, or as ``"sha256:HEX"`` of the file.
        ``"tiny"``, three seeded convolutions, is for tests. The default is InceptionResNetV2
        (Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual connections on
        learning", 2017).
    weights : str, optional
        Of an application: ``"imagenet"`` (the default); ``"random"`` or ``"random:SEED"``, which
        alone ``"tiny"`` takes; or the path of a file in one of Keras's layouts
        (``..._notop.h5``, ``.weights.h5``). Kept as ``"imagenet"`` (also for a file that is the
        published one), ``"random:0@keras-3.15.1"`` or ``"sha256:HEX"``. A ``.keras`` file has its
        own: None.
    input_size : int, optional
        Height and width, in pixels, that faces are resized to, at most 2048 and at least what the
        network takes; by default 139 for InceptionResNetV2, as in the original experiment, the
        published size of any other application, 64 for ``"tiny"``, and of a ``.keras`` file its
        own, or 224 where it takes any.
    layers : sequence of str
        Inner layers whose outputs are kept beside ``final``, each averaged over space; also as
        one text with commas between. Kept as a tuple, each once.
    precision : str
        ``"float32"``, or ``"int8"``: quantised after training by NNCF, on OpenVINO alone.
    image : (int, int, int)
        Height and width (1 to 2048 pixels) and channels (1 or 3) of the faces; a pass fills it in.
    preprocessing : int
        Version of the preprocessing, 1 as yet. It resizes as ``tf.image.resize`` does by default
        (bilinear, half-pixel centres, no antialiasing), repeats a grey channel three times and
        applies the application's own ``preprocess_input``.
    quantised : str, optional
        Hex sha256 of the quantised network, which is part of its identity; a pass fills it in.
    backbone_file, weights_file : str, optional
        Where the files of the identified forms above lie; filled in when paths are given.

    Raises
    ------
    BackboneError
        When a value is not one of those above, a file is missing or cannot serve, or a file of
        weights is of an EfficientNet and not the published one: how its images are scaled it
        does not say.

    Examples
    --------
    >>> from fer_features import BackboneSpec
    >>> spec = BackboneSpec("efficientnetv2b0", layers=["top_activation"])
    >>> spec.backbone, spec.weights, spec.input_size
    ('EfficientNetV2B0', 'imagenet', 224)
    >>> spec.outputs
    ('final', 'top_activation')
    >>> spec.fingerprint == BackboneSpec("EfficientNetV2B0").fingerprint  # layers are not in it
    True
    """

    backbone: str = DEFAULT
    weights: str | None = None
    input_size: int | None = None
    layers: tuple[str, ...] = ()
    precision: str = "float32"
    image: tuple[int, int, int] = (48, 48, 1)
    preprocessing: int = PREPROCESSING
    quantised: str | None = None
    backbone_file: str | None = field(default=None, compare=False)
    weights_file: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        identified = _SHA256.fullmatch(str(self.backbone)) is not None
        backbone, backbone_file = _identify_backbone(str(self.backbone), self.backbone_file)
        self._set(backbone=backbone, backbone_file=backbone_file)
        weights, weights_file = self._identified_weights()
        self._set(weights=weights, weights_file=weights_file)
        self._set(input_size=self._checked_size(identified), layers=_checked_layers(self.layers))
        self._set(image=_checked_image(self.image))
        for name, allowed in (
            ("precision", ("float32", "int8")),
            ("preprocessing", (PREPROCESSING,)),
        ):
            if getattr(self, name) not in allowed:
                expected = " or ".join(map(repr, allowed))
                raise BackboneError(f"{name}: {getattr(self, name)!r}, expected {expected}.")
        if self.quantised is not None and self.precision != "int8":
            raise BackboneError("quantised: expected with precision int8 alone.")

    @property
    def application(self) -> Application | None:
        """What is known of the application, an Application; None for a Keras file and ``tiny``."""
        return APPLICATIONS.get(self.backbone)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is kept, tuple of str: ``final`` and the inner layers asked for."""
        return (FINAL, *self.layers)

    @property
    def identity(self) -> dict[str, Any]:
        """What the fingerprint is taken of, as the store keeps it: a dict, ready for JSON."""
        identity: dict[str, Any] = {
            "backbone": self.backbone,
            "weights": self.weights,
            "input_size": self.input_size,
            "precision": self.precision,
            "preprocessing": self.preprocessing,
            "image": list(self.image),
        }
        return identity if self.quantised is None else {**identity, "quantised": self.quantised}

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of the identity's JSON with sorted keys, str of 64 digits."""
        return fingerprint(self.identity)

    @property
    def seed(self) -> int | None:
        """Seed of random weights, int; None for trained ones."""
        found = re.fullmatch(r"random:(\d+)@.*", self.weights or "")
        return int(found[1]) if found else None

    @property
    def name(self) -> str:
        """What people call the network, str: its name in Keras, or its file's."""
        if not self.backbone.startswith("sha256:"):
            return self.backbone
        return Path(self.backbone_file).stem if self.backbone_file else self.backbone[:15]

    @property
    def parameters(self) -> int | None:
        """How many numbers its weights are, int, without a top; None where no file says it."""
        if self.application is not None:
            return self.application.parameters
        if self.backbone == TINY:
            return TINY_PARAMETERS
        there = self.backbone_file is not None and Path(self.backbone_file).is_file()
        return count_parameters(Path(str(self.backbone_file))) if there else None

    @property
    def files(self) -> dict[str, str]:
        """Paths of the files that it comes from, dict of str by ``backbone`` and ``weights``."""
        files = {"backbone": self.backbone_file, "weights": self.weights_file}
        return {name: path for name, path in files.items() if path is not None}

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _identified_weights(self) -> tuple[str | None, str | None]:
        """Turn what a user passes for weights into its identified form, and its file if any."""
        weights = None if self.weights is None else str(self.weights)
        if self.backbone.startswith("sha256:"):
            if weights is not None:
                raise BackboneError(
                    f"weights {weights}: a .keras file carries its own weights, expected none "
                    "beside it. Leave --weights out."
                )
            return None, None
        random = re.fullmatch(r"random(?::(\d{1,18}))?", weights or "")
        if random:
            return f"random:{int(random[1] or 0)}@keras-{metadata.version('keras')}", None
        if self.backbone == TINY and not (weights and _RANDOM.fullmatch(weights)):
            raise BackboneError(f"weights: {weights!r}, expected random:SEED for 'tiny'.")
        if weights is None:
            weights = "imagenet"
        if weights == "imagenet" and self.application and not self.application.hash:
            return weights, None  # no file can be told to be the published one
        if weights == "imagenet" or _RANDOM.fullmatch(weights) or _SHA256.fullmatch(weights):
            return weights, self.weights_file
        path = Path(weights).absolute()
        assert self.application is not None
        if path.suffix.lower() == ".keras":
            raise BackboneError(
                f"weights {weights}: a whole network, expected a file of weights (.h5). "
                "Pass it as the backbone."
            )
        if weights.startswith("random:"):
            raise BackboneError(
                f"weights {weights}: no seed, expected a whole number such as random:1."
            )
        try:
            sha256 = file_hash(path)
            published = file_hash(path, self.application.hash_name) == self.application.hash
        except (OSError, ValueError) as error:  # ValueError: no path at all, as with a null byte
            near = difflib.get_close_matches(weights, ["imagenet", "random"], n=1)
            raise BackboneError(
                f"weights {weights}: {getattr(error, 'strerror', None) or error}. "
                + (f"Did you mean {near[0]}? " if near else "")
                + "Pass imagenet, random, random:SEED or the path of a weights file."
            ) from error
        if not published and self.application.module == "efficientnet":
            raise BackboneError(
                f"{path}: weights of {self.backbone} do not say whether its images are scaled as "
                "with ImageNet's, or not, expected the published file. Save the network whole "
                "with model.save('NAME.keras'), and pass it as the backbone."
            )
        return "imagenet" if published else f"sha256:{sha256}", str(path)

    def _checked_size(self, identified: bool) -> int:
        own: int | None = None
        smallest = 1
        if self.application is not None:
            smallest = self.application.smallest
            usual = self.application.input_size
        elif self.backbone == TINY:
            smallest, usual = 32, TINY_SIZE
        else:
            # Of a file named by its sha256 the size is known, wherever the file lies now.
            asked = self.input_size is None or not identified
            if self.input_size is None and self.backbone_file is None:
                raise BackboneError(
                    f"input_size: not known without the file of backbone {self.backbone}. "
                    "Pass the file, or the size."
                )
            own = keras_file(self).side if self.backbone_file and asked else None
            usual = own or FREE_SIZE
        size = usual if self.input_size is None else self.input_size
        if isinstance(size, bool) or not isinstance(size, int) or not smallest <= size <= LARGEST:
            raise BackboneError(
                f"input_size: {size!r}, expected a whole number of pixels from {smallest} to "
                f"{LARGEST} for {self.name}."
            )
        if own is not None and size != own:
            raise BackboneError(
                f"input_size: {size}, expected {own}: {self.name} takes images of {own}x{own} "
                "alone. Leave --input-size out."
            )
        return size


def fingerprint(identity: dict[str, Any]) -> str:
    """Return the hex sha256 of a backbone identity's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def keras_file(spec: BackboneSpec) -> KerasFile:
    """Return what the ``.keras`` file of a spec says of itself, once its content is checked.

    Raises
    ------
    BackboneError
        When where it lies is not known, it is missing or another one, or it cannot serve.
    """
    if spec.backbone_file is None:
        raise BackboneError(
            f"backbone {spec.backbone}: where the file lies is not known. "
            "Pass it as --backbone FILE.keras."
        )
    path = Path(spec.backbone_file)
    found = inspect_keras_file(path)
    if found.sha256 != spec.backbone.removeprefix("sha256:"):
        raise BackboneError(
            f"{path}: sha256:{found.sha256}, expected {spec.backbone}. Pass the same file."
        )
    return found


def check_files(spec: BackboneSpec) -> Path | None:
    """Return the checked file of weights that ``spec`` needs; None where it needs none.

    Takes seconds at most and imports neither TensorFlow nor Keras; downloads ImageNet's weights
    if they are not there.

    Raises
    ------
    BackboneError
        When a file is missing, cut short, of another network, or cannot be downloaded.
    """
    if spec.backbone.startswith("sha256:"):
        known = keras_file(spec).layers
        for name in spec.layers:
            if name not in known:
                raise unknown_layer(name, known, spec.name)
        assert spec.backbone_file is not None
        return Path(spec.backbone_file)
    if spec.seed is not None:
        installed = f"@keras-{metadata.version('keras')}"
        if not str(spec.weights).endswith(installed):
            raise BackboneError(
                f"weights {spec.weights}: drawn by another Keras than the installed one "
                f"({installed[1:]}). Install that version, or pass --weights random:{spec.seed} "
                "and another output."
            )
        return None
    application = spec.application
    assert application is not None
    path = Path(spec.weights_file) if spec.weights_file else None
    if path is None and spec.weights == "imagenet":
        path = imagenet_file(application)
    if path is None:
        raise BackboneError(f"weights {spec.weights}: where the file lies is not known. Pass it.")
    inspect_weights_file(path, application)
    if spec.weights == "imagenet":
        check_published(path, application)
    elif f"sha256:{file_hash(path)}" != spec.weights:
        raise BackboneError(
            f"{path}: sha256:{file_hash(path)}, expected {spec.weights}. Pass the same file."
        )
    return path


def unknown_layer(name: str, known: Iterable[str], network: str) -> BackboneError:
    """Return the error of a layer that a network has not, with the nearest that it has."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return BackboneError(
        f"layer {name!r}: {network} has none of that name. "
        + (f"Did you mean {near[0]}? " if near else "")
        + "fer-extract --backbones NAME|FILE.keras lists its layers."
    )


def _identify_backbone(backbone: str, file: str | None) -> tuple[str, str | None]:
    """Turn what a user passes for a backbone into its identified form, and its file if any."""
    if _SHA256.fullmatch(backbone):
        return backbone, file
    if backbone.lower() == TINY:
        return TINY, None
    spelled = {name.lower(): name for name in APPLICATIONS}
    if backbone.lower() in spelled:
        return spelled[backbone.lower()], None
    path = Path(backbone)
    if path.suffix.lower() == ".keras":
        return f"sha256:{inspect_keras_file(path).sha256}", str(path.absolute())
    if os.path.exists(path):  # noqa: PTH110  (Path.exists raises where a name is too long)
        raise BackboneError(
            f"{backbone}: no .keras file, expected a network's name or a file that Keras wrote. "
            "Save the network with model.save('NAME.keras')."
        )
    beside = {str(file): str(file) for file in sorted(path.parent.glob("*.keras"))[:100]}
    near = difflib.get_close_matches(backbone.lower(), spelled, n=1)
    near = near or difflib.get_close_matches(backbone, beside, n=1)
    raise BackboneError(
        f"backbone {backbone!r}: no network of Keras, expected a name such as {DEFAULT} or the "
        "path of a .keras file. "
        + (f"Did you mean {(spelled | beside)[near[0]]}? " if near else "")
        + "fer-extract --backbones lists them."
    )


def _checked_layers(layers: Any) -> tuple[str, ...]:
    if isinstance(layers, str):
        layers = layers.split(",")
    names = tuple(dict.fromkeys(str(name).strip() for name in layers))
    for name in names:
        if _RESERVED.search(name):
            raise BackboneError(
                f"layer {name!r}: expected an inner layer's name"
                + (
                    f"; {FINAL} is always kept. Leave it out."
                    if name == FINAL
                    else ". Rename the layer in the network."
                    if name
                    else ", found none between two commas."
                )
            )
    return names


def _checked_image(image: Any) -> tuple[int, int, int]:
    form = tuple(image)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in form)
    if (
        not whole
        or len(form) != 3
        or form[2] not in (1, 3)
        or not all(1 <= n <= LARGEST for n in form[:2])
    ):
        raise BackboneError(
            f"image: {form}, expected height, width (1 to {LARGEST} pixels) and channels (1 or 3)."
        )
    return form
