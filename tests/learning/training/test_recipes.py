"""The parts of a training recipe, compared with calculations in NumPy."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
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
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.moving_average import MovingAverage
from fer_pipeline.learning.training.running_metrics import (
    RunningMetrics,
    class_accuracies,
    mean_class_accuracy,
)
from fer_pipeline.learning.training.settings_checks import (
    compute_class_weights,
    reject_settings_needing_validation,
)

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0]], np.float32)
LABELS = np.array([0, 2, 2], np.int32)
SOFT = np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [0, 0, 1]], np.float32)


def compute_cross_entropy(
    distributions: npt.NDArray[np.floating], logits: npt.NDArray[np.float32]
) -> npt.NDArray[np.floating]:
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -(distributions * log_probabilities).sum(axis=1)


class TestClassificationLoss:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    @pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.25]])
    @pytest.mark.parametrize("soft", [False, True])
    def test_it_is_the_smoothed_and_weighted_cross_entropy(self, smoothing, weights, soft):
        targets = SOFT if soft else np.eye(3, dtype=np.float32)[LABELS]
        expected = compute_cross_entropy((1 - smoothing) * targets + smoothing / 3, LOGITS)
        expected *= 1 if weights is None else targets @ np.array(weights)
        loss = ClassificationLoss(3, smoothing, weights)
        losses = loss(tf.constant(SOFT if soft else LABELS), tf.constant(LOGITS))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.25]])
    def test_the_answers_of_teachers_are_a_part_of_the_target(self, weights):
        answers = np.array([[0.1, 0.2, 0.7], [1, 0, 0], [0.3, 0.3, 0.4]], np.float32)
        targets = np.eye(3, dtype=np.float32)[LABELS]
        expected = compute_cross_entropy(0.25 * (0.9 * targets + 0.1 / 3) + 0.75 * answers, LOGITS)
        # The weight depends on the label only, not on the teachers.
        expected *= 1 if weights is None else targets @ np.array(weights)
        loss = ClassificationLoss(3, 0.1, weights, distillation_weight=0.75)
        losses = loss(tf.constant(LABELS), tf.constant(LOGITS), tf.constant(answers))
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    def test_it_is_float32_for_bfloat16_logits(self):
        losses = ClassificationLoss(3)(tf.constant(LABELS), tf.cast(LOGITS, tf.bfloat16))
        assert losses.dtype == tf.float32
        np.testing.assert_allclose(
            losses, compute_cross_entropy(np.eye(3)[LABELS], LOGITS), rtol=1e-2
        )

    def test_labels_are_one_hot_encoded_and_distributions_are_unchanged(self):
        assert one_hot_encode(tf.constant([2, 0]), 3).numpy().tolist() == [[0, 0, 1], [1, 0, 0]]
        assert one_hot_encode(tf.constant(SOFT), 3).numpy().tolist() == SOFT.tolist()


class TestClassWeights:
    @given(st.lists(st.integers(1, 50), min_size=2, max_size=7))
    def test_balanced_weights_equal_those_of_scikit_learn(self, counts):
        names = [f"class {number}" for number in range(len(counts))]
        labels = np.repeat(np.arange(len(counts)), counts)
        expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
        weights = compute_class_weights("balanced", dict(zip(names, counts, strict=True)))
        assert weights is not None
        np.testing.assert_allclose(weights, expected)

    def test_missing_weights_are_1_and_those_of_empty_classes_0(self):
        counts = {"angry": 5, "happy": 0, "sad": 2}
        assert compute_class_weights({"sad": 3.0}, counts) == [1.0, 1.0, 3.0]
        assert compute_class_weights(None, counts) is None
        balanced = compute_class_weights("balanced", counts)
        assert balanced is not None
        assert balanced[1] == 0.0

    def test_a_weight_of_an_unknown_class_is_refused(self):
        with pytest.raises(ConfigError) as error:
            compute_class_weights({"fear": 2.0}, {"angry": 5, "sad": 2})
        message = str(error.value)
        assert message.startswith("training.class_weights: fear is no class of the dataset")
        assert message.endswith(" angry, sad")


class TestRunningMetrics:
    @pytest.mark.parametrize("soft", [False, True])
    def test_totals_over_batches(self, soft):
        metrics = RunningMetrics(3)
        labels = SOFT if soft else LABELS
        for part in (slice(0, 2), slice(2, 3)):
            losses = np.arange(3, dtype=np.float32)[part]
            metrics.update(losses, tf.constant(labels[part]), tf.constant(LOGITS[part]))
        # The predictions are 0, 0, 1; the most probable classes of the soft labels are the labels.
        totals = metrics.compute_totals()
        assert totals.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
        assert (totals.image_count, totals.means) == (3, {"loss": 1.0, "accuracy": 1 / 3})
        assert class_accuracies(totals.confusion) == [1.0, None, 0.0]
        assert mean_class_accuracy(totals.confusion) == 0.5
        metrics.reset()
        assert metrics.compute_totals().image_count == 0
        assert all(math.isnan(mean) for mean in metrics.compute_totals().means.values())

    def test_padding_images_are_not_counted(self):
        metrics = RunningMetrics(3)
        labels = tf.constant([0, PADDING_LABEL, 2], tf.int32)
        metrics.update(tf.constant([1.0, math.nan, 3.0]), labels, tf.constant(LOGITS))
        totals = metrics.compute_totals()
        assert (totals.loss_sum, totals.image_count) == (4.0, 2)


class TestMovingAverage:
    def test_averages_follow_the_formula_and_the_weights_are_restored(self):
        layer = keras.layers.BatchNormalization()
        layer.build((None, 2))
        average = MovingAverage(layer.weights, 0.5)
        expected = [np.asarray(variable) for variable in layer.weights]
        for step in range(1, 8):
            for number, variable in enumerate(layer.weights):
                variable.assign(np.full(2, 10.0 * step + number))
            average.update(tf.constant(step))
            decay = min(0.5, (1 + step) / (10 + step))
            expected = [
                decay * old + (1 - decay) * np.asarray(variable)
                for old, variable in zip(expected, layer.weights, strict=True)
            ]
        assert len(expected) == 4  # the moving statistics, too
        raw = [np.asarray(variable) for variable in layer.weights]
        with average.use_averages():
            np.testing.assert_allclose(layer.get_weights(), expected, rtol=1e-6)
        assert np.array_equal(layer.get_weights(), raw)
        np.testing.assert_allclose([np.asarray(s) for s in average.averages], expected, rtol=1e-6)

    def test_the_weights_are_restored_after_an_error(self):
        variable = keras.Variable([1.0])
        average = MovingAverage([variable], 0.9)
        variable.assign([2.0])
        with pytest.raises(KeyError), average.use_averages():
            raise KeyError
        assert np.asarray(variable).tolist() == [2.0]

    def test_without_decay_there_are_no_averages(self):
        variable = keras.Variable([1.0])
        average = MovingAverage([variable], 0.0)
        average.update(tf.constant(1))
        with average.use_averages():
            assert np.asarray(variable).tolist() == [1.0]
        assert average.averages == []


def apply_first_step(gradient: float, **settings: Any) -> list[npt.NDArray[np.float32]]:
    """Return a kernel of ones and a bias of ones after the first step of an optimizer.

    Args:
        gradient: Gradient of all weights.
        settings: Settings of the optimizer.
    """
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    network = keras.Sequential([keras.Input((2,)), layer])
    for variable in layer.weights:
        variable.assign(np.ones(variable.shape))
    optimizer = optimizers.make_optimizer(OptimizerConfig(**settings), ScheduleConfig(), 10, 10)
    optimizers.prepare_optimizer(optimizer, network)
    gradients = [tf.fill(variable.shape, gradient) for variable in layer.weights]
    optimizer.apply(gradients, layer.weights)
    return [np.asarray(variable) for variable in layer.weights]


class TestOptimizer:
    @pytest.mark.parametrize(
        ("name", "length"),
        [
            ("sgd", 0.1 * 2),
            # Adam's first step is the rate itself, whatever the gradient (Kingma and Ba 2015).
            ("adam", 0.1),
            # RMSprop's first step is the rate over the root of 1 - rho.
            ("rmsprop", 0.1 / math.sqrt(0.1)),
        ],
    )
    def test_length_of_the_first_step(self, name, length):
        kernel, bias = apply_first_step(2.0, name=name, learning_rate=0.1)
        np.testing.assert_allclose(kernel, 1 - length, atol=1e-5)
        np.testing.assert_allclose(bias, 1 - length, atol=1e-5)

    def test_first_step_with_nesterov_momentum(self):
        kernel, _ = apply_first_step(
            2.0, name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True
        )
        np.testing.assert_allclose(kernel, 1 - 0.1 * (2 + 0.9 * 2), atol=1e-6)

    @pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
    def test_weight_decay_is_decoupled_and_does_not_change_biases(self, name):
        kernel, bias = apply_first_step(0.0, name=name, learning_rate=0.1, weight_decay=0.5)
        np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5, atol=1e-6)
        np.testing.assert_allclose(bias, 1, atol=1e-6)

    def test_gradients_are_clipped_by_their_global_norm(self):
        kernel, bias = apply_first_step(2.0, name="sgd", learning_rate=1.0, global_clipnorm=0.5)
        # The norm of six numbers, each 2, is 2 * sqrt(6).
        np.testing.assert_allclose(kernel, 1 - 0.5 / math.sqrt(6), rtol=1e-5)
        np.testing.assert_allclose(bias, 1 - 0.5 / math.sqrt(6), rtol=1e-5)
        kernel, _ = apply_first_step(0.01, name="sgd", learning_rate=1.0, global_clipnorm=0.5)
        np.testing.assert_allclose(kernel, 0.99, rtol=1e-6)

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"nesterov": True}, "nesterov needs name: sgd and a momentum above 0"),
            (
                {"name": "adam", "momentum": 0.9},
                "momentum is not an argument of adam; leave it out",
            ),
            ({"name": "adamw"}, "adamw without a weight_decay is adam; set one, or use adam"),
        ],
    )
    def test_settings_that_would_be_ignored_are_refused(self, settings, problem):
        overrides = [f"training.optimizer.{key}={setting}" for key, setting in settings.items()]
        with pytest.raises(ConfigError, match=r"training\.optimizer") as error:
            load_config(None, overrides)
        assert problem in str(error.value)


def record_learning_rates(
    schedule: ScheduleConfig, steps: int = 100, steps_per_epoch: int = 10
) -> npt.NDArray[np.float64]:
    """Return the learning rate of each step of a schedule that begins at 0.5."""
    optimizer = optimizers.make_optimizer(
        OptimizerConfig(learning_rate=0.5), schedule, steps, steps_per_epoch
    )
    variable = keras.Variable([0.0])
    optimizer.build([variable])
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([tf.zeros(1)], [variable])
    return np.array(rates)


class TestSchedule:
    def test_constant_rate(self):
        assert set(record_learning_rates(ScheduleConfig())) == {0.5}

    def test_cosine_decay_after_a_warm_up(self):
        rates = record_learning_rates(
            ScheduleConfig(kind="cosine", warmup_epochs=2, min_learning_rate=0.01)
        )
        np.testing.assert_allclose(rates[:20], 0.5 * np.arange(20) / 20, rtol=1e-5)
        progress = np.arange(80) / 80
        expected = 0.01 + (0.5 - 0.01) * (1 + np.cos(math.pi * progress)) / 2
        np.testing.assert_allclose(rates[20:], expected, rtol=1e-4)

    def test_cosine_decay(self):
        rates = record_learning_rates(ScheduleConfig(kind="cosine"))
        np.testing.assert_allclose(
            rates, 0.25 * (1 + np.cos(math.pi * np.arange(100) / 100)), atol=1e-6
        )

    def test_constant_rate_after_a_warm_up(self):
        rates = record_learning_rates(ScheduleConfig(warmup_epochs=1.5))
        np.testing.assert_allclose(rates[:15], 0.5 * np.arange(15) / 15, rtol=1e-5)
        np.testing.assert_allclose(rates[15:], 0.5, rtol=1e-6)

    def test_a_warm_up_of_the_plateau_schedule_is_refused(self):
        with pytest.raises(ConfigError, match="plateau has no warm-up"):
            load_config(
                None, ["training.schedule.kind=plateau", "training.schedule.warmup_epochs=1"]
            )

    def test_plateau_and_early_stopping_are_callbacks_of_keras(self):
        training_config = TrainingConfig(
            schedule=ScheduleConfig(kind="plateau", factor=0.2, patience=3, min_learning_rate=1e-5),
            early_stopping={"monitor": "val_accuracy", "patience": 7, "min_delta": 0.01},
        )
        plateau, stopping = optimizers.make_monitor_callbacks(training_config)
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
    def test_settings_that_monitor_validation_need_a_validation_split(self, overrides, key):
        with pytest.raises(ConfigError) as error:
            reject_settings_needing_validation(load_config(None, overrides).training)
        assert str(error.value).startswith(f"{key} needs a validation split")
        assert str(error.value).endswith(" split.validation")
        reject_settings_needing_validation(
            load_config(None, ["training.early_stopping.monitor=loss"]).training
        )


def transform_batch(
    training_config: TrainingConfig, images: tf.Tensor, labels: Sequence[int], seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the images and the targets of a batch of three classes after the transform."""
    transform = make_train_transform(training_config, 16, 3)
    assert transform is not None
    return transform(images, tf.constant(labels), seed)


