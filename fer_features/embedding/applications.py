"""The networks of ``keras.applications`` that can be backbones, and what is known of each.

Known without importing Keras, so that a misspelt name or a size that is too small is refused in a
moment, and ``fer-extract --backbones`` answers at once. A test holds every row against Keras.
"""

from typing import NamedTuple

_PUBLISHED = "https://storage.googleapis.com/"


class Application(NamedTuple):
    """One network without its top, with global average pooling.

    ``module`` of ``keras.applications`` holds its ``preprocess_input``. Sizes are height and width
    in pixels: ``input_size`` what it is fed by default, ``smallest`` what it takes at least.
    ``dimension`` is the length of its embedding, ``parameters`` counts all its weights. ``path``
    says where Keras publishes the file of its ImageNet weights, ``hash`` is that file's md5 or
    sha256 as Keras checks it, empty where Keras checks none, and ``kept_as`` its name in Keras's
    cache where it is another.
    """

    name: str
    module: str
    input_size: int
    smallest: int
    dimension: int
    parameters: int
    path: str
    hash: str
    kept_as: str = ""

    @property
    def url(self) -> str:
        """Where Keras publishes the ImageNet weights."""
        bucket = "" if self.module == "efficientnet" else "tensorflow/"
        return f"{_PUBLISHED}{bucket}keras-applications/{self.path}"

    @property
    def file(self) -> str:
        """The name under which Keras keeps them."""
        return self.kept_as or self.path.rpartition("/")[2]

    @property
    def hash_name(self) -> str:
        """``"md5"`` or ``"sha256"``."""
        return "md5" if len(self.hash) == 32 else "sha256"


