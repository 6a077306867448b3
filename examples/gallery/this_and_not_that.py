"""
Why this and not that?
======================

What two cats have in common says nothing about which of them it is. A contrast takes it out.
"""

import hookmap as hm

photo = "../photos/cat.jpg"
lens = hm.Lens("efficientnet_lite0")
lens.explain(photo, ["tiger cat", "tabby", hm.Contrast("tiger cat", "tabby")]).save("contrast.png")

# %%
# With its sign, a map also shows what speaks against: here, what makes it a tabby rather than a tiger cat.

lens.explain(photo, hm.Contrast("tiger cat", "tabby"), part="signed").save("signed.png")
