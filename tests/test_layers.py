"""The prepared layer: the same results as the functions, whatever it has packed."""

import pickle
import threading

import ml_dtypes
import numpy as np
import pytest

import xsmmconv

DTYPES = [np.float32, np.float64, ml_dtypes.bfloat16]
LINES = [
    "n2c15k15s51d8psamew500",
    "n2c64k70s3p1w100",
    "n2c64k64s3p1w100",
    "n2c6k6s2w9",
    "n1c6k4s5st2g2pl3w77",
    "n2c8k8s3g8p1w40",
    "n1c1k1s1w1",
]


def arrays(line, dtype):
    from xsmmconv._text import parse

    p = parse(line)
    rng = np.random.default_rng(len(line))
    made = [
        rng.standard_normal(shape).astype(dtype)
        for shape in (p.x_shape, p.weight_shape, p.y_shape, (p.K,))
    ]
    return p, *made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("line", LINES)
def test_equals_the_functions_bitwise(line, dtype):
    p, x, weight, grad, bias = arrays(line, dtype)
    layer = xsmmconv.Conv1d(weight, bias, activation="relu", **p.parameters)
    for _ in range(2):  # packing, then packed
        expected = xsmmconv.conv1d(x, weight, bias, activation="relu", **p.parameters)
        np.testing.assert_array_equal(layer(x), expected)
        expected = xsmmconv.conv1d_backward_data(grad, weight, p.W, **p.parameters)
        np.testing.assert_array_equal(layer.backward_data(grad, p.W), expected)


def test_the_weights_are_the_layers_own():
    _, x, weight, _, bias = arrays(LINES[1], np.float32)
    layer = xsmmconv.Conv1d(weight, bias, padding=1)
    before = layer(x)
    weight[:], bias[:] = np.nan, np.nan
    np.testing.assert_array_equal(layer(x), before)
    with pytest.raises(ValueError, match="read-only"):
        layer.weight[0] = 0


def test_one_layer_for_many_widths_and_batches():
    _, _, weight, _, _ = arrays(LINES[0], np.float32)
    layer = xsmmconv.Conv1d(weight, dilation=2, padding="causal")
    rng = np.random.default_rng(0)
    for shape in [(15, 1), (3, 15, 7), (15, 700), (1, 15, 64), (0, 15, 9)]:
        x = rng.standard_normal(shape).astype(np.float32)
        expected = xsmmconv.conv1d(x, weight, dilation=2, padding="causal")
        np.testing.assert_array_equal(layer(x), expected)


def test_out_and_threads():
    _, x, weight, _, _ = arrays(LINES[1], np.float32)
    layer = xsmmconv.Conv1d(weight, padding=1)
    out = np.full((2, 70, 100), np.nan, np.float32)
    assert layer(x, out=out, threads=2) is out
    np.testing.assert_array_equal(out, layer(x, threads=1))


def test_pickled():
    _, x, weight, grad, bias = arrays(LINES[1], ml_dtypes.bfloat16)
    layer = xsmmconv.Conv1d(weight, bias, padding=1, activation="relu")
    layer(x)
    copy = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(copy(x), layer(x))
    np.testing.assert_array_equal(copy.backward_data(grad, 100), layer.backward_data(grad, 100))
    assert repr(copy) == repr(layer)
    assert not copy.weight.flags.writeable


def test_shared_by_threads():
    _, _, weight, _, _ = arrays(LINES[0], np.float32)
    layer = xsmmconv.Conv1d(weight, dilation=3)
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal((15, 200 + i)).astype(np.float32) for i in range(8)]
    expected = [xsmmconv.conv1d(x, weight, dilation=3) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(layer(inputs[i], threads=1 + i % 2), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_backward_data_does_not_see_the_activation():
    _, _, weight, grad, _ = arrays(LINES[1], np.float32)
    layer = xsmmconv.Conv1d(weight, padding=1, activation="relu")
    expected = xsmmconv.conv1d_backward_data(grad, weight, 100, padding=1)
    np.testing.assert_array_equal(layer.backward_data(grad, 100), expected)
