"""Denoise a whole chromosome, window by window.

python examples/denoise/inference.py OUT/best.pt --bigwig FILE --output denoised.bw

Windows overlap by twice the network's reach, so the result is that of the chromosome as one row.
The track is thinned first as in training (--keep 1: not at all). Beside the denoised track, called
peaks are written as .bed.
"""

import argparse
import sys
import time
from pathlib import Path

import metrics
import model
import numpy as np
import torch
import tracks
from progress import Progress

PEAK_PROBABILITY = 0.5


@torch.inference_mode()
def denoise(network, noisy, width, margin, dtype, note=lambda done: None):
    """Signal and peak probability of every position of a track, float32.

    Windows overlap by two margins, and each gives its middle. If the margin is at least the
    network's reach, the result is that of the track as one window, up to rounding.
    """
    network.eval()
    signal, score = np.empty((2, noisy.size), np.float32)
    step = width - 2 * margin
    for start in range(0, noisy.size, step):
        end = min(start + step, noisy.size)
        first, last = max(0, start - margin), min(end + margin, noisy.size)
        window = torch.from_numpy(noisy[first:last].astype(np.float32))
        with model.autocast(dtype):
            outputs = network(window[np.newaxis, np.newaxis])
        middle = slice(start - first, end - first)
        signal[start:end] = outputs[0][0, middle].numpy()
        score[start:end] = outputs[1][0, middle].sigmoid().numpy()
        note(end)
    return signal, score


def write(path, chromosome, signal, score):
    """The signal as a bigWig file, rounded to hundredths of a read, and the peaks as .bed."""
    import pyBigWig

    value = np.round(signal.astype(np.float64), 2)
    starts = np.flatnonzero(np.diff(value, prepend=-1))
    ends = np.append(starts[1:], value.size)
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader([(chromosome, value.size)])
        names = np.full(starts.size, chromosome)
        file.addEntries(names, starts, ends=ends, values=value[starts])
    with path.with_suffix(".bed").open("w") as file:
        for start, end in zip(*tracks.runs(score >= PEAK_PROBABILITY), strict=True):
            file.write(f"{chromosome}\t{start}\t{end}\n")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", help="best.pt of a training run")
    add("--bigwig", required=True, metavar="FILE", help="track to denoise")
    add("--chromosome", default="chr22", help="(%(default)s)")
    add("--output", type=Path, metavar="FILE", help="bigWig file to write (none)")
    add("--keep", type=float, help="share of the reads to keep (that of the training)")
    add("--positions", type=int, help="stop after so many")
    add("--width", type=int, default=60_000, help="of a window (%(default)s)")
    add("--backend", choices=model.BACKENDS, help="(that of the training)")
    add("--dtype", choices=("float32", "bfloat16"), help="(that of the training)")
    add("--threads", type=int, help="(as PyTorch chooses)")
    return parser.parse_args()


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    state = torch.load(options.checkpoint, weights_only=True)
    settings = state["settings"]
    backend, dtype = options.backend or settings["backend"], options.dtype or settings["dtype"]
    keep = settings["keep"] if options.keep is None else options.keep
    shape = model.Shape(**settings["shape"])
    if options.width <= 2 * shape.reach:
        raise ValueError(
            f"--width {options.width} should be more than twice the network's reach {shape.reach}"
        )
    network = model.Network(shape, backend)
    network.load_state_dict(state["network"])

    clean = tracks.read_bigwig(options.bigwig, options.chromosome)[: options.positions]
    noisy = clean if keep == 1 else tracks.thin(clean, keep, settings["seed"])
    bar = Progress("denoising", noisy.size, "positions")
    start = time.perf_counter()
    signal, score = denoise(network, noisy, options.width, shape.reach, dtype, bar.show)
    seconds = time.perf_counter() - start
    print(
        f"{noisy.size:,} positions in {seconds / 60:.2f} minutes, {noisy.size / seconds:,.0f} per "
        f"second ({backend}, {dtype}, {torch.get_num_threads()} thread(s))"
    )
    if keep < 1:
        peaks, scaled = tracks.call_peaks(clean), noisy / keep
        rows = {
            "noisy": metrics.summary(scaled, scaled, clean, peaks),
            "denoised": metrics.summary(signal, score, clean, peaks),
        }
        print(metrics.table(rows))
    if options.output:
        write(options.output, options.chromosome, signal, score)


if __name__ == "__main__":
    try:
        main()
    except (tracks.DataError, ValueError, FileNotFoundError) as error:
        sys.exit(f"inference.py: {error}")
