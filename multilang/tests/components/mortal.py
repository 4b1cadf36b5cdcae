"""A bolt that emits and acks numbers, some at a time, for tests that kill it with tuples in all states."""

from protocol import ack, emit, handshake, tuples

handshake()
taken = []
for tup in tuples():
    is_tick = tup["stream"] == "__tick"
    if not is_tick:
        taken.append(tup)
    if is_tick or len(taken) > tup["tuple"][0] % 5:
        for each in taken:
            emit(each["tuple"], each)
            ack(each)
        taken = []
