"""Two processes that train together (torchrun, gloo)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pytorch import ddp_gradients
from pytorch.test_denoise import TINY, checkpoint, train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def torchrun(*command):
    command = list(map(str, (*TORCHRUN, *command)))
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def test_gradients_are_those_of_the_joint_batch(tmp_path):
    model = ddp_gradients.network()
    model(ddp_gradients.batch()).square().mean().backward()
    done = torchrun(ddp_gradients.__file__, tmp_path / "gradients.pt")
    assert done.returncode == 0, done.stderr
    got = torch.load(tmp_path / "gradients.pt", weights_only=True)
    torch.testing.assert_close(got, [p.grad for p in model.parameters()], rtol=1e-12, atol=1e-14)


def rank_of(pid):
    """RANK in the environment of a process, if it is one of train.py."""
    try:
        if b"train.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return None
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has just ended
        return None
    return next((v[5:].decode() for v in environment if v.startswith(b"RANK=")), None)


def wait_for(what, seconds=200):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.usefixtures("example")
def test_a_killed_process_ends_the_run_and_the_checkpoint_resumes(tmp_path, example):
    output, log = tmp_path / "run", tmp_path / "log"
    command = [*TORCHRUN, str(example / "train.py"), "--output", str(output), *TINY]
    with log.open("w") as file:
        run = subprocess.Popen(
            [*command, "--epochs", "100000", "--patience", "100000"],
            env=ENVIRONMENT, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        wait_for(lambda: (output / "best.pt").exists())
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        (victim,) = (int(pid) for pid in children if rank_of(pid) == "1")
        os.kill(victim, signal.SIGKILL)
        assert run.wait(120) != 0
    finally:
        run.kill()
    assert "train.py: another process is gone" in log.read_text()
    assert "--resume goes on" in log.read_text()
    epoch, _step, *_ = checkpoint(output)["progress"]
    assert epoch >= 1

    # Two processes go on where rank 0 stood, and so does one.
    epochs = ["--epochs", str(epoch + 1), "--resume"]
    done = subprocess.run(
        [*command, *epochs], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint(output)["progress"][:2] == [epoch + 1, 0]
    assert (output / "results.json").exists()
    train(output, "--epochs", str(epoch + 2), "--resume")
    assert checkpoint(output)["progress"][:2] == [epoch + 2, 0]
