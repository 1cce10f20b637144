"""Makes a repository of the blocks in section 20 of docs/format.md: example.py DOCUMENT DIRECTORY"""

import os
import re
import sys

from blake3 import blake3

with open(sys.argv[1], encoding="utf-8") as document:
    blocks = dict(re.findall(r"```text example (\S+)\n(.*?)```", document.read(), re.DOTALL))
pack = bytes.fromhex(blocks["pack"])
name = blake3(pack).hexdigest()
for path, content in {
    "config": bytes.fromhex(blocks["config"]),
    "keys/main": bytes.fromhex(blocks["slot"]),
    "heads/main/0000000000000001": bytes.fromhex(blocks["head"]),
    f"packs/{name[:2]}/{name}": pack,
}.items():
    path = os.path.join(sys.argv[2], path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
