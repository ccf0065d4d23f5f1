"""Run by torchrun: train by train.py of the folder given, and see no thread of the group live when
it has been left."""

import sys
from pathlib import Path


def main():
    sys.path.insert(0, sys.argv.pop(1))
    import train
    from trainer import Trainer

    leave = Trainer.leave

    def checked(run):
        leave(run)
        names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
        left = [name for name in names if "gloo" in name]
        assert names, "no threads to be seen"
        assert not left, f"{left} outlive the group"

    Trainer.leave = checked
    train.main()


if __name__ == "__main__":
    main()
