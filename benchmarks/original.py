"""The original experiment's way to embeddings: Keras's own network and preprocessing."""

from typing import Any

from fer_features import BackboneSpec
from fer_features.embedding.network import load_network
from fer_features.runtimes import import_keras, import_tensorflow

SIZE = 139


def original_network() -> Any:
    """Return InceptionResNetV2 without its top, with global average pooling and random weights."""
    network = load_network(BackboneSpec(weights="random"), None)
    network.trainable = False
    return network


def preprocessed(pixels: Any) -> Any:
    """Map uint8 (n, 48, 48) to float32 (n, 139, 139, 3) in [-1, 1], as the original did."""
    tf, keras = import_tensorflow(), import_keras()
    images = tf.image.resize(tf.cast(pixels, tf.float32)[..., tf.newaxis], (SIZE, SIZE))
    images = tf.repeat(images, 3, axis=-1)
    return keras.applications.inception_resnet_v2.preprocess_input(images)
