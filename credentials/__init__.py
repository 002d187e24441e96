"""Who calls, what proves it, and the secrets that are presented upstream.

Five nouns: `Principal` (who), `Identifier` (a token proves it), `Revocations` (what no longer counts), `Secret` (what
is presented upstream), `Binding` (to whom it may be presented). This package knows no rule, no ledger and no network.
"""
