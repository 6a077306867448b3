"""
What if it couldn't see that?
=============================

Influence is a forecast. Muting is the experiment: the channels are switched off, and the network answers again.
"""

import hookmap as hm

photo = "../photos/coffee.jpg"
lens = hm.Lens("efficientnet_lite0")
channels = lens.features(photo, "blocks.4", target="espresso")["blocks.4"].select("influence", top=40)

for count in (0, 5, 10, 20, 40):
    with lens.muted("blocks.4", channels[:count]):
        seen = lens.predict(photo, top=1)[0][0]
    print(f"{count:3} channels muted: {seen.label} {seen.probability:.0%}")

# %%
# And where it looks then:

before = lens.explain(photo, "espresso")
with lens.muted("blocks.4", channels[:20]):
    after = lens.explain(photo, "espresso")
before.save("before.png")
after.save("muted.png")
