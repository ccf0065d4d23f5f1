"""The denoising example: data, network, metrics, training, inference, at sizes of seconds."""

import json
import os
import signal
import sys
import types

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("example")

TINY = [
    *("--generate", "40000", "--width", "1200", "--margin", "200", "--channels", "3"),
    *("--taps", "7", "--dilation", "3", "--signal-blocks", "2", "--peak-blocks", "1"),
    *("--epochs", "3", "--threads", "1"),
]


def train(output, *options):
    """Run train.py in this process."""
    import train

    before, sys.argv = sys.argv, ["train.py", "--output", str(output), *TINY, *options]
    threads = torch.get_num_threads()
    try:
        train.main()
    finally:
        sys.argv = before
        torch.set_num_threads(threads)


def checkpoint(output, name="last.pt"):
    return torch.load(output / name, weights_only=True)


def assert_same_state(a, b):
    for key in ("network", "optimizer", "progress", "losses", "validation"):
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


# --- tracks ----------------------------------------------------------------------------------------  # noqa: E501


def test_thinning_keeps_whole_reads():
    import tracks

    #                  0  1  2  3  4  5  6  7
    counts = np.array([0, 1, 1, 2, 1, 1, 0, 3])  # reads 1-3, 3-5, and three at the end
    possible = {
        tuple(a * np.array([0, 1, 1, 1, 0, 0, 0, 0])
              + b * np.array([0, 0, 0, 1, 1, 1, 0, 0])
              + c * np.array([0, 0, 0, 0, 0, 0, 0, 1]))
        for a in (0, 1) for b in (0, 1) for c in (0, 1, 2, 3)
    }  # fmt: skip
    seen = {tuple(tracks.thin(counts, 0.5, seed).tolist()) for seed in range(300)}
    assert seen == possible
    assert np.array_equal(tracks.thin(counts, 1, 0), counts)
    assert not tracks.thin(counts, 0, 0).any()


def test_thinning_is_binomial():
    import tracks

    counts = np.tile([0, 1], 20_000)
    kept = tracks.thin(counts, 0.2, 1).sum()
    assert abs(kept - 4000) < 4 * np.sqrt(20_000 * 0.2 * 0.8)


def test_peaks():
    import tracks

    counts = np.zeros(30_000, int)
    counts[100:200] = 5  # with the next one, after a gap of 99
    counts[299:400] = 2
    counts[500:649] = 9  # 149 wide, after a gap of 100
    counts[1000:1150] = 2
    counts[2000:2500] = 1  # not deep enough
    expected = np.zeros(30_000, bool)
    expected[100:400] = expected[1000:1150] = True
    assert np.array_equal(tracks.call_peaks(counts), expected)
    # Three times the mean is more than two reads here.
    assert not tracks.call_peaks(counts + 3).any()


@pytest.fixture
def bigwig(monkeypatch, tmp_path):
    """Makes a file that is a bigWig file to a stand-in for pyBigWig."""
    path = tmp_path / "track.bw"
    path.touch()

    def make(length, intervals):
        class Track:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def chroms(self, name=None):
                return {"chr1": length} if name is None else {"chr1": length}.get(name)

            def intervals(self, name):
                return intervals

        monkeypatch.setitem(sys.modules, "pyBigWig", types.SimpleNamespace(open=lambda p: Track()))
        return path

    return make


def test_reads_of_a_scaled_track(bigwig):
    import tracks

    unit = 4.91
    intervals = (
        (2, 4, unit), (4, 6, 0.0), (7, 9, unit), (12, 13, unit), (13, 15, 3 * unit),
        (15, 16, 2.2 * unit), (17, 19, 0.3 * unit),
    )  # fmt: skip
    counts = tracks.read_bigwig(bigwig(22, intervals), "chr1")
    expected = [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 3, 3, 3, 0, 1, 1, 0, 0, 0]
    assert counts.tolist() == expected


def test_what_is_wrong_with_a_bigwig_file(bigwig, tmp_path, monkeypatch):
    import tracks

    bigwig(22, ())  # stands in for pyBigWig, which need not be there
    with pytest.raises(tracks.DataError, match="no file"):
        tracks.read_bigwig(tmp_path / "none.bw", "chr1")
    with pytest.raises(tracks.DataError, match="no chr9, but chr1"):
        tracks.read_bigwig(bigwig(9, ()), "chr9")
    with pytest.raises(tracks.DataError, match="no values"):
        tracks.read_bigwig(bigwig(9, ()), "chr1")
    with pytest.raises(tracks.DataError, match="island"):
        tracks.read_bigwig(bigwig(9, ((1, 2, 1.0), (2, 3, 2.0))), "chr1")
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    with pytest.raises(tracks.DataError, match=r"pip install 'xsmmconv\[bigwig\]'"):
        tracks.read_bigwig(tmp_path / "track.bw", "chr1")


