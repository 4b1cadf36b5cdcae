"""A reliable spout of pystorm: emits the sentences of its settings, each once, under its number."""

from pystorm.spout import ReliableSpout


class Sentences(ReliableSpout):
    def initialize(self, storm_conf, context):
        self.sentences = list(enumerate(storm_conf["sentences"]))

    def next_tuple(self):
        if self.sentences:
            number, sentence = self.sentences.pop(0)
            self.emit([sentence], tup_id=number)


Sentences().run()
