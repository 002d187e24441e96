"""What a reply says that its call used, read as it passes: no byte is changed, and none is held back.

tap.py       what is asked of a reply: fed what passes, told how it ended
finder.py    finds one object in JSON of any length, in the memory of that object
whole.py     a reply that is one JSON value
events.py    a stream of Server-Sent Events
counts.py    an object with counts, as tokens; what is impossible is unknown
taps.py      which of them a reply needs; where the pipeline asks
used.py      one call, from its estimate to what its reply told
units.py     units of a request that its reply tells the truth of: rows
memory.py    what calls used before, by model

Whatever comes gives a number or unknown, and never an exception. Unknown is charged as the maximum that was set aside.
"""
