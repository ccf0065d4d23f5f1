"""The table and the picture of "Accuracy", from the errors in accuracy.json.

``python docs/accuracy.py`` measures them, beside PyTorch's if that is installed, and writes the
file and the table. A test holds the table against the file. A build draws the picture.
"""

import json
import re
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PAGE, RUN = HERE / "accuracy.md", HERE / "accuracy.json"
PROBLEMS = {  # name: N, C, K, S, W, dilation, groups
    "15→15, S=51, d=8": (2, 15, 15, 51, 4000, 8, 1),
    "64→64, S=5": (2, 64, 64, 5, 2000, 1, 1),
    "depthwise, C=64, S=9": (2, 64, 64, 9, 2000, 1, 64),
}
DTYPES = ("float32", "bfloat16", "float64")
PASSES = ("forward", "backward_data", "backward_weight")
QUANTILES = {"median": 0.5, "99.9 %": 0.999, "worst": 1.0}
_BETWEEN = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


def measure():
    """[{problem, dtype, pass, library: {quantile: (share of the bound, units of roundoff)}}]"""
    return [
        {"problem": name, "dtype": dtype, "pass": pass_, **errors(problem, dtype, pass_)}
        for name, problem in PROBLEMS.items()
        for dtype in DTYPES
        for pass_ in PASSES
    ]


def errors(problem, dtype, pass_):
    import ml_dtypes

    import xsmmconv
    from xsmmconv import reference

    N, C, K, S, W, d, g = problem
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    Q = W - d * (S - 1)
    rng = np.random.default_rng(0)
    x, w, dy = (
        rng.normal(size=shape).astype(kind) for shape in ((N, C, W), (K, C // g, S), (N, K, Q))
    )
    suffix, operands = {
        "forward": ("", (x, w)),
        "backward_data": ("_backward_data", (dy, w, W)),
        "backward_weight": ("_backward_weight", (dy, x, S)),
    }[pass_]
    options = {"dilation": d, "groups": g}

    def call(module, change):
        changed = [change(one) if np.ndim(one) else one for one in operands]
        return getattr(module, "conv1d" + suffix)(*changed, **options)

    wide = np.longdouble if dtype == "float64" else np.float64
    exact = call(reference, lambda a: a.astype(wide))
    magnitude = call(reference, lambda a: abs(a.astype(wide)))
    terms = call(reference, np.ones_like)
    bound = reference.error_bound(exact, magnitude, terms, kind)
    # Half a unit in the last place of numbers near the result is u*|result|: the error of rounding.
    unit = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float64": 2.0**-53}[dtype]
    results = {
        "xsmmconv": call(xsmmconv, lambda a: a),
        "torch": torch_result(pass_, x, w, dy, d, g),
    }
    found = {}
    for library, result in results.items():
        if result is not None:
            error = abs(result.astype(wide) - exact)
            shares, units = error / bound, error / (unit * np.sqrt(np.mean(exact**2)))
            found[library] = {
                name: [float(f"{np.quantile(one.astype(float), q):.3g}") for one in (shares, units)]
                for name, q in QUANTILES.items()
            }
    return found


def torch_result(pass_, x, w, dy, d, g):
    """PyTorch's result on the same data, or None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    kind = getattr(torch, x.dtype.name)
    wide = "float64" if x.dtype == np.float64 else "float32"  # holds each bfloat16
    x, w, dy = (torch.from_numpy(a.astype(wide)).to(kind) for a in (x, w, dy))
    if pass_ == "forward":
        result = torch.conv1d(x, w, dilation=d, groups=g)
    else:
        mask = [pass_ == "backward_data", pass_ == "backward_weight", False]
        result = torch.ops.aten.convolution_backward(
            dy, x, w, None, [1], [0], [d], False, [0], g, mask
        )[mask.index(True)]
    return result.to(getattr(torch, wide)).numpy()


def page(text):
    rows = json.loads(RUN.read_text())
    lines = [["problem", "dtype", "pass", "xsmmconv", "torch"], ["---"] * 5]
    for row in rows:
        cells = [cell(row.get(library)) for library in ("xsmmconv", "torch")]
        lines.append([row["problem"], row["dtype"], row["pass"].replace("_", " "), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return _BETWEEN.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text)


def cell(found):
    if found is None:
        return "not measured"
    shares, units = zip(*found.values(), strict=True)
    percents = ", ".join(f"{100 * share:.3g}" for share in shares)
    return f"{percents} % · {', '.join(f'{unit:.3g}' for unit in units)} u"


def draw_all(folder):
    """Errors as shares of the bound, one picture: median to worst per row of the table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = json.loads(RUN.read_text())
    figure, axes = plt.subplots(figsize=(9, 8), layout="constrained")
    for library, color, shift in (("xsmmconv", "C0", -0.15), ("torch", "C3", 0.15)):
        measured = [(i, row[library]) for i, row in enumerate(rows) if library in row]
        for i, found in measured:
            shares = [100 * share for share, _ in found.values()]
            axes.plot(shares, [i + shift] * 3, "|-", color=color, label=library if i == 0 else "")
    names = [f"{row['problem']}, {row['dtype']}, {row['pass'].replace('_', ' ')}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.set(xscale="log", xlabel="error: median, 99.9 %, worst, in % of the bound")
    axes.axvline(100, color="black")
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(Path(folder) / "accuracy.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    RUN.write_text("[\n" + ",\n".join(map(json.dumps, measure())) + "\n]\n")
    PAGE.write_text(page(PAGE.read_text()))
