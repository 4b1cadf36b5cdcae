"""A bolt of pystorm that passes on what it gets, for benches."""

from pystorm.bolt import Bolt


class Plain(Bolt):
    def process(self, tup):
        self.emit([tup.values[0]])


Plain().run()
