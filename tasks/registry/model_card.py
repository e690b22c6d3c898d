"""The model card that goes into a release: Markdown with the metadata that Hugging Face defined for such files."""

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

from tasks.data.arrays import recorded_fit
from tasks.stage.shown import DATASETS, costs_text, markdown_text, percent

# https://huggingface.co/docs/hub/model-cards#model-card-metadata; in this file, so that a release needs no other.
TEMPLATE = """\
---
library_name: keras
pipeline_tag: image-classification
tags:
- image-classification
- keras
- tensorflow
datasets:
- {{ metrics.dataset | yaml }}
metrics:
- accuracy
model-index:
- name: {{ training.recipe | yaml }}
  results:
  - task:
      type: image-classification
    dataset:
      type: {{ metrics.dataset | yaml }}
      name: {{ dataset | yaml }}
      split: test
    metrics:
    - type: accuracy
      name: top-1
      value: {{ metrics.top1 }}
---

# Image classifier: recipe {{ training.recipe }} on {{ dataset }}

**{{ metrics.top1 | percent }} top-1** on all {{ metrics.images | count }} test images of {{ dataset }} \
(95 % interval {{ metrics.top1_low | percent }} to {{ metrics.top1_high | percent }}, Wilson).
{% if metrics.dataset == "digits" %}

> These are scikit-learn's handwritten digits, enlarged, not CIFAR-10: the numbers show that the pipeline works and say
> nothing about photographs.
{% endif %}

## What it is

A network ({{ architecture }}) from uint8 images of {{ shape }} pixels to the probabilities of \
{{ classes | length }} classes; the preprocessing is inside. It has {{ metrics.parameters | count }} parameters and \
takes {{ "%.1f" | format(metrics.model_bytes / 1e6) }} MB.

Classes, in the order of the outputs: {{ classes | map("markdown_text") | join(", ") }}.

## Intended use

Telling apart these {{ classes | length }} classes in images like the training images, and learning how such a model
is trained, measured and published. It has not been examined for any decision about people, nor where a wrong answer
does harm.

## Data

{% if metrics.dataset == "cifar10" %}
CIFAR-10 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).
{% endif %}
Training images: {{ split.counts.train.total | count }}; validation: {{ split.counts.validation.total | count }} \
(method {{ split.method }}, seed {{ split.seed }}); test: {{ split.counts.test.total | count }}.
sha256 of the test images and labels: `{{ metrics.test_sha256 }}`.

## Metrics

Every test image counts once; nothing was chosen by looking at one.

| measure | value |
|---|---|
| top-1 | {{ metrics.top1 | percent }} ({{ metrics.top1_low | percent }} to {{ metrics.top1_high | percent }}) |
| top-1 with test-time augmentation ({{ augmentation }}) | {{ metrics.top1_augmented | percent }} |
| balanced accuracy | {{ metrics.balanced_accuracy | percent }} |
| macro F1 | {{ metrics.macro_f1 | percent }} |
{% if metrics.roc_auc is defined %}
{% set positive = metrics.positive_class | markdown_text %}
| area under the ROC curve, class {{ positive }} | {{ "%.4f" | format(metrics.roc_auc) }} |
| average precision, class {{ positive }} | {{ "%.4f" | format(metrics.average_precision) }} |
{% endif %}
| log loss | {{ "%.4f" | format(metrics.log_loss) }} nats |
| expected calibration error | {{ metrics.expected_calibration_error | percent }} |
| binary accuracy | {{ metrics.binary_accuracy | percent }} |
{% if metrics.costs is defined %}
| mean cost of an image, by the answer of least expected cost | {{ "%.4f" | format(metrics.mean_cost) }} |
| mean cost of an image, by the most probable class | {{ "%.4f" | format(metrics.mean_cost_plain) }} |

A mistake costs: {{ metrics.costs | costs_text | markdown_text }}; any other 1. `python -m tasks.predict` answers the
class of least expected cost by the probabilities, which are the model's own; all else here is of the most probable one.
{% endif %}

Binary accuracy counts each of the {{ classes | length }} outputs as a question of its own (Keras 2's accuracy under
binary cross-entropy); an all-zero answer scores {{ (1 - 1 / (classes | length)) | percent }}.
It is here for comparison with the original notebook only.

## Training

Recipe `{{ training.recipe }}`, seed {{ training.seed }}, precision {{ training.precision }}: \
{% if recipe_method == "probe" %}
a linear head on frozen features, the best of {{ training.epochs_run }} penalties by validation loss.
{% else %}
{{ training.epochs_run }} epochs, {{ training.steps | count }} steps.
The {{ "averaged " if averaged }}weights of epoch {{ training.best_epoch }} were kept.
{% endif %}
{% if training.pretrained is defined and training.pretrained %}
It began with weights\
{% if training.pretrained.source %} of {{ training.pretrained.source | markdown_text }} (trained on \
{{ training.pretrained.trained_on | markdown_text }}; {{ training.pretrained.licence | markdown_text }})\
{% endif %}, sha256 `{{ training.pretrained.sha256 }}`.
{% endif %}
{% if training.start is defined %}
It began with the weights of release `{{ training.start.release }}`\
{% if training.start.shrink_perturb %}, each trained one times {{ training.start.shrink_perturb.shrink }} plus \
{{ training.start.shrink_perturb.perturb }} times the seed's own (Ash and Adams 2020, arXiv 1910.08475)\
{% endif %}, and has seen what that has.
{% if training.start.test_images_seen %}
Of the test images {{ training.start.test_images_seen | count }} are among that: no comparison with another release \
counts them, and the figures above do.
{% endif %}
{% endif %}
{% if training.calibration is defined and training.calibration.after is defined %}
The logits are divided by a temperature of {{ "%.3f" | format(training.calibration.temperature) }}, fitted on \
{{ training.calibration.images | count }} validation images (Guo et al. 2017, arXiv 1706.04599); it changes no answer.
{% elif training.calibration is defined %}
The probabilities are not calibrated: {{ training.calibration.reason }}.
{% endif %}
Every parameter:

```json
{{ recipe }}
```

## Limitations

- It answers with one of its classes whatever it is shown; there is no answer “none of these”.
- Images of another size are brought to {{ shape }} first, and what is cut off or lost then is lost.
- The interval covers the chance of the test sample only, not another camera, another place or another year.
- Confidence is a probability only as far as the calibration error says.

## How to use it

With this repository, which registers the layers of its own:

```python
from pathlib import Path

from tasks.model_files.files import load_model

model = load_model(Path("model.keras"))
# From uint8 (N, {{ split.image_shape | join(", ") }}) to float32 (N, {{ classes | length }}).
probabilities = model(images, training=False).numpy()
```

With TensorFlow alone, or TensorFlow Serving:

```python
import tensorflow as tf

serve = tf.saved_model.load("saved_model/1").signatures["serving_default"]
(probabilities,) = serve(images=tf.constant(images)).values()
```

`labels.json` names the outputs.
{% if metrics.dataset == "folders" %}

Both take photographs that are prepared as the training images were, which `python -m tasks.predict` does: upright, in
RGB, with white behind what is transparent, and \
{% if fit == "crop" %}
the middle cut out: the shorter side is scaled to {{ size }} pixels.
{% elif fit == "pad" %}
the longer side scaled to {{ size }} pixels and the rest black.
{% else %}
squashed: each side is scaled to {{ size }} pixels by itself.
{% endif %}

```python
import numpy as np
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGBA")
image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
{% if fit == "crop" %}
side = min(image.size)
left, top = ((length - side) // 2 for length in image.size)
image = image.resize(({{ size }}, {{ size }}), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
{% elif fit == "pad" %}
image = ImageOps.pad(image, ({{ size }}, {{ size }}), Image.Resampling.BICUBIC)
{% else %}
image = image.resize(({{ size }}, {{ size }}), Image.Resampling.BICUBIC)
{% endif %}
images = np.asarray(image)[None]
```
{% endif %}
"""


