"""From a catalogue folder to a release, one package a part, in this order:

    catalogue   read and check the data                     `vitrine check`
    pictures    decode every picture once
    encoder     train the CNN                               `vitrine train --only encoder`
    export      CNN -> ONNX                                 `vitrine train --only export`
    index       embed the catalogue, build the ANN          `vitrine train --only index`
    ranker      factorize the interactions, learn the sum   `vitrine train --only ranker`
    package     -> release N, proven and evaluated          `vitrine train --only package`
    evaluate    the packaged release, as it will serve      `vitrine evaluate`

`pipeline.py` runs them as `stages/` says, `stage_cache.py` keeps their products, `cli/` is the command line;
`promotion/` decides which release serves. `live/` adds what was changed since to the catalogue; `previous/` is what an
earlier release has already.
"""

import service  # what would report is told not to, before anything loads it

__all__ = ["service"]
