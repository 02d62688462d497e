"""What a recipe is made of, each part against arithmetic in NumPy."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from fer_pipeline.config import load_config
from fer_pipeline.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig
from fer_pipeline.errors import ConfigError
from fer_pipeline.learning.input.batch_loader import PADDING_LABEL
from fer_pipeline.learning.input.targets import one_hot_encode
from fer_pipeline.learning.input.transforms import make_train_transform
from fer_pipeline.learning.training import optimizers, precision
from fer_pipeline.learning.training.losses import ClassificationLoss, compute_class_weights
from fer_pipeline.learning.training.moving_average import MovingAverage
from fer_pipeline.learning.training.running_metrics import (
    RunningMetrics,
    class_accuracies,
    mean_class_accuracy,
)

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0]], np.float32)
LABELS = np.array([0, 2, 2], np.int32)
SOFT = np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [0, 0, 1]], np.float32)


def cross_entropy(distributions, logits):
    likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(distributions * likely).sum(axis=1)


class TestObjective:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    @pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.25]])
    @pytest.mark.parametrize("soft", [False, True])
    def test_is_the_smoothed_and_weighted_cross_entropy(self, smoothing, weights, soft):
        given = SOFT if soft else np.eye(3, dtype=np.float32)[LABELS]
        expected = cross_entropy((1 - smoothing) * given + smoothing / 3, LOGITS)
        expected *= 1 if weights is None else given @ np.array(weights)
        objective = ClassificationLoss(3, smoothing, weights)
        losses = objective(tf.constant(SOFT if soft else LABELS), tf.constant(LOGITS))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.25]])
    def test_what_teachers_say_is_a_part_of_the_target(self, weights):
        answers = np.array([[0.1, 0.2, 0.7], [1, 0, 0], [0.3, 0.3, 0.4]], np.float32)
        given = np.eye(3, dtype=np.float32)[LABELS]
        expected = cross_entropy(0.25 * (0.9 * given + 0.1 / 3) + 0.75 * answers, LOGITS)
        # A weight is that of the label, whatever the teachers say.
        expected *= 1 if weights is None else given @ np.array(weights)
        objective = ClassificationLoss(3, 0.1, weights, distillation_weight=0.75)
        losses = objective(tf.constant(LABELS), tf.constant(LOGITS), tf.constant(answers))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    def test_is_float32_whatever_the_logits_are(self):
        losses = ClassificationLoss(3)(tf.constant(LABELS), tf.cast(LOGITS, tf.bfloat16))
        assert losses.dtype == tf.float32
        np.testing.assert_allclose(losses, cross_entropy(np.eye(3)[LABELS], LOGITS), rtol=1e-2)

    def test_targets(self):
        assert one_hot_encode(tf.constant([2, 0]), 3).numpy().tolist() == [[0, 0, 1], [1, 0, 0]]
        assert one_hot_encode(tf.constant(SOFT), 3).numpy().tolist() == SOFT.tolist()


class TestClassWeights:
    @given(st.lists(st.integers(1, 50), min_size=2, max_size=7))
    def test_balanced_is_scikit_learns(self, counts):
        names = [f"class {number}" for number in range(len(counts))]
        labels = np.repeat(np.arange(len(counts)), counts)
        expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
        found = compute_class_weights("balanced", dict(zip(names, counts, strict=True)))
        np.testing.assert_allclose(found, expected)

    def test_given_ones(self):
        counts = {"angry": 5, "happy": 0, "sad": 2}
        assert compute_class_weights({"sad": 3.0}, counts) == [1.0, 1.0, 3.0]
        assert compute_class_weights(None, counts) is None
        assert compute_class_weights("balanced", counts)[1] == 0.0

    def test_of_no_class_of_the_dataset(self):
        with pytest.raises(ConfigError) as error:
            compute_class_weights({"fear": 2.0}, {"angry": 5, "sad": 2})
        assert str(error.value) == (
            "training.class_weights: fear is no class of the dataset; it has angry, sad"
        )


class TestMeasures:
    @pytest.mark.parametrize("soft", [False, True])
    def test_over_batches(self, soft):
        metrics = RunningMetrics(3)
        labels = SOFT if soft else LABELS
        for part in (slice(0, 2), slice(2, 3)):
            losses = np.arange(3, dtype=np.float32)[part]
            metrics.update(losses, tf.constant(labels[part]), tf.constant(LOGITS[part]))
        # Guesses 0, 0, 1; the soft labels' likeliest are the labels.
        found = metrics.compute_totals()
        assert found.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
        assert (found.image_count, found.means) == (3, {"loss": 1.0, "accuracy": 1 / 3})
        assert class_accuracies(found.confusion) == [1.0, None, 0.0]
        assert mean_class_accuracy(found.confusion) == 0.5
        metrics.reset()
        assert metrics.compute_totals().image_count == 0
        assert all(math.isnan(value) for value in metrics.compute_totals().means.values())

    def test_what_is_no_image_does_not_count(self):
        metrics = RunningMetrics(3)
        labels = tf.constant([0, PADDING_LABEL, 2], tf.int32)
        metrics.update(tf.constant([1.0, math.nan, 3.0]), labels, tf.constant(LOGITS))
        found = metrics.compute_totals()
        assert (found.loss_sum, found.image_count) == (4.0, 2)


class TestMovingAverage:
    def test_follows_its_formula_and_gives_the_weights_back(self):
        layer = keras.layers.BatchNormalization()
        layer.build((None, 2))
        average = MovingAverage(layer.weights, 0.5)
        expected = [np.array(variable) for variable in layer.weights]
        for step in range(1, 8):
            for number, variable in enumerate(layer.weights):
                variable.assign(np.full(2, 10.0 * step + number))
            average.update(tf.constant(step))
            decay = min(0.5, (1 + step) / (10 + step))
            expected = [
                decay * old + (1 - decay) * np.array(variable)
                for old, variable in zip(expected, layer.weights, strict=True)
            ]
        assert len(expected) == 4  # its statistics too
        raw = [np.array(variable) for variable in layer.weights]
        with average.use_averages():
            np.testing.assert_allclose(layer.get_weights(), expected, rtol=1e-6)
        assert np.array_equal(layer.get_weights(), raw)
        np.testing.assert_allclose([np.array(s) for s in average.averages], expected, rtol=1e-6)

    def test_gives_them_back_after_an_error(self):
        variable = keras.Variable([1.0])
        average = MovingAverage([variable], 0.9)
        variable.assign([2.0])
        with pytest.raises(KeyError), average.use_averages():
            raise KeyError
        assert np.array(variable).tolist() == [2.0]

    def test_of_none_is_nothing(self):
        variable = keras.Variable([1.0])
        average = MovingAverage([variable], 0.0)
        average.update(tf.constant(1))
        with average.use_averages():
            assert np.array(variable).tolist() == [1.0]
        assert average.averages == []


def apply_first_step(gradient, **chosen):
    """What a first step makes of a kernel of ones and a bias of ones."""
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    network = keras.Sequential([keras.Input((2,)), layer])
    for variable in layer.weights:
        variable.assign(np.ones(variable.shape))
    chosen = OptimizerConfig(**chosen)
    optimizer = optimizers.make_optimizer(chosen, ScheduleConfig(), 10, 10)
    optimizers.prepare_optimizer(optimizer, network)
    gradients = [tf.fill(variable.shape, gradient) for variable in layer.weights]
    optimizer.apply(gradients, layer.weights)
    return [np.array(variable) for variable in layer.weights]


class TestOptimizer:
    @pytest.mark.parametrize(
        ("name", "length"),
        [
            ("sgd", 0.1 * 2),
            # Adam's first step is the rate itself, whatever the gradient (Kingma and Ba 2015).
            ("adam", 0.1),
            # RMSprop's is the rate over the root of 1 - rho.
            ("rmsprop", 0.1 / math.sqrt(0.1)),
        ],
    )
    def test_a_first_step(self, name, length):
        kernel, bias = apply_first_step(2.0, name=name, learning_rate=0.1)
        np.testing.assert_allclose(kernel, 1 - length, atol=1e-5)
        np.testing.assert_allclose(bias, 1 - length, atol=1e-5)

    def test_nesterov(self):
        kernel, _ = apply_first_step(
            2.0, name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True
        )
        np.testing.assert_allclose(kernel, 1 - 0.1 * (2 + 0.9 * 2), atol=1e-6)

    @pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
    def test_weight_decay_is_decoupled_and_leaves_biases(self, name):
        kernel, bias = apply_first_step(0.0, name=name, learning_rate=0.1, weight_decay=0.5)
        np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5, atol=1e-6)
        np.testing.assert_allclose(bias, 1, atol=1e-6)

    def test_a_gradient_is_clipped_by_the_norm_of_all(self):
        kernel, bias = apply_first_step(2.0, name="sgd", learning_rate=1.0, global_clipnorm=0.5)
        # Six numbers, each 2: their norm is 2 * sqrt(6).
        np.testing.assert_allclose(kernel, 1 - 0.5 / math.sqrt(6), rtol=1e-5)
        np.testing.assert_allclose(bias, 1 - 0.5 / math.sqrt(6), rtol=1e-5)
        kernel, _ = apply_first_step(0.01, name="sgd", learning_rate=1.0, global_clipnorm=0.5)
        np.testing.assert_allclose(kernel, 0.99, rtol=1e-6)

    @pytest.mark.parametrize(
        ("chosen", "problem"),
        [
            ({"nesterov": True}, "nesterov needs name: sgd and a momentum above 0"),
            (
                {"name": "adam", "momentum": 0.9},
                "momentum is not an argument of adam; leave it out",
            ),
            ({"name": "adamw"}, "adamw without a weight_decay is adam; set one, or use adam"),
        ],
    )
    def test_what_would_be_ignored_is_refused(self, chosen, problem):
        overrides = [f"training.optimizer.{key}={value}" for key, value in chosen.items()]
        with pytest.raises(ConfigError, match=r"training\.optimizer") as error:
            load_config(None, overrides)
        assert problem in str(error.value)


class TestSchedule:
    def learning_rates(self, schedule, steps=100, steps_per_epoch=10):
        optimizer = optimizers.make_optimizer(
            OptimizerConfig(learning_rate=0.5), schedule, steps, steps_per_epoch
        )
        variable = keras.Variable([0.0])
        optimizer.build([variable])
        found = []
        for _ in range(steps):
            found.append(float(optimizer.learning_rate))
            optimizer.apply([tf.zeros(1)], [variable])
        return np.array(found)

    def test_constant(self):
        assert set(self.learning_rates(ScheduleConfig())) == {0.5}

    def test_cosine_with_warm_up(self):
        rates = self.learning_rates(
            ScheduleConfig(kind="cosine", warmup_epochs=2, min_learning_rate=0.01)
        )
        np.testing.assert_allclose(rates[:20], 0.5 * np.arange(20) / 20, rtol=1e-5)
        passed = np.arange(80) / 80
        expected = 0.01 + (0.5 - 0.01) * (1 + np.cos(math.pi * passed)) / 2
        np.testing.assert_allclose(rates[20:], expected, rtol=1e-4)

    def test_cosine(self):
        rates = self.learning_rates(ScheduleConfig(kind="cosine"))
        np.testing.assert_allclose(
            rates, 0.25 * (1 + np.cos(math.pi * np.arange(100) / 100)), atol=1e-6
        )

    def test_constant_after_warm_up(self):
        rates = self.learning_rates(ScheduleConfig(warmup_epochs=1.5))
        np.testing.assert_allclose(rates[:15], 0.5 * np.arange(15) / 15, rtol=1e-5)
        np.testing.assert_allclose(rates[15:], 0.5, rtol=1e-6)

    def test_a_warm_up_that_plateau_does_not_have_is_refused(self):
        with pytest.raises(ConfigError, match="plateau has no warm-up"):
            load_config(
                None, ["training.schedule.kind=plateau", "training.schedule.warmup_epochs=1"]
            )

    def test_plateau_and_early_stopping_are_keras_callbacks(self):
        chosen = TrainingConfig(
            schedule=ScheduleConfig(kind="plateau", factor=0.2, patience=3, min_learning_rate=1e-5),
            early_stopping={"monitor": "val_accuracy", "patience": 7, "min_delta": 0.01},
        )
        plateau, stopping = optimizers.make_monitor_callbacks(chosen)
        assert (plateau.monitor, plateau.mode, plateau.factor) == ("val_loss", "min", 0.2)
        assert (plateau.patience, plateau.min_lr) == (3, 1e-5)
        assert (stopping.monitor, stopping.mode, stopping.patience) == ("val_accuracy", "max", 7)
        assert optimizers.make_monitor_callbacks(TrainingConfig()) == []

    @pytest.mark.parametrize(
        ("overrides", "key"),
        [
            (["training.schedule.kind=plateau"], "training.schedule.monitor: val_loss"),
            (
                ["training.early_stopping.monitor=val_accuracy"],
                "training.early_stopping.monitor: val_accuracy",
            ),
            (["training.restarts=2"], "training.restarts: selecting the best of several"),
        ],
    )
    def test_what_watches_validation_needs_it(self, overrides, key):
        with pytest.raises(ConfigError) as error:
            optimizers.reject_settings_needing_validation(load_config(None, overrides).training)
        assert str(error.value) == (
            f"{key} needs a validation split, and the dataset has none; make one with"
            " split.validation"
        )
        optimizers.reject_settings_needing_validation(
            load_config(None, ["training.early_stopping.monitor=loss"]).training
        )


class TestTransform:
    def test_of_nothing_is_none(self):
        assert make_train_transform(TrainingConfig(), 16, 3) is None

    def test_augments_and_then_mixes(self):
        images = tf.random.stateless_uniform((6, 16, 16, 1), [1, 2], 0, 255)
        chosen = TrainingConfig(augmentation={"brightness": 0.5}, mixup_alpha=1.0)
        seed = tf.constant([3, 4], tf.int64)
        changed, mixed = make_train_transform(chosen, 16, 3)(
            images, tf.constant([0, 1, 2, 0, 1, 2]), seed
        )
        alone, labels = make_train_transform(
            TrainingConfig(augmentation={"brightness": 0.5}), 16, 3
        )(images, tf.constant([0, 1, 2, 0, 1, 2]), seed)
        assert labels.numpy().tolist() == [0, 1, 2, 0, 1, 2]
        assert not np.array_equal(alone, images)
        assert not np.array_equal(changed, alone)
        assert mixed.shape == (6, 3)
        np.testing.assert_allclose(mixed.numpy().sum(axis=1), 1, rtol=1e-5)


class TestPrecision:
    def test_auto_is_what_the_processor_has(self):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        flags = [line for line in lines if line.startswith("flags")]
        has = "avx512_bf16" in flags[0] or "amx_bf16" in flags[0]
        if tf.config.list_physical_devices("GPU"):
            pytest.skip("the GPU decides")
        assert precision.resolve_precision("auto") == ("mixed_bfloat16" if has else "float32")
        assert precision.resolve_precision("float32") == "float32"
        assert precision.resolve_precision("mixed_bfloat16") == "mixed_bfloat16"

    def test_a_policy_holds_for_what_is_built_within(self):
        with precision.use_precision("mixed_bfloat16"):
            within = keras.layers.Dense(1)
        assert within.compute_dtype == "bfloat16"
        assert within.variable_dtype == "float32"
        assert keras.layers.Dense(1).compute_dtype == "float32"