def model_card(
    metrics: Mapping[str, Any], training: Mapping[str, Any], split: Mapping[str, Any], params: Mapping[str, Any]
) -> str:
    """Return the card as Markdown; equal facts are equal text.

    Args:
        metrics: evaluation/metrics.json.
        training: model/training.json.
        split: data/split/split.json.
        params: params.yaml with every default filled in; of its recipes the trained one is used.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701  Markdown
    environment.filters |= {
        "percent": percent,
        "count": lambda number: f"{number:,}",
        "costs_text": costs_text,
        "markdown_text": markdown_text,
        "yaml": lambda text: json.dumps(text, ensure_ascii=False),  # every JSON string is a YAML string
    }
    recipe = params["recipes"][training["recipe"]]
    return environment.from_string(TEMPLATE, globals={}).render(
        metrics=metrics,
        training=training,
        split=split,
        dataset=DATASETS.get(metrics["dataset"], metrics["dataset"]),
        classes=list(split["classes"]),
        shape="×".join(map(str, split["image_shape"])),
        size=split["image_shape"][0],
        fit=recorded_fit(split, "split.json"),
        architecture=f"base {recipe['model']['base']}, head {recipe['model']['head']}",
        augmentation=_augmentation(metrics, params),
        recipe_method=recipe.get("method", "steps"),
        averaged=recipe.get("averaging") is not None,
        recipe=json.dumps(recipe, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _augmentation(metrics: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return which views were averaged; metrics of before name none, and are of those that the parameters name."""
    asked = params["evaluate"]["test_time_augmentation"]
    views = metrics.get("test_time_augmentation", asked).replace("_", " ")
    return f"{views}, chosen on validation images" if asked == "auto" else views
