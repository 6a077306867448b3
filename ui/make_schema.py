"""Print the schema of the explorer's messages, from which core/schema.ts is made: ``npm run schema``."""

import json

from hookmap.app.server import App
from hookmap.explorer.answering import Explorer

whole = App(Explorer({})).openapi()
print(json.dumps({"openapi": whole["openapi"], "info": whole["info"], "paths": {}, "components": whole["components"]}))
