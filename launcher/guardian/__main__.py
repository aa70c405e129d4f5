"""The guardian's door: `python -I -S <this file>`, the order on descriptor 0, the answer on 1."""

import os
import sys

if not __package__:
    # Last on the path, so that no file of ours shadows the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "guardian"

from .begin import main

main()
