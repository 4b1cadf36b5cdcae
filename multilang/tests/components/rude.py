"""A component that does not even answer the handshake, in the way that its argument says."""

import sys
import time

from protocol import read

if sys.argv[1] == "import":
    import a_module_that_there_is_not  # noqa: F401
elif sys.argv[1] == "print":
    print("Loading the model ...", flush=True)
elif sys.argv[1] == "frames":
    from protocol import handshake

    handshake(frames="xml")
read()
time.sleep(3600)
