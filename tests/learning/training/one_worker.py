"""Train one of several workers, a process, on its parts of the batches in a file.

    python one_worker.py NUMBER ADDRESSES OUTPUT BATCHES

ADDRESSES is a JSON list. If it has one address, the only worker takes all of each batch.
"""

import json
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.networks.mirrored_layers import (
    MirroredBatchNormalization,
    MirroredConv2D,
)
from fer_pipeline.learning.training import distributed, optimizers
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer, enable_determinism

# Part of each batch that the first of two workers takes; the second one takes more.
FIRST_PART = 1 / 3


def build_smooth_network(size: int) -> keras.Model:
    """Return a network without ReLU and max-pooling, which would amplify rounding errors."""
    maps = pixels = keras.Input((size, size, 1))
    for filters in (6, 8):
        maps = MirroredConv2D(filters, lifting=maps is pixels)(maps)
        maps = MirroredBatchNormalization()(maps)
        maps = keras.layers.Activation("swish")(maps)
        maps = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False)(maps)
        maps = keras.layers.BatchNormalization()(maps)
        maps = keras.layers.Activation("swish")(maps)
    means = keras.layers.GlobalAveragePooling2D()(maps)
    return keras.Model(pixels, keras.layers.Dense(3)(means))


def main(number: int, addresses: list[str], output: str, path: str) -> None:
    batches = np.load(path)
    images, labels = batches["images"], batches["labels"]
    if len(addresses) > 1:
        distributed.connect_to_workers(addresses, number, 1)
        cut = round(images.shape[1] * FIRST_PART)
        part = slice(None, cut) if number == 0 else slice(cut, None)
        images, labels = images[:, part], labels[:, part]
    enable_determinism(0)
    with tf.distribute.get_strategy().scope():
        network = build_smooth_network(images.shape[2])
    config = OptimizerConfig(
        learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.005, global_clipnorm=0.5
    )
    trainer = Trainer(
        network,
        serving_model.build_serving_model(network, images.shape[2], Normalization.centered()),
        optimizers.make_optimizer(config, ScheduleConfig(), len(images), len(images)),
        ClassificationLoss(3, label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5]),
        ema_decay=0.9,
    )
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    iterator = iter(dataset)
    losses = []
    for _ in range(len(images)):
        trainer.train_on_batches(iterator, tf.constant(1))
        losses.append(trainer.pop_metric_totals().means["loss"])
    state = trainer.get_state()
    arrays: dict[str, Any] = {
        f"{name}/{i:03d}": array
        for name in ("network", "average")
        for i, array in enumerate(state[name])
    }
    np.savez(output, losses=np.array(losses), **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], sys.argv[4])
