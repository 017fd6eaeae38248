"""Worker processes end with the process that started them, whatever ended it. Imports nothing heavy, since it runs first."""

import os
import threading
import time

SECONDS = 0.5  # between two looks


def end_with(parent: int) -> None:
    """End this process soon after process `parent`, which started it, is gone, even by SIGKILL."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with the parent").start()
