"""Train the denoising network on a coverage track, and report what it is worth.

One process:    python examples/denoise/train.py --output OUT
Two processes:  torchrun --nproc-per-node 2 examples/denoise/train.py --output OUT

Ctrl-C writes a checkpoint; --resume goes on there. OUT receives last.pt, best.pt, results.json and
region.png.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import inference
import metrics
import model
import numpy as np
import torch
import tracks
import trainer


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="where the results go")
    add("--resume", action="store_true", help="go on from DIR/last.pt")
    add("--backend", choices=model.BACKENDS, default="xsmmconv", help="(%(default)s)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)")
    add("--threads", type=int, help="per process (as PyTorch chooses)")
    add("--bigwig", metavar="FILE", help="real track (without: a generated one)")
    add("--chromosome", default="chr22", help="of the bigWig file (%(default)s)")
    add("--generate", type=int, default=6_000_000, help="width of the generated track")
    add("--keep", type=float, default=0.2, help="share of the reads in the input (%(default)s)")
    add("--seed", type=int, default=0)
    add("--epochs", type=int, default=25, help="at most (%(default)s)")
    add("--patience", type=int, default=4, help="epochs without improvement (%(default)s)")
    add("--batch", type=int, default=2, help="windows per step, of all processes together")
    add("--rate", type=float, default=1e-3, help="of Adam (%(default)s)")
    add("--windows", type=int, help="train and test on so many windows only")
    add("--minutes", type=float, default=10, help="between checkpoints (%(default)s)")
    add("--width", type=int, default=60_000, help="of a window (%(default)s)")
    add("--margin", type=int, default=5_000, help="of a window, left out of the loss")
    for field, default in model.Shape().asdict().items():
        add(f"--{field.replace('_', '-')}", type=int, default=default, help="(%(default)s)")
    return parser.parse_args()


def settings_of(options, world_size):
    """What a run depends on."""
    if options.batch % world_size:
        raise ValueError(f"--batch {options.batch} should be a multiple of {world_size} processes")
    if 2 * options.margin >= options.width:
        raise ValueError(f"--width {options.width} leaves nothing between two margins")
    names = ["backend", "dtype", "bigwig", "chromosome", "generate", "keep", "seed", "batch"]
    names += ["rate", "windows", "width", "margin"]
    shape = {name: getattr(options, name) for name in model.Shape().asdict()}
    return {name: getattr(options, name) for name in names} | {"shape": shape}


def load(settings):
    """Windows for training, validation and test."""
    if settings["bigwig"]:
        counts = tracks.read_bigwig(settings["bigwig"], settings["chromosome"])
    else:
        counts = tracks.generate(settings["generate"], settings["seed"])
    parts = tracks.split(*([counts] + [settings[k] for k in ("keep", "seed", "width", "margin")]))
    if settings["windows"]:
        # Spread over the regions: neighbours are alike.
        for i, share in enumerate((1, 0.2, 1)):
            parts[i] = parts[i].some(max(1, round(settings["windows"] * share)))
    return parts


def evaluate(run, windows):
    """Metrics of network and input on the windows' middles; and the tracks with most peaks."""
    settings = run.settings
    middle = slice(windows.margin, windows.width - windows.margin)
    columns = []
    for i in range(len(windows)):
        track = windows.noisy[windows.starts[i] :][: windows.width]
        predicted = inference.denoise(run.network, track, windows.width, 0, settings["dtype"])
        known = (v[windows.middle(i)] for v in (windows.noisy, windows.clean, windows.peaks))
        columns.append((*(v[middle] for v in predicted), *known))
    signal, score, noisy, clean, peaks = map(np.concatenate, zip(*columns, strict=True))
    scaled = noisy / settings["keep"]  # an unbiased guess of the clean track
    rows = {
        "noisy": metrics.summary(scaled, scaled, clean, peaks),
        "denoised": metrics.summary(signal, score, clean, peaks),
    }
    return rows, max(columns, key=lambda v: v[4].sum())


def report(run, windows):
    """Print and write down what the run is worth on the windows."""
    rows, region = evaluate(run, windows)
    print(metrics.table(rows))
    results = run.settings | {"losses": run.losses, "validation": run.validation, "metrics": rows}
    if results["bigwig"]:
        results["bigwig"] = Path(results["bigwig"]).name
    (run.output / "results.json").write_text(json.dumps(results, indent=1))
    try:
        import picture
    except ImportError:
        print("no picture of a test region: that needs matplotlib")
    else:
        picture.region(run.output / "region.png", *region)


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    group = trainer.Group()
    settings = settings_of(options, group.size)
    training, validation, test = load(settings)
    if len(training) < options.batch:
        raise ValueError(f"--batch {options.batch} is more than the {len(training)} windows")
    run = trainer.Trainer(settings, options.output, group)
    if options.resume:
        run.resume()
    if group.rank == 0:
        print(
            f"{settings['backend']}, {settings['dtype']}, {group.size} process(es) of "
            f"{torch.get_num_threads()} thread(s); windows: {len(training)} for training, "
            f"{len(validation)} for validation, {len(test)} for test"
        )
    start = time.perf_counter()
    try:
        run.run(training, validation, options.epochs, options.patience, options.minutes)
    finally:
        run.leave()
    if group.rank == 0:
        print(f"trained for {time.perf_counter() - start:.0f} s")
        run.load_best()
        report(run, test)


if __name__ == "__main__":
    try:
        main()
    except (tracks.DataError, ValueError, FileNotFoundError) as error:
        sys.exit(f"train.py: {error}")
    except trainer.Interrupted:
        sys.exit(f"train.py: interrupted; --resume goes on ({Path(sys.argv[0]).name})")
    except trainer.ProcessLost as error:
        sys.exit(f"train.py: another process is gone ({error}); --resume goes on")
