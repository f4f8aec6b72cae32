"""A run made whole: its backbone and its head, from photographs to class probabilities."""

import logging
import os
from collections.abc import Iterator
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from fer_features.embedding.backbone import BackboneSpec
from fer_features.embedding.engines import Engine, choose_engine, embed, load_engine
from fer_features.embedding.openvino import is_converted
from fer_features.errors import (
    FerFeaturesError,
    OptionError,
    SourceError,
)
from fer_features.experiment.run_head import RunHead, load_run_head
from fer_features.faces.dataset import ImageForm, form_name
from fer_features.prediction.detection import Box, Detector
from fer_features.prediction.images import Images, Item, check_images, read_items
from fer_features.prediction.run_backbone import run_spec, with_checked_files

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

UNSURE = "unsure"
"""The answer where no class is probable enough."""

BATCH = 64


class Answer(NamedTuple):
    """What a classifier says of one face.

    Parameters
    ----------
    source : str
        The image: its path, ``TABLE:ROW``, or its position among the images that were given.
    predicted : str, optional
        A class name, or ``"unsure"``; None where ``finding`` says why there is no answer.
    probability : float
        Of the class that the head predicts, also where that is left unsaid as unsure; NaN without
        an answer.
    probabilities : float64 (k,)
        Of each class, in their order.
    box : Box, optional
        Where the face is in a photograph: left, top, width and height in pixels.
    finding : str
        What is wrong with the image; empty where nothing is.
    is_bad : bool
        Whether the image cannot be read; False where no face was found in it.
    """

    source: str
    predicted: str | None
    probability: float
    probabilities: npt.NDArray[np.float64]
    box: Box | None = None
    finding: str = ""
    is_bad: bool = False


