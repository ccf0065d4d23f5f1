"""Where the time of training goes. Prints tables in Markdown.

python examples/denoise/measure.py step         a training step, backends in turn in one process
python examples/denoise/measure.py profile      the operators of a step
python examples/denoise/measure.py denoise      inference, backends in turn in one process
python examples/denoise/measure.py openmp       PyTorch's own work and convolutions in turn
torchrun --nproc-per-node 2 examples/denoise/measure.py processes       steps of several processes
"""

import argparse
import itertools
import statistics
import time
from collections import Counter
from pathlib import Path

import inference
import model
import numpy as np
import torch
import torch.distributed.nn  # before there is a group, as in trainer
import tracks
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

WIDTH, MARGIN = 60_000, 5_000
WARM_UP = 2  # steps in which plans and kernels are made, and the allocators learn the sizes


class Run:
    """A network of the default shape with its optimizer, for steps on the same windows."""

    def __init__(self, backend, dtype, threads, batch):
        torch.manual_seed(0)
        self.name, self.dtype, self.threads = f"{backend} {dtype}", dtype, threads
        self.network = self.joint = model.Network(model.Shape(), backend)
        self.optimizer = torch.optim.Adam(self.network.parameters())
        counts = tracks.generate(batch * WIDTH, 0)
        self.clean = torch.from_numpy(counts.reshape(batch, WIDTH).astype(np.float32))
        self.noisy = torch.from_numpy(tracks.thin(counts, 0.2, 0).astype(np.float32))
        self.noisy = self.noisy.reshape(batch, 1, WIDTH)
        self.peaks = torch.from_numpy(tracks.call_peaks(counts).astype(np.float32))
        self.peaks = self.peaks.reshape(batch, WIDTH)

    def step(self):
        """(seconds of the forward pass and the loss, the backward pass, the optimizer)."""
        torch.set_num_threads(self.threads)
        middle = slice(MARGIN, WIDTH - MARGIN)
        times = [time.perf_counter()]
        with model.autocast(self.dtype):
            outputs = self.joint(self.noisy)
        known = (v[:, middle] for v in (*outputs, self.clean, self.peaks))
        loss = model.loss_of(*known)
        times.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        self.optimizer.step()
        times.append(time.perf_counter())
        return np.diff(times)


