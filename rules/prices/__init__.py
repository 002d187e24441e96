"""What a call costs that is paid by what it used: tokens of models, at the prices of a book.

tokens.py      how many tokens of which kind
book.py        a price book: what a model's tokens cost on a day, in whole micro-units
document.py    its format, one book a file
library.py     the books that come with Exeat, and what a policy adds
asked.py       the most that a request can use, before it is sent
learned.py     what calls used before: for what a request does not say
"""
