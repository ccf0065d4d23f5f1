"""The benchmark behind `python -m xsmmconv bench`; docs/performance.md explains the method.

    suites.py  ->  cells.py  ->  timing.py  ->  results.py  ->  report.py, plot.py
    shapes         ours          repeats        figures         text, picture
                   torch_peer.py
                   PyTorch

A *cell* is one problem, pass, dtype and number of threads; a *column* is one way to compute it.
"""