def test_generated_tracks_depend_on_the_seed_alone():
    import tracks

    track = tracks.generate(220_000, 3)
    assert track.shape == (220_000,)
    assert np.array_equal(track, tracks.generate(220_000, 3))
    assert not np.array_equal(track, tracks.generate(220_000, 4))
    assert not np.array_equal(track[:100_000], track[100_000:200_000])
    assert 0 < tracks.call_peaks(track).mean() < 0.5


def test_regions_are_apart():
    import tracks

    counts = tracks.generate(40_000, 0)
    parts = tracks.split(counts, 0.2, 0, 1200, 200)
    taken = [np.concatenate([np.arange(s, s + 1200) for s in part.starts]) for part in parts]
    assert taken[0].max() < taken[1].min()
    assert taken[1].max() < taken[2].min()
    for part in parts[1:]:  # middles without gap
        assert np.all(np.diff(part.starts) == 800)
    noisy, clean, peaks = parts[1].batch(np.array([2, 0]))
    assert (noisy.shape, clean.shape, peaks.shape) == ((2, 1, 1200), (2, 800), (2, 800))
    start = parts[1].starts[2]
    assert np.array_equal(clean[0], counts[start + 200 : start + 1000])
    assert np.array_equal(noisy[0, 0], parts[1].noisy[start : start + 1200])
    with pytest.raises(tracks.DataError, match="too few"):
        tracks.split(counts[:2000], 0.2, 0, 1200, 200)


# --- metrics and loss --------------------------------------------------------------------------------  # noqa: E501


def test_auprc():
    import metrics

    score, truth = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])
    assert metrics.auprc(score, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.auprc(np.zeros(4), truth) == 0.5  # one point of the curve
    assert metrics.auprc(score, np.zeros(4, bool)) == 0
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 20, 500), rng.random(500) < 0.3
    area, recall = 0.0, 0.0
    for threshold in np.unique(score)[::-1]:
        chosen = score >= threshold
        step = truth[chosen].sum() / truth.sum() - recall
        area, recall = area + step * truth[chosen].mean(), recall + step
    assert metrics.auprc(score, truth) == pytest.approx(area)


def test_pearson():
    import metrics

    x, y = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)
    assert metrics.pearson(x, x + y) == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    assert metrics.pearson(x, np.ones(300)) == 0


def test_loss_is_the_mean_over_rows():
    import model

    signal, logits, clean = torch.randn(3, 4, 50, dtype=torch.float64)
    peaks = (torch.rand(4, 50) < 0.5).double()
    rows = []
    for s, z, c, p in zip(*(v.numpy() for v in (signal, logits, clean, peaks)), strict=True):
        entropy = -np.mean(np.where(p, -np.log1p(np.exp(-z)), -np.log1p(np.exp(z))))
        variances = (s.var() + model.VARIANCE) * (c.var() + model.VARIANCE)
        pearson = np.cov(s, c, ddof=0)[0, 1] / np.sqrt(variances)
        rows.append(0.0005 * np.mean((s - c) ** 2) + 1 - pearson + entropy)
        assert pearson == pytest.approx(np.corrcoef(s, c)[0, 1], rel=0.003)
    got = model.loss_of(signal, logits, clean, peaks).item()
    assert got == pytest.approx(np.mean(rows), rel=1e-6)
    flat = torch.zeros(1, 50, dtype=torch.float64)
    assert model.loss_of(flat, flat, flat, flat).item() == pytest.approx(1 + np.log(2))


def test_derivative_of_the_loss_where_the_signal_is_constant():
    import model

    signal = torch.full((1, 1000), 0.3, requires_grad=True)
    clean = torch.zeros(1, 1000)
    clean[0, 400:500] = 2
    model.loss_of(signal, torch.zeros(1, 1000), clean, clean.clamp(max=1)).backward()
    assert signal.grad.norm() < 1.1 / (1000 * model.VARIANCE) ** 0.5


# --- the network -------------------------------------------------------------------------------------  # noqa: E501


def networks():
    import model

    shape = model.Shape(channels=3, taps=7, dilation=3, signal_blocks=2, peak_blocks=1)
    pair = [model.Network(shape, backend) for backend in model.BACKENDS]
    pair[1].load_state_dict(pair[0].state_dict())
    return shape, pair


def test_the_default_network():
    import model

    network = model.Network(model.Shape(), "xsmmconv")
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert len(layers) == 25
    assert sum(layer.kernel_size == (51,) for layer in layers) == 21
    assert model.Shape().reach == 21 * 200


