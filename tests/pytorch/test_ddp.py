"""Two processes that train together (torchrun, gloo)."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pytorch import ddp_gradients, ddp_left
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


@pytest.mark.usefixtures("example")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads' names are read there")
def test_no_thread_outlives_the_group(tmp_path, example):
    done = torchrun(ddp_left.__file__, example, "--output", tmp_path, *TINY, "--epochs", "1")
    assert done.returncode == 0, done.stderr


def start(rank, port, log, *command):
    """One of two processes, without a launcher: that would end the other one as soon as one dies,
    perhaps before it notices."""
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    environment = ENVIRONMENT | {k: str(v) for k, v in variables.items()}
    environment["MASTER_ADDR"] = "127.0.0.1"
    with log.open("w") as file:
        command = list(map(str, (sys.executable, *command)))
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def wait_for(what, seconds=200):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.usefixtures("example")
def test_a_killed_process_ends_the_run_and_the_checkpoint_resumes(tmp_path, example):
    output, logs = tmp_path / "run", [tmp_path / "log0", tmp_path / "log1"]
    command = [example / "train.py", "--output", output, *TINY]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    endless = ["--epochs", "100000", "--patience", "100000"]
    runs = [start(rank, port, logs[rank], *command, *endless) for rank in (0, 1)]
    try:
        wait_for(lambda: (output / "best.pt").exists())
        runs[1].kill()
        assert runs[0].wait(120) != 0
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert "train.py: another process is gone" in logs[0].read_text()
    assert "--resume goes on" in logs[0].read_text()
    epoch, _step, *_ = checkpoint(output)["progress"]
    assert epoch >= 1

    # Two processes go on where rank 0 stood, and so does one.
    epochs = ["--epochs", str(epoch + 1), "--resume"]
    done = torchrun(*command, *epochs)
    assert done.returncode == 0, done.stderr
    assert checkpoint(output)["progress"][:2] == [epoch + 1, 0]
    assert (output / "results.json").exists()
    train(output, "--epochs", str(epoch + 2), "--resume")
    assert checkpoint(output)["progress"][:2] == [epoch + 2, 0]