class TestTrainTransform:
    def test_without_augmentation_and_mixup_there_is_none(self):
        assert make_train_transform(TrainingConfig(), 16, 3) is None

    def test_mixup_follows_augmentation(self):
        images = tf.random.stateless_uniform((6, 16, 16, 1), [1, 2], 0, 255)
        augmenting = TrainingConfig(augmentation={"brightness": 0.5})
        mixing = TrainingConfig(augmentation={"brightness": 0.5}, mixup_alpha=1.0)
        seed = tf.constant([3, 4], tf.int64)
        mixed, targets = transform_batch(mixing, images, [0, 1, 2, 0, 1, 2], seed)
        augmented, labels = transform_batch(augmenting, images, [0, 1, 2, 0, 1, 2], seed)
        assert labels.numpy().tolist() == [0, 1, 2, 0, 1, 2]
        assert not np.array_equal(augmented, images)
        assert not np.array_equal(mixed, augmented)
        assert targets.shape == (6, 3)
        np.testing.assert_allclose(targets.numpy().sum(axis=1), 1, rtol=1e-5)


def simulate_hardware(
    patch: pytest.MonkeyPatch, cpu_info: Path, capabilities: Sequence[tuple[int, int]] = ()
) -> None:
    """Replace the hardware that the precision depends on.

    Args:
        patch: Reverts the changes after the test.
        cpu_info: File to read instead of /proc/cpuinfo.
        capabilities: CUDA compute capability of each GPU.
    """
    patch.setattr(precision, "Path", {"/proc/cpuinfo": cpu_info}.__getitem__)
    patch.setattr(tf.config, "list_physical_devices", {"GPU": capabilities}.__getitem__)
    patch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda capability: {"compute_capability": capability},
    )