def test_backends_agree():
    import model

    _, pair = networks()
    x = torch.rand(2, 1, 300) * 5
    clean, peaks = torch.rand(2, 300) * 9, (torch.rand(2, 300) < 0.3).float()
    outputs = [network(x) for network in pair]
    torch.testing.assert_close(*outputs)
    for _network, output in zip(pair, outputs, strict=True):
        model.loss_of(*output, clean, peaks).backward()
    for (name, a), b in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_every_seed_begins_with_the_reads(seed):
    import metrics
    import model
    import tracks

    torch.manual_seed(seed)
    network = model.Network(model.Shape(signal_blocks=2, peak_blocks=1), "xsmmconv")
    track = torch.from_numpy(tracks.generate(4000, seed).astype(np.float32))
    with torch.no_grad():
        signal, logits = network(track[None, None])
    for output in (signal, logits):
        assert metrics.pearson(output[0].numpy(), track.numpy()) > 0.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_are_float32(dtype):
    import model

    _, (_, network) = networks()
    seen = []
    network.signal_head.register_forward_hook(lambda m, i, y: seen.append(y.dtype))
    with model.autocast(dtype):
        outputs = network(torch.rand(1, 1, 300))
    assert seen == [getattr(torch, dtype)]
    assert [v.dtype for v in outputs] == [torch.float32] * 2
    assert outputs[0].min() > 0


def test_reach():
    shape, (_, network) = networks()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()  # nothing cancels, nothing is cut off
    x = torch.rand(1, 1, 301, requires_grad=True)
    _, logits = network(x)
    (grad,) = torch.autograd.grad(logits[0, 150], x)
    touched = torch.nonzero(grad[0, 0]).squeeze()
    assert (touched.min(), touched.max()) == (150 - shape.reach, 150 + shape.reach)


def test_windows_make_up_the_whole():
    import inference

    shape, (_, network) = networks()
    track = np.random.default_rng(0).integers(0, 9, 2000)
    done = []
    got = inference.denoise(network, track, 300, shape.reach, "float32", done.append)
    whole = inference.denoise(network, track, 10_000, 0, "float32")
    for a, b in zip(got, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert done[-1] == 2000


# --- training ----------------------------------------------------------------------------------------  # noqa: E501


@pytest.mark.parametrize("backend", ["torch", "xsmmconv"])
def test_training_and_inference(backend, tmp_path, capsys, bigwig, monkeypatch):
    train(tmp_path, "--backend", backend, "--dtype", "bfloat16", "--rate", "0.003")
    printed = capsys.readouterr().out
    assert f"{backend}, bfloat16, 1 process(es) of 1 thread(s)" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    losses = np.array(results["losses"])
    assert losses[-5:].mean() < losses[:5].mean()
    assert len(results["validation"]) == 3
    rows = results["metrics"]
    assert rows["denoised"]["Pearson"] > 0.5
    assert set(rows["noisy"]) == {"MSE", "Pearson", "AUPRC"}

    import inference

    track = bigwig(3000, ((10, 20, 1.0), (100, 200, 1.0), (500, 1500, 4.0)))
    best = str(tmp_path / "best.pt")
    arguments = ["inference.py", best, "--bigwig", str(track), "--chromosome", "chr1"]
    arguments += ["--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", arguments)
    inference.main()
    printed = capsys.readouterr().out
    assert "3,000 positions in" in printed
    assert "denoised" in printed
    monkeypatch.setattr(sys, "argv", [*arguments, "--width", "100"])
    with pytest.raises(ValueError, match="--width 100 .* reach 81"):  # noqa: RUF043
        inference.main()


@pytest.fixture
def interruptible():
    """As in the foreground: a job in the background is started with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    import progress
    import trainer

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole)

    def interrupt(self, done, note=""):
        if self.title == "epoch 2" and done == 3 * 2 * 1200:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(progress.Progress, "show", interrupt)
        with pytest.raises(trainer.Interrupted):
            train(parts)
    epoch, step, *_ = checkpoint(parts)["progress"]
    assert (epoch, step) == (1, 4)  # the step after the signal is the last
    train(parts, "--resume")
    assert_same_state(checkpoint(whole), checkpoint(parts))
    assert_same_state(checkpoint(whole, "best.pt"), checkpoint(parts, "best.pt"))


@pytest.mark.usefixtures("interruptible")
def test_the_second_interrupt_is_not_a_wish(example):
    import trainer

    with trainer.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_early_stopping(tmp_path, monkeypatch):
    import trainer

    losses = iter([3.0, 2.0, 2.5, 2.25, 1.0])
    monkeypatch.setattr(trainer.Trainer, "validate", lambda self, windows: next(losses))
    train(tmp_path, "--epochs", "9", "--patience", "2", "--windows", "2")
    assert checkpoint(tmp_path)["validation"] == [3.0, 2.0, 2.5, 2.25]
    assert checkpoint(tmp_path, "best.pt")["progress"][:1] == [2]


def test_what_is_wrong_with_options(tmp_path):
    train(tmp_path, "--epochs", "1", "--windows", "2")
    with pytest.raises(ValueError, match=r"another run, with seed=0"):
        train(tmp_path, "--windows", "2", "--seed", "1", "--resume")
    with pytest.raises(FileNotFoundError, match="last.pt"):  # noqa: RUF043
        train(tmp_path / "nothing", "--resume")
    with pytest.raises(ValueError, match="--batch 3 .* 2 windows"):  # noqa: RUF043
        train(tmp_path, "--windows", "2", "--batch", "3")
    with pytest.raises(ValueError, match="--width 400"):
        train(tmp_path, "--width", "400")
