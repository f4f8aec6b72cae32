"""The original experiment's way to embeddings: Keras's own network and preprocessing."""

from typing import Any

from fer_features import BackboneSpec
from fer_features.embedding.backbone import check_files
from fer_features.embedding.network import load_network
from fer_features.runtimes import import_keras, import_tensorflow

INCEPTION = BackboneSpec(weights="random")
"""The original's network, InceptionResNetV2 at 139 pixels; random weights cost what trained do."""


def original_network(spec: BackboneSpec = INCEPTION) -> Any:
    """Return a network without its top, with global average pooling."""
    network = load_network(spec, check_files(spec))
    network.trainable = False
    return network


def preprocessed(pixels: Any, spec: BackboneSpec = INCEPTION) -> Any:
    """Map uint8 (n, 48, 48) to float32 (n, size, size, 3), scaled as the network wants it."""
    tf, keras = import_tensorflow(), import_keras()
    size = (spec.input_size, spec.input_size)
    images = tf.image.resize(tf.cast(pixels, tf.float32)[..., tf.newaxis], size)
    images = tf.repeat(images, 3, axis=-1)
    if spec.application is None:
        return images  # a Keras file scales by itself
    return getattr(keras.applications, spec.application.module).preprocess_input(images)
