"""The model `catalogue`: changes of items over the inference protocol, with the catalogue key in `x-catalogue-key`.

OPERATION BYTES [n] (put, patch or withdraw), ITEM_ID BYTES [n], ATTRIBUTES BYTES [n] (JSON; empty: none),
IMAGE BYTES [n] (empty: none) -> SEQUENCE INT64 [n] (0 where a row was refused), ERROR BYTES [n] (why)
"""

import hmac
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from service import context
from service.errors import BadQuery, KeyNeeded, Malformed
from service.live.api import LiveApi, Reply
from service.open_inference.server import ANY, Arrays, Model, Ran, Spec
from service.open_inference.tensors import BYTES, texts

LARGEST_BATCH = 256
OPERATION, ITEM_ID = (Spec(name, BYTES, (ANY,)) for name in ("OPERATION", "ITEM_ID"))
ATTRIBUTES, IMAGE = (Spec(name, BYTES, (ANY,), optional=True) for name in ("ATTRIBUTES", "IMAGE"))
SEQUENCE, ERROR = Spec("SEQUENCE", "INT64", (ANY,)), Spec("ERROR", BYTES, (ANY,))


def catalogue_model(live: Callable[[], LiveApi], key: str) -> Model:
    """key: the secret that callers must send."""

    async def run(inputs: Arrays, seconds: float) -> Ran:
        call = context.current()
        if call is None or not hmac.compare_digest(call.catalogue_key, key.encode()):
            raise KeyNeeded("send the catalogue key: metadata or header `x-catalogue-key`")
        rows = len(inputs["ITEM_ID"])
        if any(len(values) != rows for values in inputs.values()):
            raise Malformed(f"all inputs must have as many rows as ITEM_ID, {rows}")
        replies = [await _change(live(), {name: values[row] for name, values in inputs.items()}) for row in range(rows)]
        outputs = {
            "SEQUENCE": np.array([reply.get("sequence", 0) for reply in replies], np.int64),
            "ERROR": texts([reply.get("error", "") for reply in replies]),
        }
        return Ran(outputs, "", 0.0)

    return Model("catalogue", (OPERATION, ITEM_ID, ATTRIBUTES, IMAGE), (SEQUENCE, ERROR), run, LARGEST_BATCH)


async def _change(live: LiveApi, row: dict[str, bytes]) -> Reply:
    """The reply of one row, or what is wrong with it."""
    try:
        return await _changed(live, row)
    except BadQuery as error:
        return {"error": str(error)}


async def _changed(live: LiveApi, row: dict[str, bytes]) -> Reply:
    try:
        operation, item_id = row["OPERATION"].decode(), row["ITEM_ID"].decode()
        attributes: Any = json.loads(row["ATTRIBUTES"]) if row.get("ATTRIBUTES") else {}
    except (ValueError, RecursionError) as error:
        raise Malformed(f"OPERATION and ITEM_ID must be UTF-8, ATTRIBUTES JSON ({error})") from error
    if operation == "put":
        return await live.put_item(item_id, attributes, [row["IMAGE"]] if row.get("IMAGE") else [])
    if row.get("IMAGE"):
        raise BadQuery(f"{operation} takes no IMAGE", field="IMAGE")
    if operation == "patch":
        return await live.patch_item(item_id, attributes)
    if operation == "withdraw":
        return await live.withdraw_item(item_id)
    raise BadQuery(f"OPERATION is put, patch or withdraw; got {operation[:80]!r}", field="OPERATION")
