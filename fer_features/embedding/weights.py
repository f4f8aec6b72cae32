"""Files of networks and weights: what they say of themselves, ImageNet's download, random numbers.

Nothing here imports TensorFlow or Keras until a network is loaded: a file that cannot serve is
refused in a moment.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_features.embedding.applications import Application
from fer_features.errors import BackboneError
from fer_features.faces.bad_rows import shown
from fer_features.faces.packed import opened_member, opened_zip
from fer_features.locking import locked

log = logging.getLogger(__name__)

TIMEOUT = (10.0, 30.0)
"""Seconds that a download waits for a connection, and for the next bytes."""

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"

_CONFIG_BYTES = 16 * 2**20
"""Of a network's description, at most: NASNetLarge's takes a tenth, in memory twenty times more."""

_GENERATORS = 4096
"""Bytes of weights that a file need not hold: the state of layers that draw."""


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hex digest of a file's bytes.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "no regular file")  # a pipe would be waited for
    # Times have gaps: a file that took another's place within one has another inode.
    content = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return _file_hash(path, algorithm, content)


@lru_cache(maxsize=64)
def _file_hash(path: Path, algorithm: str, content: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class KerasFile(NamedTuple):
    """What a ``.keras`` file says of the network in it.

    Its hex sha256; ``side``, the height and width in pixels that it takes, None for any; and the
    names of its ``layers``.
    """

    sha256: str
    side: int | None
    layers: tuple[str, ...]


def inspect_keras_file(path: Path) -> KerasFile:
    """Read what a ``.keras`` file says of its network, without loading it.

    The file is a zip archive with ``config.json`` in it
    (https://keras.io/guides/serialization_and_saving).

    Raises
    ------
    BackboneError
        When it is missing or damaged, needs code from outside Keras, has several inputs or
        outputs, or does not take square float RGB images.
    """
    try:
        sha256 = file_hash(path)
        model = _config(path)
        with suppress(KeyError):  # without weights it is Keras that says so
            _numbers(path)
        _refuse_foreign_code(path, model)
        inputs = list(_inputs(model["config"]))
        outputs = _count(model["config"], "output_layers")
        layers = tuple(str(layer["config"]["name"]) for layer in model["config"]["layers"])
    except BackboneError:
        raise
    except FileNotFoundError as error:
        raise BackboneError(
            f"{path}: no such file, expected a network that Keras wrote. Check the path."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise BackboneError(f"{path}: cannot be read ({error.strerror}).") from error
        raise _no_keras_file(path, error) from error
    except Exception as error:  # whatever is met in a file that others wrote
        raise _no_keras_file(path, error) from error
    for name, found in (("input", len(inputs)), ("output", outputs)):
        if found != 1:
            raise BackboneError(
                f"{path}: {found} {name}s, expected one. Save a network of RGB images to one "
                "vector or map."
            )
    shape, dtype = inputs[0]
    if len(shape) != 4 or shape[3] != 3 or not dtype.startswith("float"):
        raise BackboneError(
            f"{path}: takes {shown(dtype)} {_said(shape)}, expected float (n, height, width, 3): "
            "RGB images from 0 to 255, channels last. Save such a network."
        )
    if shape[1] != shape[2]:
        raise BackboneError(
            f"{path}: takes images of {_said(shape[1:3])}, expected square ones or any size. "
            "Save it with another input shape."
        )
    return KerasFile(sha256, shape[1], layers)


def count_parameters(path: Path) -> int | None:
    """Return how many numbers the weights in a ``.keras`` file are; None where it has none."""
    try:
        return sum(n for name, n in _numbers(path).items() if not _BESIDE.match(name))
    except (OSError, LookupError, ValueError, RuntimeError, zipfile.BadZipFile):
        return None


_BESIDE = re.compile("optimizer|.*seed_generator")
"""Beside its weights a file may hold an optimizer's state, and those of layers that draw."""


def _config(path: Path) -> Any:
    """Return the description of the network in a ``.keras`` file."""
    with path.open("rb") as packed, opened_zip(packed) as archive:
        if archive.getinfo(_CONFIG).file_size > _CONFIG_BYTES:
            raise ValueError(f"its {_CONFIG} is too large")
        with opened_member(archive, _CONFIG) as member:
            return json.loads(member.read(_CONFIG_BYTES))


def _numbers(path: Path) -> dict[str, int]:
    """Return how many numbers the arrays in a ``.keras`` file's weights are, by name.

    Raises
    ------
    ValueError
        They state more numbers than there are bytes.
    """
    from fer_features.hdf5 import arrays, structure

    start, size = _weights_within(path)
    with path.open("rb") as file, structure(file, start, size) as weights:
        numbers = arrays(weights)
    if sum(numbers.values()) > size:
        raise ValueError(f"its {_WEIGHTS} states more numbers than it has bytes")
    return numbers


def _weights_within(path: Path) -> tuple[int, int]:
    """Return where in a ``.keras`` file its HDF5 file of weights begins, and its size.

    Raises
    ------
    ValueError
        It is packed, which Keras does not, and so may be of any size.
    """
    with path.open("rb") as file, opened_zip(file) as archive:
        member = archive.getinfo(_WEIGHTS)
        opened_member(archive, member).close()
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its {_WEIGHTS} is compressed")
        file.seek(member.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        return member.header_offset + 30 + name + extra, member.file_size


def _no_keras_file(path: Path, error: Exception) -> BackboneError:
    return BackboneError(
        f"{path}: cannot be read as a .keras file ({_short(error)}), expected one that Keras 3 "
        "wrote. It may be cut short, or saved in another format: save the network with "
        "model.save('NAME.keras')."
    )


def _refuse_foreign_code(path: Path, model: Any) -> None:
    """Refuse a network whose configuration names anything that is not Keras's own."""
    for item in _dicts(model):
        name = item.get("class_name")
        if not isinstance(name, str):
            continue
        module, registered = item.get("module"), item.get("registered_name")
        root = str(module).partition(".")[0]
        foreign = root not in ("keras", "builtins") if module else bool(registered)
        if name == "function" and root == "builtins":  # Keras names its own by a word alone
            foreign, registered = True, item.get("config")
        if foreign or name in ("Lambda", "__lambda__", "TFSMLayer"):
            raise BackboneError(
                f"{path}: needs code that is not in the file ({shown(str(registered or name))}), "
                "expected layers of Keras alone. Rebuild the network without it."
            )


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _inputs(config: dict[str, Any]) -> Iterator[tuple[tuple[int | None, ...], str]]:
    """Yield shape, with the batch in front, and dtype of each of a network's inputs."""
    layers = [layer for layer in config["layers"] if layer["class_name"] == "InputLayer"]
    for layer in layers:
        said = layer["config"]
        shape = said.get("batch_shape") or said["batch_input_shape"]
        yield _whole(shape), str(said.get("dtype", "float32"))
    if not layers and config.get("build_input_shape"):
        yield _whole(config["build_input_shape"]), "float32"


def _whole(shape: Any) -> tuple[int | None, ...]:
    if not all(n is None or type(n) is int for n in shape):
        raise ValueError(f"an input shape of {shape}")
    return tuple(shape)


def _count(config: dict[str, Any], name: str) -> int:
    """Count the outputs of a functional network; a sequential one has one."""
    named = config.get(name)
    if isinstance(named, dict):
        return len(named)
    if not named or isinstance(named[0], str):
        return 1
    return len(named)


def _said(shape: Any) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"


def load_keras_file(path: Path) -> Any:
    """Load the network of an inspected ``.keras`` file in safe mode, computing in float32.

    Raises
    ------
    BackboneError
        When Keras refuses it.
    """
    from fer_features.hdf5 import check_survived
    from fer_features.runtimes import plain_keras

    with plain_keras() as keras:
        try:
            check_survived(path, *_weights_within(path))
            _refuse_oversize(keras, path)
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
            if not all(_computes_in_float32(layer) for layer in model.layers):
                # Saved under a mixed policy: the same weights, in layers that compute in float32.
                plain = model.__class__.from_config(_in_float32(model.get_config()))
                # Not set_weights: some layers make numbers of their weights as they are loaded.
                plain.load_weights(path)
                model = plain
            if isinstance(model, keras.Sequential):  # which does not show its operations
                model = keras.Model(model.inputs, model.outputs, name=model.name)
        except Exception as error:  # whatever Keras meets in a file that others wrote
            raise BackboneError(
                f"{path}: Keras {keras.__version__} cannot load it ({_short(error)}). Save it "
                "again with model.save, in this version or an older one."
            ) from error
    return model


def _refuse_oversize(keras: Any, path: Path) -> None:
    """Refuse a network of more weights than its file holds, before memory is taken for them.

    Raises
    ------
    ValueError
        Its description asks for more.
    """

    def described() -> int:
        # Within this scope variables have shapes and no values.
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(_config(path), safe_mode=True)
            return sum(math.prod(map(int, each.shape)) for each in model.variables)

    # Keras notes, for each thread, what it has yet to give values to.
    with ThreadPoolExecutor(1) as apart:
        numbers = apart.submit(described).result()
    held = sum(_numbers(path).values())
    if numbers > held + _GENERATORS:
        raise ValueError(f"it describes {numbers:,} numbers and holds {held:,}")


def _computes_in_float32(layer: Any) -> bool:
    nested = getattr(layer, "layers", ())
    return all(map(_computes_in_float32, nested)) and layer.compute_dtype == "float32"


_FLOATS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")


def _in_float32(config: Any) -> Any:
    """Return a configuration with float32 for every policy of a layer, and other dtypes kept."""
    if isinstance(config, dict):
        if str(config.get("class_name", "")).endswith("DTypePolicy"):
            return "float32"
        return {
            name: "float32" if name == "dtype" and value in _FLOATS else _in_float32(value)
            for name, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(map(_in_float32, config))
    return config


def imagenet_path(application: Application) -> Path:
    """Return where Keras keeps ImageNet's weights of a network once it has downloaded them."""
    home = os.environ.get("KERAS_HOME")
    try:
        folder = Path(home) if home else Path.home() / ".keras"
    except RuntimeError as error:
        raise BackboneError(
            "ImageNet weights: no home folder is known here, expected one that keeps them. Set "
            "KERAS_HOME to a folder, or pass a file's path as --weights FILE."
        ) from error
    return folder / "models" / application.file


def imagenet_file(application: Application) -> Path:
    """Return the file of ImageNet's weights, downloaded if it is not there yet.

    It lies where Keras itself looks for it. A download goes to a temporary name, is compared with
    the hash that Keras publishes, and is renamed; two processes take turns.

    Raises
    ------
    BackboneError
        When the file is not the published one, or there is no way to it.
    """
    path = imagenet_path(application)
    try:
        if not path.exists():
            _download(application, path)
    except (OSError, ValueError, BackboneError) as error:
        raise BackboneError(
            f"ImageNet weights: cannot be downloaded from {application.url} "
            f"({_why_not(error)}). Put {application.file} into {path.parent}, or pass its "
            "path as --weights FILE, or pass --weights random."
        ) from error
    check_published(path, application)
    return path


def check_published(path: Path, application: Application) -> None:
    """Compare a file with the hash of the published ImageNet weights, where Keras has one.

    Raises
    ------
    BackboneError
        When it differs, or the file cannot be read.
    """
    try:
        published = not application.hash or (
            file_hash(path, application.hash_name) == application.hash
        )
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror}).") from error
    if not published:
        raise BackboneError(
            f"{path}: not the published ImageNet weights (its {application.hash_name} differs). "
            "Remove it, and it is downloaded again."
        )


def _download(application: Application, path: Path) -> None:
    import sys

    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(path.name + ".lock"), patience=-1):
        if path.exists():  # another process brought it meanwhile
            return
        log.info("downloading %s", application.url)
        # Where Keras publishes no hash, what came is inspected before it has its name.
        name = path.name if application.hash else f".{os.getpid()}-{path.name}"
        came = path.with_name(name)
        try:
            pooch.retrieve(
                application.url,
                known_hash=f"{application.hash_name}:{application.hash}"
                if application.hash
                else None,
                fname=name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=sys.stderr.isatty()),
            )
            if came != path:
                inspect_weights_file(came, application)
                came.replace(path)
        finally:
            if came != path:
                came.unlink(missing_ok=True)


