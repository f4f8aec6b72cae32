"""Make a network, save it as a .keras file, and ask what its numbers are worth.

    python own_backbone.py [FOLDER]

Gabor filters, edges of several directions and sizes, told expressions apart long before deep
networks did (Lyons et al., "Coding facial expressions with Gabor wavelets", 1998). They need no
training and no download. A trained network goes the same way: `model.save("mine.keras")`.
"""

import sys
from pathlib import Path

import keras
import numpy as np

from fer_features import BackboneSpec, LogisticHead, Task, evaluate, extract
from fer_features.sample.faces import draw_faces


def gabor_kernels(wavelengths: tuple[float, ...] = (4.0, 8.0), directions: int = 6) -> np.ndarray:
    """Return waves under a Gaussian, even and odd, float32 (17, 17, 3, filters)."""
    y, x = np.mgrid[-8:9, -8:9]
    kernels = []
    for wavelength in wavelengths:
        gaussian = np.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
        for angle in np.arange(directions) * np.pi / directions:
            phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength
            for wave in (np.cos(phase), np.sin(phase)):
                kernel = (wave - (wave * gaussian).sum() / gaussian.sum()) * gaussian
                kernels.append(kernel / np.abs(kernel).sum())
    return np.repeat(np.stack(kernels, -1)[:, :, np.newaxis], 3, axis=2).astype(np.float32) / 3


kernels = gabor_kernels()
images = keras.Input((48, 48, 3))  # RGB from 0 to 255; what scales them is inside
filters = keras.layers.Conv2D(kernels.shape[-1], 17, padding="same", use_bias=False)
waves = filters(keras.layers.Rescaling(1 / 255)(images))
filters.set_weights([kernels])
energy = keras.layers.AveragePooling2D(8)(keras.layers.Multiply()([waves, waves]))
network = keras.Model(images, keras.layers.Flatten()(energy))  # one vector an image

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own-backbone")
folder.mkdir(parents=True, exist_ok=True)
network.save(folder / "gabor.keras")

faces = draw_faces(600)  # or read_faces("fer2013.csv")
store = extract(faces, folder / "gabor.h5", backbone=BackboneSpec(str(folder / "gabor.keras")))
data = Task(per_class="min").select(store)
head = LogisticHead().fit(
    data.train.X, data.train.y, X_val=data.validation.X, y_val=data.validation.y
)
result = evaluate(head, data)

print(f"{store.path}: {store.dimensions['final']} numbers for each of {len(store.image)} faces")
print(f"validation accuracy {result.scores['validation']['accuracy']:.2f}, chance 0.50")