class TestPrecision:
    @pytest.mark.parametrize(
        ("flags", "expected"),
        [
            # Intel Sapphire Rapids.
            ("fpu avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8", "mixed_bfloat16"),
            # AMD Zen 4.
            ("fpu avx512f avx512_bf16 vnmi", "mixed_bfloat16"),
            ("fpu amx_tile amx_bf16 amx_int8", "mixed_bfloat16"),
            # Intel Ice Lake.
            ("fpu avx2 avx512f avx512_vnni", "float32"),
            ("fpu not_avx512_bf16", "float32"),
            ("", "float32"),
        ],
    )
    def test_auto_depends_on_the_instructions_of_the_processor(
        self, tmp_path, monkeypatch, flags, expected
    ):
        cpu_info = tmp_path / "cpuinfo"
        cpu_info.write_text(f"processor\t: 0\nbugs\t\t: amx_bf16\nflags\t\t: {flags}\n\n")
        simulate_hardware(monkeypatch, cpu_info)
        assert precision.resolve_precision("auto") == expected
        assert precision.resolve_precision("float32") == "float32"
        assert precision.resolve_precision("mixed_bfloat16") == "mixed_bfloat16"

    @pytest.mark.parametrize("cpu_info", [None, "processor\t: 0\nFeatures\t: fp asimd bf16\n"])
    def test_auto_is_float32_on_processors_without_x86_flags(self, tmp_path, monkeypatch, cpu_info):
        if cpu_info is not None:
            (tmp_path / "cpuinfo").write_text(cpu_info)
        simulate_hardware(monkeypatch, tmp_path / "cpuinfo")
        assert precision.resolve_precision("auto") == "float32"

    @pytest.mark.parametrize(
        ("capabilities", "expected"),
        [
            ([(8, 0)], "mixed_bfloat16"),
            ([(9, 0), (8, 6)], "mixed_bfloat16"),
            ([(7, 5)], "float32"),
            ([(8, 0), (7, 5)], "float32"),
        ],
    )
    def test_auto_depends_on_all_gpus_if_there_are_any(
        self, tmp_path, monkeypatch, capabilities, expected
    ):
        cpu_info = tmp_path / "cpuinfo"
        # The processor would decide otherwise.
        flags = "amx_bf16" if expected == "float32" else "avx2"
        cpu_info.write_text(f"flags\t\t: {flags}\n")
        simulate_hardware(monkeypatch, cpu_info, capabilities)
        assert precision.resolve_precision("auto") == expected

    def test_the_policy_applies_to_layers_created_in_the_block(self):
        with precision.use_precision("mixed_bfloat16"):
            within = keras.layers.Dense(1)
        assert within.compute_dtype == "bfloat16"
        assert within.variable_dtype == "float32"
        assert keras.layers.Dense(1).compute_dtype == "float32"