def _why_not(error: Exception) -> str:
    """Say in a few words why a download failed."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}".rstrip()
    known = {
        exceptions.ProxyError: "the proxy does not let it through",
        exceptions.SSLError: "no trusted connection",
        exceptions.ConnectTimeout: f"no connection within {TIMEOUT[0]:g} s",
        exceptions.ReadTimeout: f"no more bytes within {TIMEOUT[1]:g} s",
        exceptions.ChunkedEncodingError: "the connection broke off",
    }
    for kind, said in known.items():
        if isinstance(error, kind):
            return said
    if isinstance(error, exceptions.ConnectionError):
        return known[exceptions.ReadTimeout] if "timed out" in str(error) else "no connection"
    if isinstance(error, BackboneError) or (isinstance(error, ValueError) and "hash" in str(error)):
        return "what came is not the published file"
    said = getattr(error, "strerror", None) or _short(error)
    file = getattr(error, "filename", None)  # of a disk's or the system's refusal
    return f"{file}: {said}" if file else said


def inspect_weights_file(path: Path, application: Application) -> None:
    """Check that a file holds all numbers of a network without its top, all of them finite.

    Sizes are compared before a value is read: a small file may declare more than memory holds.

    Raises
    ------
    BackboneError
        When it does not; the message says what it holds instead.
    """
    import h5py

    from fer_features.hdf5 import arrays, structure

    if not path.name.endswith((".h5", ".hdf5")):
        raise BackboneError(f"{path}: expected a name that ends in .h5, as Keras writes weights.")
    try:
        with path.open("rb") as looked, structure(looked) as file:
            sizes = arrays(file)
            weights = [name for name in sizes if not _BESIDE.match(name)]
            numbers = sum(sizes[name] for name in weights)
            for name in sizes.keys() - set(weights):
                if sizes[name] > application.parameters:
                    raise ValueError(f"/{name} states {sizes[name]:,} numbers")
            if numbers != application.parameters:
                raise BackboneError(
                    f"{path}: {len(weights)} arrays with {numbers:,} numbers, expected "
                    f"{application.parameters:,} ({application.name} without its top). Pass a "
                    "file that was saved with include_top=False."
                )
        with h5py.File(path, "r") as file:
            for name in weights:
                if not np.isfinite(file[name][()]).all():
                    raise BackboneError(
                        f"{path}: /{shown(name, 80)} holds numbers that are not finite."
                    )
    except FileNotFoundError as error:
        raise BackboneError(
            f"{path}: no such file, expected weights that Keras wrote. Check the path."
        ) from error
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BackboneError(
            f"{path}: cannot be read as an HDF5 weights file ({_short(error)}). It may be cut "
            "short: copy or download it again, or save it with Keras's model.save_weights."
        ) from error


def load_weights(model: Any, path: Path, name: str) -> None:
    """Load an inspected weights file into a network; Keras reads both of its layouts.

    Raises
    ------
    BackboneError
        When the arrays are of other shapes or in another order than the network's.
    """
    from fer_features.hdf5 import check_survived

    try:
        check_survived(path)
        model.load_weights(path)
    except Exception as error:  # whatever Keras meets in a file that others wrote
        raise BackboneError(
            f"{path}: Keras cannot load it into {name} ({_short(error)}). Save it again with "
            "model.save_weights."
        ) from error


def draw_weights(model: Any, seed: int) -> None:
    """Set kernels to seeded LeCun-uniform numbers and leave the rest as Keras initialises it.

    LeCun et al., "Efficient BackProp", 1998: the limit sqrt(3 / fan_in) keeps the variance of a
    linear layer's output at that of its input. He's sqrt(6 / fan_in), which allows for rectifiers,
    lets deep residual networks grow until rounding decides what they say: EfficientNetV2S on two
    engines then differed by half of its largest value. Drawn with NumPy, so that equal seeds give
    equal numbers on every machine, and no global random state is read or changed.
    """
    generator = np.random.default_rng(seed)
    for layer in _all_layers(model):
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            kernel = getattr(layer, name, None)
            if kernel is None:
                continue
            shape = tuple(kernel.shape)
            # A depthwise kernel (height, width, channels, 1) looks at one channel at a time.
            depthwise = name == "depthwise_kernel" or hasattr(layer, "depth_multiplier")
            seen = shape[:2] if depthwise and name != "pointwise_kernel" else shape[:-1]
            limit = (3 / np.prod(seen)) ** 0.5
            kernel.assign(generator.uniform(-limit, limit, shape).astype(np.float32))


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)


def _short(error: BaseException) -> str:
    """Return an exception's first line, cut to a readable length."""
    said = str(error).strip().strip("\"'")
    return shown((said.splitlines() or [type(error).__name__])[0], 120)
