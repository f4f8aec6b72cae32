"""Say what an exported classifier sees: python use_the_export.py MODEL.onnx FACE..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["classifier.json"])
height, width, channels = about["image"]
for path in sys.argv[2:]:
    face = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    face = face if channels == 3 else face.convert("L")
    face = ImageOps.fit(face, (width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(face)[np.newaxis]  # uint8 (1, h, w) or (1, h, w, 3)
    probabilities = session.run(["probabilities"], {"pixels": pixels})[0][0]
    best = probabilities.argmax()
    print(path, about["classes"][best], f"{probabilities[best]:.6f}", sep="\t")
