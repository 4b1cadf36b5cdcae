"""Runs the example in the documentation of one of pystorm's classes, as it stands there.

docstring.py pystorm.bolt.Bolt SentenceSplitterBolt
"""

import importlib
import sys
import textwrap

where, name = sys.argv[1:]
module, documented = where.rsplit(".", 1)
text = getattr(importlib.import_module(module), documented).__doc__
example = text.split(".. code-block:: python", 1)[1]
scope = {}
exec(textwrap.dedent(example), scope)
scope[name]().run()