def step(options):
    print("| threads | dtype | backend | forward | backward | optimizer | step | median | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for threads, dtype in itertools.product(options.threads, options.dtypes):
        runs = [Run(backend, dtype, threads, options.batch) for backend in model.BACKENDS]
        times = {run.name: [] for run in runs}
        for i in range(WARM_UP + options.repeats):
            for run in runs:
                seconds = run.step()
                if i >= WARM_UP:
                    times[run.name].append(seconds)
        least = {name: min(v, key=sum) for name, v in times.items()}
        theirs = sum(least[runs[0].name])
        for name, parts in least.items():
            backend, dtype = name.split()
            median = statistics.median(map(sum, times[name]))
            cells = [f"{1e3 * v:.0f} ms" for v in (*parts, sum(parts), median)]
            ratio = f"{theirs / sum(parts):.2f}"
            print("| " + " | ".join([str(threads), dtype, backend, *cells, ratio]) + " |")


def denoise(options):
    """Positions per second of inference, backends in turn, windows as in inference.py."""
    shape = model.Shape()
    networks = {backend: model.Network(shape, backend) for backend in model.BACKENDS}
    track = tracks.generate(2 * (WIDTH - 2 * shape.reach), 0)
    print("| threads | dtype | backend | positions/s | median | ratio |\n|---|---|---|---|---|---|")
    for threads, dtype in itertools.product(options.threads, options.dtypes):
        torch.set_num_threads(threads)
        rates = {backend: [] for backend in networks}
        for i in range(WARM_UP + options.repeats):
            for backend, network in networks.items():
                start = time.perf_counter()
                inference.denoise(network, track, WIDTH, shape.reach, dtype)
                if i >= WARM_UP:
                    rates[backend].append(track.size / (time.perf_counter() - start))
        for backend, mine in rates.items():
            cells = [str(threads), dtype, backend, f"{max(mine):,.0f}"]
            cells += [f"{statistics.median(mine):,.0f}", f"{max(mine) / max(rates['torch']):.2f}"]
            print("| " + " | ".join(cells) + " |")


# What the profiler calls the work of xsmmconv::conv1d where autograd records it.
RECORDED = "GeneratedBackwardFor_xsmmconv_conv1d_default"


def profile(options):
    for backend, dtype in itertools.product(model.BACKENDS, options.dtypes):
        run = Run(backend, dtype, options.threads[0], options.batch)
        for _ in range(WARM_UP):
            run.step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            run.step()
        times, calls = Counter(), Counter()
        for e in seen.key_averages():
            name = "xsmmconv::conv1d" if e.key == RECORDED else e.key
            times[name] += e.self_cpu_time_total
            calls[name] = max(calls[name], e.count)
        total = times.total()
        print(f"\n{run.name}, {run.threads} thread(s): {total / 1e3:.0f} ms\n")
        print("| operator | calls | time | share |\n|---|---|---|---|")
        for name, own in times.most_common(10):
            print(f"| {name} | {calls[name]} | {own / 1e3:.1f} ms | {own / total:.1%} |")


def openmp(options):
    """Alternating regions of PyTorch and of xsmmconv, against each alone."""
    from xsmmconv.torch import conv1d

    torch.set_num_threads(max(options.threads))
    x, weight = torch.randn(1, 15, WIDTH), torch.randn(15, 15, 51)
    y = torch.randn(1, 15, WIDTH)

    def elementwise():
        torch.sigmoid(y, out=y)

    def convolution():
        conv1d(x, weight, padding="same", dilation=8)

    times = {(work, others): [] for work in (elementwise, convolution) for others in (False, True)}
    for _ in range(WARM_UP + options.repeats):
        for order in ((elementwise,), (convolution,), (elementwise, convolution)):
            for work in 10 * order:
                start = time.perf_counter()
                work()
                times[work, len(order) > 1].append(time.perf_counter() - start)
    maps = Path("/proc/self/maps").read_text().split()
    runtimes = sorted({Path(path).name for path in maps if "libgomp" in path})
    print(f"{torch.get_num_threads()} threads on {' and '.join(runtimes)}; ms, minimum / median\n")
    print("| work | alone | in turn |\n|---|---|---|")
    for work in (elementwise, convolution):
        cells = (times[work, others][10 * WARM_UP :] for others in (False, True))
        cells = (f"{1e3 * min(v):.2f} / {1e3 * statistics.median(v):.2f}" for v in cells)
        print(f"| {work.__name__} | {' | '.join(cells)} |")


def processes(options):
    """A step of one process alone, and of all at the same time; and the sum of the gradients."""
    distributed.init_process_group("gloo")
    first, size = distributed.get_rank() == 0, distributed.get_world_size()
    run, single = (
        Run("xsmmconv", options.dtypes[0], options.threads[0], options.batch) for _ in range(2)
    )
    run.joint = DistributedDataParallel(run.network)
    alone, apart, together = [], [], []
    for _ in range(WARM_UP + options.repeats):
        for times, one in ((alone, single), (apart, single), (together, run)):
            distributed.barrier()
            start = time.perf_counter()
            if first or times is not alone:
                one.step()
            distributed.barrier()  # the slower process counts
            times.append(time.perf_counter() - start)
    sums = [_sum_times(n, options.repeats) for n in (1, 2**14, _parameters(run.network), 2**22)]
    run.joint = run.network  # the wrapper goes before its group: see Trainer.leave
    distributed.destroy_process_group()
    if not first:
        return
    print(f"{run.name}, {run.threads} thread(s) per process, {options.batch} window(s) each\n")
    print("| processes | step | median | throughput |\n|---|---|---|---|")
    least = min(alone[WARM_UP:])
    rows = (("1", 1, alone), (f"{size}, apart", size, apart), (f"{size}, together", size, together))
    for title, number, times in rows:
        times = times[WARM_UP:]
        cells = [f"{1e3 * v:.0f} ms" for v in (min(times), statistics.median(times))]
        print(f"| {title} | {' | '.join(cells)} | {number * least / min(times):.2f} |")
    print(f"\n| bytes ({4 * _parameters(run.network):,}: the gradients) | sum | median |")
    print("|---|---|---|")
    for count, least, median in sums:
        print(f"| {count:,} | {1e3 * least:.3f} ms | {1e3 * median:.3f} ms |")
    _predict(min(alone[WARM_UP:]), size, sums)


def _predict(step, size, sums):
    """What more processes would do, if each had a processor like this process alone.

    The sum goes around a ring: 2(P-1) messages, one after the other, each of 1/P of the bytes.
    """
    (_, _, short), _, (count, _, _), (many, _, long) = sums
    latency = short / (2 * (size - 1))
    seconds_per_byte = (long - short) / (many * 2 * (size - 1) / size)
    print("\n| processes | sum, computed | step, computed | throughput, computed |")
    print("|---|---|---|---|")
    for P in (2, 8, 16):
        added = 2 * (P - 1) * (latency + count / P * seconds_per_byte)
        gain = P * step / (step + added)
        print(f"| {P} | {1e3 * added:.2f} ms | {1e3 * (step + added):.0f} ms | {gain:.2f} |")


def _parameters(network):
    return sum(p.numel() for p in network.parameters())


def _sum_times(size, repeats):
    """(bytes, least and median seconds) of summing so many float32 numbers over the processes."""
    values, times = torch.zeros(size), []
    for _ in range(10 * repeats):
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(values)
        times.append(time.perf_counter() - start)
    return 4 * size, min(times), statistics.median(times)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = {f.__name__: f for f in (step, profile, denoise, openmp, processes)}
    parser.add_argument("what", choices=what)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=1, help="windows (%(default)s)")
    parser.add_argument("--repeats", type=int, default=10, help="(%(default)s)")
    options = parser.parse_args()
    what[options.what](options)


if __name__ == "__main__":
    main()
