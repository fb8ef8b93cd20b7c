"""CNN features with an RBF support vector machine or a random forest (Yang, *Automatic recognition of
concrete cracks in industrial and civil buildings based on CNN + SVM/Random Forest*).

features      pooled features of VGG16, ResNet50, MobileNetV3 or EfficientNet-Lite (the paper's Table 1)
whitening     ZCA, fitted on training features
distillation  `backbone.weights=distilled`: a ResNet50 teacher, a MobileNetV3 or EfficientNet-Lite student, a
              discriminator between their features (`training`)
classifier    RBF SVM (C, gamma), or a random forest of 100 trees, depth 20, feature share 0.8; beside them
              the network from end to end: the head that a learnt backbone was trained with
search        the paper's adaptive rule for C and gamma is the sampler `adaptive`; TPE stands beside it
compression   support vectors pruned by 30 to 50 %, int8, random Fourier features; forests pruned
levels        crack or none; minor (< 0.1 mm) or obvious, from image labels alone; any number of levels

Deviations and readings:
- gamma is in units of 1 / (mean squared distance of two training images): one range fits every backbone;
- the paper gives no C and gamma: C = 1 is scikit-learn's default, gamma = 1 twice its own;
- ZCA's regularisation is relative to the mean eigenvalue; the paper gives none;
- a backbone that is trained or distilled here learns from images that the classifier never sees; it and its
  teacher start from random weights, so that no network is needed, and with `training.start=imagenet` and
  `training.distillation.teacher_start=imagenet` from pretrained ones, as the paper's;
- the compressed classifier's bytes include its share of the whitening, which the paper's may not;
- Nystroem features and reduced sets are not in the paper.
"""

from fissura.classical.compression import Compression
from fissura.classical.estimators import SVM, ZCAWhitening
from fissura.classification.recipe import ClassifierRecipe
from fissura.core.paper import Paper
from fissura.models.backbones import Backbone

PAPER = Paper("Yang", venue=None, year=None)  # its text names neither


def recipe() -> ClassifierRecipe:
    """The paper's light model: MobileNetV3, ZCA, RBF SVM."""
    return ClassifierRecipe(
        name="cnn_svm",
        backbone=Backbone(kind="mobilenet_v3", weights="imagenet", input_size=224),
        whitening=ZCAWhitening(),
        classifier=SVM(C=1.0, gamma=1.0),
        compression=Compression(method="none"),
        folds=5,
    )
