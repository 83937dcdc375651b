"""The command line: `bayesgmm demo`, `bayesgmm fit TABLE` and `bayesgmm select TABLE`."""

from bayesgmm.cli.commands import main

__all__ = ["main"]
