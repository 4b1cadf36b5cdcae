"""Splits sentences into words."""

from pystorm.bolt import Bolt


class Split(Bolt):
    def process(self, tup):
        for word in tup.values[0].split(" "):
            self.emit([word])


Split().run()
