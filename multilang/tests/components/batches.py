"""A bolt of pystorm that sums up even and odd numbers in batches, and takes no batch with the number 13 in it.

batches.py BatchingBolt | TicklessBatchingBolt
"""

import sys

import pystorm.bolt


class Batches(getattr(pystorm.bolt, sys.argv[1])):
    ticks_between_batches = 0
    secs_between_batches = 0.05

    def group_key(self, tup):
        return tup.values[0] % 2

    def process_batch(self, key, tups):
        numbers = [tup.values[0] for tup in tups]
        if 13 in numbers:
            raise ValueError("13 is unlucky")
        self.emit([sum(numbers)])


Batches().run()
