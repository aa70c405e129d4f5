"""The door of the fork server: `python -I -S <this file>`, the agent's socket on descriptor 0."""

import os
import socket
import sys

if not __package__:
    # Last on the path, so that no file of ours shadows the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "guardian"

from .serve import serve

serve(socket.socket(fileno=0))
