"""`descent up` with a Ray head of a given size: `python -m tests.e2e.start_up CPUS GPUS`."""

import os
import sys

from ci_bot.logs import configure_logging
from ci_bot.settings import Settings
from ci_bot.up import Up
from launcher.ray_head import HeadOptions

if __name__ == "__main__":
    cpus, gpus = map(int, sys.argv[1:])
    settings = Settings.from_env(os.environ)
    configure_logging(settings.log_level)
    options = HeadOptions(num_cpus=cpus, num_gpus=gpus)
    sys.exit(Up(settings, os.environ, lambda url: print(url, flush=True), options=options).run())