# fmt: off
_ROWS = (
    Application("ConvNeXtBase", "convnext", 224, 32, 1024, 87_566_464,
        "convnext/convnext_base_notop.h5",
        "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    Application("ConvNeXtLarge", "convnext", 224, 32, 1536, 196_230_336,
        "convnext/convnext_large_notop.h5",
        "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    Application("ConvNeXtSmall", "convnext", 224, 32, 768, 49_454_688,
        "convnext/convnext_small_notop.h5",
        "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    Application("ConvNeXtTiny", "convnext", 224, 32, 768, 27_820_128,
        "convnext/convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    Application("ConvNeXtXLarge", "convnext", 224, 32, 2048, 348_147_968,
        "convnext/convnext_xlarge_notop.h5",
        "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
    Application("DenseNet121", "densenet", 224, 32, 1024, 7_037_504,
        "densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "30ee3e1110167f948a6b9946edeeb738"),
    Application("DenseNet169", "densenet", 224, 32, 1664, 12_642_880,
        "densenet/densenet169_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "b8c4d4c20dd625c148057b9ff1c1176b"),
    Application("DenseNet201", "densenet", 224, 32, 1920, 18_321_984,
        "densenet/densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "c13680b51ded0fb44dff2d8f86ac8bb1"),
    Application("EfficientNetB0", "efficientnet", 224, 32, 1280, 4_049_571,
        "efficientnetb0_notop.h5",
        "50bc09e76180e00e4465e1a485ddc09d"),
    Application("EfficientNetB1", "efficientnet", 240, 32, 1280, 6_575_239,
        "efficientnetb1_notop.h5",
        "74c4e6b3e1f6a1eea24c589628592432"),
    Application("EfficientNetB2", "efficientnet", 260, 32, 1408, 7_768_569,
        "efficientnetb2_notop.h5",
        "111f8e2ac8aa800a7a99e3239f7bfb39"),
    Application("EfficientNetB3", "efficientnet", 300, 32, 1536, 10_783_535,
        "efficientnetb3_notop.h5",
        "af6d107764bb5b1abb91932881670226"),
    Application("EfficientNetB4", "efficientnet", 380, 32, 1792, 17_673_823,
        "efficientnetb4_notop.h5",
        "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    Application("EfficientNetB5", "efficientnet", 456, 32, 2048, 28_513_527,
        "efficientnetb5_notop.h5",
        "38879255a25d3c92d5e44e04ae6cec6f"),
    Application("EfficientNetB6", "efficientnet", 528, 32, 2304, 40_960_143,
        "efficientnetb6_notop.h5",
        "9ecce42647a20130c1f39a5d4cb75743"),
    Application("EfficientNetB7", "efficientnet", 600, 32, 2560, 64_097_687,
        "efficientnetb7_notop.h5",
        "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    Application("EfficientNetV2B0", "efficientnet_v2", 224, 32, 1280, 5_919_312,
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        "893217f2bb855e2983157299931e43ff"),
    Application("EfficientNetV2B1", "efficientnet_v2", 240, 32, 1280, 6_931_124,
        "efficientnet_v2/efficientnetv2-b1_notop.h5",
        "0e80663031ca32d657f9caa404b6ec37"),
    Application("EfficientNetV2B2", "efficientnet_v2", 260, 32, 1408, 8_769_374,
        "efficientnet_v2/efficientnetv2-b2_notop.h5",
        "1dfe2e7a5d45b6632553a8961ea609eb"),
    Application("EfficientNetV2B3", "efficientnet_v2", 300, 32, 1536, 12_930_622,
        "efficientnet_v2/efficientnetv2-b3_notop.h5",
        "f6abf7b5849ac99a89b50dd3fd532856"),
    Application("EfficientNetV2L", "efficientnet_v2", 480, 32, 1280, 117_746_848,
        "efficientnet_v2/efficientnetv2-l_notop.h5",
        "b0b66b5c863aef5b46e8608fe1711615"),
    Application("EfficientNetV2M", "efficientnet_v2", 480, 32, 1280, 53_150_388,
        "efficientnet_v2/efficientnetv2-m_notop.h5",
        "1b8dc055df72dde80d614482840fe342"),
    Application("EfficientNetV2S", "efficientnet_v2", 384, 32, 1280, 20_331_360,
        "efficientnet_v2/efficientnetv2-s_notop.h5",
        "af0682fb74e8c54910f2d4393339c070"),
    Application("InceptionResNetV2", "inception_resnet_v2", 139, 75, 1536, 54_336_736,
        "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "d19885ff4a710c122648d3b5c3b684e4"),
    Application("InceptionV3", "inception_v3", 299, 75, 2048, 21_802_784,
        "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63"),
    Application("MobileNet", "mobilenet", 224, 32, 1024, 3_228_864,
        "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        ""),
    Application("MobileNetV2", "mobilenet_v2", 224, 32, 1280, 2_257_984,
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        ""),
    Application("MobileNetV3Large", "mobilenet_v3", 224, 32, 960, 2_996_352,
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389"),
    Application("MobileNetV3Small", "mobilenet_v3", 224, 32, 576, 939_120,
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "d3e8ec802a04aa4fc771ee12a9a9b836"),
    Application("NASNetLarge", "nasnet", 331, 32, 4032, 84_916_818,
        "nasnet/NASNet-large-no-top.h5",
        "d81d89dc07e6e56530c4e77faddd61b5", "nasnet_large_no_top.h5"),
    Application("NASNetMobile", "nasnet", 224, 32, 1056, 4_269_716,
        "nasnet/NASNet-mobile-no-top.h5",
        "1ed92395b5b598bdda52abe5c0dbfd63", "nasnet_mobile_no_top.h5"),
    Application("ResNet101", "resnet", 224, 32, 2048, 42_658_176,
        "resnet/resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "88cf7a10940856eca736dc7b7e228a21"),
    Application("ResNet101V2", "resnet_v2", 224, 32, 2048, 42_626_560,
        "resnet/resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "c0ed64b8031c3730f411d2eb4eea35b5"),
    Application("ResNet152", "resnet", 224, 32, 2048, 58_370_944,
        "resnet/resnet152_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    Application("ResNet152V2", "resnet_v2", 224, 32, 2048, 58_331_648,
        "resnet/resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "ed17cf2e0169df9d443503ef94b23b33"),
    Application("ResNet50", "resnet", 224, 32, 2048, 23_587_712,
        "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626"),
    Application("ResNet50V2", "resnet_v2", 224, 32, 2048, 23_564_800,
        "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "fac2f116257151a9d068a22e544a4917"),
    Application("VGG16", "vgg16", 224, 32, 512, 14_714_688,
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc"),
    Application("VGG19", "vgg19", 224, 32, 512, 20_024_384,
        "vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "253f8cb515780f3b799900260a226db6"),
    Application("Xception", "xception", 299, 71, 2048, 20_861_480,
        "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "b0042744bf5b25fce3cb969f33bebb97"),
)
# fmt: on

APPLICATIONS = {row.name: row for row in _ROWS}
"""Each by its name in Keras. InceptionResNetV2 is fed 139 pixels, as in the original experiment."""