class Classifier:
    """Backbone and head of a run, together; :meth:`load` makes one.

    Attributes
    ----------
    run : Path
        The run's folder.
    head : RunHead
        What the run says of its head, and the head.
    label : str
        The head's name: ``"dense"``, ``"logistic"``, or another.
    classes : tuple of str
        Class names, the positive one first.
    spec : BackboneSpec
        The network; its ``image`` is the form of the pixels that it takes.
    features : str
        Which of its outputs the head is given.
    engine : str
        What executes the network, ``"tensorflow"`` or ``"openvino"``.
    temperature : float
        By which the logarithms of the head's probabilities are divided (Guo et al., "On calibration
        of modern neural networks", 2017), 0.05 to 20; 1 changes nothing.

    Examples
    --------
    >>> from fer_features import BackboneSpec, Classifier, LogisticHead, Task, evaluate, extract
    >>> from fer_features.sample.faces import draw_faces
    >>> tiny = BackboneSpec("tiny", weights="random:0")
    >>> data = Task(per_class="min").select(extract(draw_faces(140), "faces.h5", backbone=tiny))
    >>> head = LogisticHead(C=1.0).fit(data.train.X, data.train.y)
    >>> classifier = Classifier.load(evaluate(head, data).save("runs/mine"))
    >>> classifier.classes, classifier.image
    (('positive', 'negative'), (48, 48, 1))
    >>> answers = classifier.predict_pixels(draw_faces(8, seed=1).pixels)
    >>> list(answers.columns)
    ['predicted', 'probability', 'p_positive', 'p_negative']
    """

    def __init__(
        self, run: Path, head: RunHead, spec: BackboneSpec, engine: str, temperature: float
    ) -> None:
        self.run = run
        self.head = head
        self.spec = spec
        self.engine = engine
        self.temperature = temperature
        self.label: str = head.label
        self.classes: tuple[str, ...] = head.classes
        self.features: str = head.features
        self._networks: dict[int, Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the network out, which is loaded again where the copy is used."""
        return self.__dict__ | {"_networks": {}}

    @classmethod
    def load(
        cls,
        run: str | os.PathLike[str],
        *,
        backbone: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        engine: str = "auto",
        calibrate: bool = True,
    ) -> "Classifier":
        """Put a run's head on its backbone.

        Files of the network are looked for where the run's store had them, ImageNet's weights
        where Keras keeps them. A network that OpenVINO converted before, for the store or for this
        run, needs none of them and no TensorFlow; one that it converts now is kept in the run's
        folder.

        Parameters
        ----------
        run : path-like
            A folder that ``fer-fit-head``, or :meth:`Result.save`, wrote, or a comparison's fit.
        backbone, weights : path-like, optional
            The network's ``.keras`` file, or its weights, where they lie elsewhere now.
        engine : str
            What executes the network: "tensorflow", "openvino", or "auto", the default, as for
            :func:`extract`.
        calibrate : bool
            Divide the logarithms of the head's probabilities by the temperature that the run has
            from its validation images. It changes no answer, only how sure it is.

        Returns
        -------
        Classifier
            Its network is loaded when it is first asked.

        Raises
        ------
        RunError
            The folder holds no run, or no head, or one of another network.
        BackboneError
            The network cannot be had, or what is given is another one.
        OptionError
            The engine is unknown or not installed, or a path is none.
        """
        for name, path in (("run", run), ("backbone", backbone), ("weights", weights)):
            is_left_out = path is None and name != "run"
            if not (is_left_out or isinstance(path, str | os.PathLike)):
                raise OptionError(f"{name}: {path!r}, expected a path. Pass one.")
        folder = Path(run)
        head = load_run_head(folder)
        spec = run_spec(head, backbone, weights)
        engine = choose_engine(engine, spec.precision)
        found = cls(folder, head, spec, engine, head.temperature if calibrate else 1.0)
        if not (spec.quantised or (engine == "openvino" and found._is_converted)):
            found.spec = with_checked_files(spec)
        return found

    def __repr__(self) -> str:
        return (
            f"Classifier({str(self.run)!r}: {self.label} on {self.features} of "
            f"{self.spec.name}, {form_name(self.image)} to {', '.join(self.classes)})"
        )

    @property
    def image(self) -> ImageForm:
        """Form of the pixels that it takes, three int: height and width, channels (1 or 3)."""
        return self.spec.image

    @property
    def outputs(self) -> tuple[str, ...]:
        """The network's outputs that the head is given, in their order: tuple of str."""
        return tuple(self.features.split("+"))

    def predict(
        self,
        images: Images,
        *,
        detect: bool = False,
        min_probability: float = 0.0,
        progress: bool = False,
    ) -> "pd.DataFrame":
        """Classify images of any kind and size, read as the run's own were.

        Parameters
        ----------
        images : path, Pillow image, array, bytes, binary file, or a list of those
            A path is an image, a folder of them, or a CSV, Parquet or NumPy file of pixels. An
            array is uint8, 0 to 255, (h, w) or (h, w, 3), or several of them. Of an image that is
            not square the middle is taken.
        detect : bool
            Find the faces in each image first, by OpenCV's cascade (Viola & Jones, 2001): a line a
            face.
        min_probability : float
            Below this probability, 0 to 1, the answer is ``"unsure"``.
        progress : bool
            Show a bar on standard error.

        Returns
        -------
        DataFrame
            A line a face: ``source``; with ``detect`` its ``left``, ``top``, ``width`` and
            ``height`` in pixels; ``predicted``, its ``probability``, and ``p_CLASS`` for each
            class, float64. An image that cannot be read, or without a face, has a line without an
            answer, and a warning is logged; where there is one, the last column ``finding`` says
            why.

        Raises
        ------
        SourceError
            A path is missing, something is no image, a folder holds no images, or a table other
            pixels.
        OptionError
            A bad ``min_probability``, one above 0 where a class is named ``"unsure"``, or no
            detector is installed; or the process is the fork of one that used TensorFlow.
        BackboneError, RunError
            The network cannot be loaded any more, or does not fit the head.
        """
        import pandas as pd

        rows = []
        for answer in self.stream(
            images, detect=detect, min_probability=min_probability, progress=progress
        ):
            if answer.finding:
                log.warning("%s: %s", answer.source, answer.finding)
            rows.append([*self.row(answer, detect).values(), answer.finding])
        lines = pd.DataFrame(rows, columns=[*self.columns(detect), "finding"])
        return lines if lines["finding"].any() else lines.drop(columns="finding")

    def columns(self, detect: bool = False) -> list[str]:
        """Return what :meth:`predict` names its columns, ``finding`` aside: list of str.

        Parameters
        ----------
        detect : bool
            As there.
        """
        box = Box._fields if detect else ()
        return ["source", *box, "predicted", "probability", *(f"p_{c}" for c in self.classes)]

    def row(self, answer: Answer, detect: bool = False) -> dict[str, Any]:
        """Return an answer as :meth:`predict` has it in a line: dict by column.

        Parameters
        ----------
        answer : Answer
            As :meth:`stream` yields it.
        detect : bool
            As there.
        """
        box = (answer.box or [None] * len(Box._fields)) if detect else ()
        p = answer.probabilities.tolist()
        values = [answer.source, *box, answer.predicted, answer.probability, *p]
        return dict(zip(self.columns(detect), values, strict=True))

    def stream(
        self,
        images: Images,
        *,
        detect: bool = False,
        min_probability: float = 0.0,
        progress: bool = False,
    ) -> Iterator[Answer]:
        """Yield an :class:`Answer` for each face, as :meth:`predict`, in bounded memory.

        What can be said of the call as a whole is raised by the call, not by the first answer.

        Parameters
        ----------
        images : path, Pillow image, array, bytes, binary file, or a list of those
            As for :meth:`predict`.
        detect, progress : bool
            As there.
        min_probability : float
            As there.

        Yields
        ------
        Answer
            In the order of the images; what cannot be read has one too, whose ``finding`` says why.

        Raises
        ------
        SourceError, OptionError, BackboneError, RunError
            As :meth:`predict`.
        """
        self._check_probability(min_probability)
        detector = Detector() if detect else None
        checked = check_images(images)
        self._network  # noqa: B018  # loaded, or refused, before the first image is read
        return self._stream(checked, detector, min_probability, progress)

    def predict_pixels(
        self, pixels: npt.NDArray[np.uint8], *, min_probability: float = 0.0
    ) -> "pd.DataFrame":
        """Classify faces that have the run's form already.

        Parameters
        ----------
        pixels : uint8 (n, h, w) or (n, h, w, 3), 0 to 255
            Faces, of the form that ``image`` says.
        min_probability : float
            As :meth:`predict` has it.

        Returns
        -------
        DataFrame
            A line a face: ``predicted``, its ``probability``, and ``p_CLASS`` for each class,
            float64.

        Raises
        ------
        SourceError
            Pixels of another type or form.
        OptionError, BackboneError, RunError
            As :meth:`predict`.
        """
        import pandas as pd

        self._check_probability(min_probability)
        height, width, channels = self.image
        shape = (height, width) if channels == 1 else self.image
        is_right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
        if not is_right or pixels.ndim != len(shape) + 1 or pixels.shape[1:] != shape:
            found = getattr(pixels, "dtype", type(pixels).__name__), getattr(pixels, "shape", ())
            raise SourceError(
                f"pixels: {found[0]} {found[1]}, expected uint8 (n, "
                f"{', '.join(map(str, shape))}). Bring them to that form, or pass images to "
                "predict."
            )
        items = [Item(str(i), each) for i, each in enumerate(pixels)]
        rows = [
            self.row(answer)
            for start in range(0, len(items), BATCH)
            for answer in self._answers(items[start : start + BATCH], min_probability)
        ]
        return pd.DataFrame(rows, columns=self.columns()).drop(columns="source")

    def export(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> float | None:
        """Write backbone, preprocessing, head and temperature as one file.

        See :func:`fer_features.prediction.export.export`, which says what is in it.

        Parameters
        ----------
        path : path-like
            A name that ends in ``.keras``, ``.onnx``, ``.xml`` (OpenVINO) or ``.tflite``.
        overwrite : bool
            Replace a file that is there.

        Returns
        -------
        float, optional
            The greatest difference of a probability, 0 to 1, in the file from the classifier's;
            None where the file's runtime is not installed.

        Raises
        ------
        OptionError
            Another suffix, a package that is not installed, or a file that is there.
        RunError
            The head is of neither kind of this package, or the file cannot be written.
        BackboneError
            The network's files are missing, or the converter cannot write this network.
        """
        from fer_features.prediction.export import export

        return export(self, path, overwrite=overwrite)

    @cached_property
    def network_folder(self) -> Path:
        """Folder where the converted network is, or is to be, Path: the run's or its store's."""
        beside = Path(self.head.store.get("path", "")).parent
        for folder in (self.run, beside):
            if is_converted(self.spec, self.outputs, folder):
                return folder
        return self.run

    @property
    def _is_converted(self) -> bool:
        return is_converted(self.spec, self.outputs, self.network_folder)

    @property
    def _network(self) -> Engine:
        process = os.getpid()  # the threads of an engine do not go with a fork
        if process not in self._networks:
            if self._networks and self.engine == "tensorflow":
                raise OptionError(
                    "engine: TensorFlow, which would wait for ever in the fork of a process that "
                    'used it, expected another. Pass engine="openvino", or start processes with '
                    '"spawn".'
                )
            self._networks[process] = load_engine(
                self.spec, self.outputs, self.engine, self.network_folder
            )
        return self._networks[process]

    def _stream(
        self, images: list[Any], detector: Detector | None, least: float, progress: bool
    ) -> Iterator[Answer]:
        waiting: list[Item] = []
        with tqdm(unit=" images", desc="Predicting", total=0, disable=not progress, delay=1) as bar:

            def coming(count: int) -> None:
                bar.total = (bar.total or 0) + count

            before = None
            try:
                for item in read_items(images, self.image, detector, coming):
                    if item.source != before:  # a photograph has several faces
                        bar.update()
                    before = item.source
                    waiting.append(item)
                    if len(waiting) == BATCH:
                        yield from self._answers(waiting, least)
                        waiting = []
            except FerFeaturesError:  # what was read before it is answered first
                yield from self._answers(waiting, least)
                raise
            yield from self._answers(waiting, least)

    def _answers(self, items: list[Item], least: float) -> Iterator[Answer]:
        """Answer some items, in their order."""
        none = np.full(len(self.classes), np.nan)
        pixels = [item.pixels for item in items if item.pixels is not None]
        said = iter(self._said(np.stack(pixels)) if pixels else ())
        for item in items:
            if item.pixels is None:
                yield Answer(
                    item.source, None, np.nan, none, None, item.finding, is_bad=item.is_bad
                )
                continue
            p, predicted = next(said)
            probability = float(p[self.classes.index(predicted)])
            shown = predicted if probability >= least else UNSURE
            yield Answer(item.source, shown, probability, p, item.box)

    def _said(self, pixels: npt.NDArray[np.uint8]) -> Iterator[tuple[npt.NDArray[np.float64], str]]:
        said = embed(self._network, pixels)
        X = np.concatenate([said[name] for name in self.outputs], axis=1)
        probabilities, predicted = self.head.answers(X, self.temperature)
        yield from zip(probabilities, predicted.tolist(), strict=True)

    def _check_probability(self, least: float) -> None:
        if not (isinstance(least, Real) and 0 <= least <= 1):
            raise OptionError(f"min_probability: {least!r}, expected a number from 0 to 1.")
        if least > 0 and UNSURE in self.classes:
            raise OptionError(
                f"min_probability: {self.run} has a class of the name {UNSURE!r}, which its "
                "answers could not be told apart from. Rename the class, or leave this out."
            )
