"""Training: epochs, early stopping, checkpoints, and the same on several processes."""

import contextlib
import os
import signal
import time
from pathlib import Path

import model
import torch
import torch.distributed.nn  # before there is a group: its functions keep that as a default
from progress import Progress
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


class Interrupted(Exception):
    """Somebody asked to stop; the checkpoint has been written."""


class ProcessLost(Exception):
    """Another process of the group is gone."""


class StopRequest:
    """While it lasts, SIGINT and SIGTERM are a wish; a second SIGINT ends the program at once."""

    def __init__(self):
        self.wanted = False

    def __enter__(self):
        self.before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *raised):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Group:
    """The processes that train together; one, if not started by torchrun."""

    def __init__(self):
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        if self.size > 1:
            distributed.init_process_group("gloo")

    def mean(self, *numbers):
        """The mean of each number over the processes."""
        if self.size == 1:
            return numbers
        numbers = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(numbers)
        return (numbers / self.size).tolist()

    def wrapped(self, network):
        return network if self.size == 1 else DistributedDataParallel(network)

    @contextlib.contextmanager
    def watched(self):
        """Say so if another process is gone, in place of what the transport says."""
        try:
            yield
        except RuntimeError as error:
            lost = ("Connection", "peer", "timed out", "Timed out")
            if self.size > 1 and any(word in str(error) for word in lost):
                raise ProcessLost(str(error).splitlines()[0]) from error
            raise

    def leave(self):
        if self.size > 1:
            distributed.destroy_process_group()


class Trainer:
    """One training run: a network, its optimizer, and how far they are.

    What happens in a step depends on the settings and the step's number alone, and the checkpoint
    holds the rest. So a resumed run ends with the same bits as an uninterrupted one.
    """

    def __init__(self, settings, output, group):
        self.settings, self.output, self.group = settings, Path(output), group
        torch.manual_seed(settings["seed"])
        shape = model.Shape(**settings["shape"])
        self.network = model.Network(shape, settings["backend"])
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings["rate"])
        self.joint = group.wrapped(self.network)
        self.epoch = self.step = self.bad_epochs = 0
        self.best = float("inf")
        self.losses, self.validation = [], []  # one per step, one per epoch
        self.saved = time.monotonic()

    # --- checkpoints ---

    def save(self, name="last.pt"):
        if self.group.rank:
            return
        state = {
            "settings": self.settings,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": [self.epoch, self.step, self.bad_epochs, self.best],
            "losses": self.losses,
            "validation": self.validation,
        }
        self.output.mkdir(parents=True, exist_ok=True)
        unfinished = self.output / f".{name}"
        torch.save(state, unfinished)
        os.replace(unfinished, self.output / name)  # never half a checkpoint
        self.saved = time.monotonic()

    def resume(self):
        """Go on where OUTPUT/last.pt was written; the settings must be the same."""
        state = torch.load(self.output / "last.pt", weights_only=True)
        changed = [k for k, v in self.settings.items() if state["settings"].get(k) != v]
        if changed:
            told = ", ".join(f"{k}={state['settings'].get(k)}" for k in changed)
            raise ValueError(f"{self.output / 'last.pt'} belongs to another run, with {told}")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.bad_epochs, self.best = state["progress"]
        self.losses, self.validation = state["losses"], state["validation"]

    # --- training ---

    def batches(self, windows):
        """This process's part of each joint batch of the epoch, in an order of its own."""
        generator = torch.Generator().manual_seed(self.settings["seed"] + 7919 * self.epoch)
        order = torch.randperm(len(windows), generator=generator).numpy()
        joint = self.settings["batch"]
        order = order[: len(order) // joint * joint].reshape(-1, joint)
        return order[:, self.group.rank :: self.group.size]

    def loss(self, windows, indices):
        noisy, clean, peaks = windows.batch(indices)
        with model.autocast(self.settings["dtype"]):
            outputs = self.joint(noisy)
        middle = slice(windows.margin, windows.width - windows.margin)
        return model.loss_of(*(v[:, middle] for v in outputs), clean, peaks)

    def train_epoch(self, windows, stop, minutes):
        batches, first = self.batches(windows), self.step
        title, positions = f"epoch {self.epoch + 1}", self.settings["batch"] * windows.width
        bar = Progress(title, (len(batches) - first) * positions, "positions", self.group.rank > 0)
        self.joint.train()
        for indices in batches[first:]:
            loss = self.loss(windows, indices)
            self.optimizer.zero_grad()
            loss.backward()
            # Agreed on before the step: whoever leaves has done the same steps as the others.
            loss, stopping = self.group.mean(loss.item(), stop.wanted)
            self.optimizer.step()
            self.step += 1
            self.losses.append(loss)
            bar.show((self.step - first) * positions, f", loss {loss:.4f}")
            if stopping:
                self.save()
                raise Interrupted
            if time.monotonic() - self.saved > 60 * minutes:
                self.save()

    @torch.no_grad()
    def validate(self, windows):
        """Mean loss; every process takes its part of the windows."""
        self.joint.eval()
        total = 0.0
        for i in range(self.group.rank, len(windows), self.group.size):
            total += self.loss(windows, [i]).item()
        (total,) = self.group.mean(total)
        return total * self.group.size / len(windows)

    def run(self, training, validation, epochs, patience, minutes):
        """Train until the validation loss has not improved for `patience` epochs."""
        try:
            with self.group.watched(), StopRequest() as stop:
                while self.epoch < epochs and self.bad_epochs < patience:
                    self.train_epoch(training, stop, minutes)
                    self._end_epoch(self.validate(validation))
        except ProcessLost:
            self.save()  # no step was half done: the optimizer had not begun
            raise

    def _end_epoch(self, loss):
        self.epoch, self.step = self.epoch + 1, 0
        self.validation.append(loss)
        better = loss < self.best
        self.best, self.bad_epochs = min(loss, self.best), 0 if better else self.bad_epochs + 1
        self.save()
        if better:
            self.save("best.pt")
        if self.group.rank == 0:
            print(f"epoch {self.epoch}: validation loss {loss:.4f}{' (best)' * better}", flush=True)

    def leave(self):
        """Go on without the other processes."""
        # Nothing may own the group after it is destroyed, for its threads end with its last owner.
        # A thread that outlives the interpreter can abort the process; and the wrapper, were it
        # the last, would wait for them with the interpreter's lock, which they take to free a
        # tensor.
        self.joint = self.network
        self.group.leave()

    def load_best(self):
        state = torch.load(self.output / "best.pt", weights_only=True)
        self.network.load_state_dict(state["network"])
