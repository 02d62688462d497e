import numpy as np
import pytest

from fer_pipeline.errors import ConfigError
from fer_pipeline.learning import networks
from fer_pipeline.learning.training import make_repeatable


@pytest.fixture(autouse=True)
def seeded():
    make_repeatable(0)


@pytest.fixture(scope="module")
def large():
    make_repeatable(0)
    return networks.build("system_a", 28, 7, {"hidden": 3136})


def refused(name, options, size=28):
    with pytest.raises(ConfigError) as error:
        networks.build(name, size, 7, options)
    message = str(error.value)
    assert "\n" not in message
    return message


class TestSystemA:
    def test_parameters(self, large):
        # Its listing says 64, its text 3136.
        assert networks.build("system_a", 28, 7, {}).count_params() == 57_527
        assert networks.build("system_a", 28, 7, {"hidden": 64}).count_params() == 57_527
        assert large.count_params() == 2_490_551

    def test_layers(self):
        network = networks.build("system_a", 28, 7, {})
        shapes = [tuple(layer.output.shape[1:]) for layer in network.layers]
        assert shapes == [(28, 28, 16), (14, 14, 16), (14, 14, 16), (7, 7, 16), (784,), (64,), (7,)]
        assert [tuple(v.shape) for v in network.trainable_variables] == [
            *((5, 5, 1, 16), (16,)),
            *((5, 5, 16, 16), (16,)),
            *((784, 64), (64,)),
            *((64, 7), (7,)),
        ]
        assert len(network.variables) == 8  # nothing else, such as a moving mean

    def test_biases_are_zero_in_the_first_layer_and_one_in_the_others(self, large):
        first, *others = (v.numpy() for v in large.trainable_variables[1::2])
        assert (first == 0).all()
        assert len(others) == 3
        assert all((bias == 1).all() for bias in others)

    def test_weights_are_normal_and_truncated_at_two_deviations(self, large):
        for weights in (v.numpy() for v in large.trainable_variables[0::2]):
            assert np.abs(weights).max() <= 0.2
            # A normal distribution that is cut at two deviations keeps 0.8796 of its deviation.
            few = weights.size < 1000
            assert weights.std() == pytest.approx(0.08796, rel=0.1 if few else 0.02)
            assert abs(weights.mean()) < 5 * 0.088 / np.sqrt(weights.size)
            assert len(np.unique(weights)) > 0.9 * min(weights.size, 10_000)

    def test_no_two_layers_draw_the_same(self, large):
        beginnings = [v.numpy().ravel()[:100] for v in large.trainable_variables[0::2]]
        for index, one in enumerate(beginnings):
            for other in beginnings[:index]:
                assert not np.isin(one, other).any()

    def test_values_follow_from_the_seed(self):
        def drawn(seed):
            make_repeatable(seed)
            network = networks.build("system_a", 28, 7, {})
            return np.concatenate([w.ravel() for w in network.get_weights()])

        np.testing.assert_array_equal(drawn(3), drawn(3))
        assert not np.array_equal(drawn(3), drawn(4))

    @pytest.mark.parametrize(("size", "classes"), [(28, 7), (48, 7), (8, 5), (29, 3), (48, 2)])
    def test_logits_for_any_size_and_number_of_classes(self, size, classes):
        network = networks.build("system_a", size, classes, {})
        images = np.random.default_rng(0).uniform(-1, 1, (3, size, size, 1)).astype(np.float32)
        logits = network(images).numpy()
        assert logits.shape == (3, classes)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()
        # Logits and no probabilities: they do not add up to one.
        assert not np.allclose(logits.sum(axis=1), 1)
        assert len(np.unique(logits, axis=0)) == 3

    def test_48x48(self):
        # Two poolings leave 12x12x16.
        network = networks.build("system_a", 48, 7, {})
        assert network.count_params() == 416 + 6_416 + (2_304 + 1) * 64 + 65 * 7
        assert network.output_shape == (None, 7)


class TestRefusals:
    def test_an_unknown_name_near_a_known_one(self):
        assert refused("sytem_a", {}) == (
            "model.name: no network 'sytem_a', did you mean system_a?"
        )

    @pytest.mark.parametrize("name", ["vgg", "", "__init__", "networks.system_a", "..bundle"])
    def test_an_unknown_name(self, name):
        message = refused(name, {})
        assert message.startswith(f"model.name: no network {name!r}, ")
        assert "system_a" in message

    def test_an_unknown_option(self):
        assert refused("system_a", {"hiden": 64}) == (
            "model.options: system_a has no option hiden; it has hidden"
        )

    def test_unknown_options_all_at_once(self):
        message = refused("system_a", {"depth": 3, "hidden": 8, "size": 28, "classes": 7})
        assert message == (
            "model.options: system_a has no option depth, size, classes; it has hidden"
        )

    @pytest.mark.parametrize("value", [0, -1, "many", 1.5, None, [64], {"a": 1}])
    def test_a_bad_value(self, value):
        message = refused("system_a", {"hidden": value})
        assert message.startswith("model.options: system_a cannot be built for 28x28: ")

    def test_names(self):
        assert "system_a" in networks.names()
        assert networks.names() == sorted(networks.names())
