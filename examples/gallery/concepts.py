"""
What do two photos share?
=========================

Deep Feature Factorization finds parts that a layer tells apart, over several photos at once and without asking about a
class; the network's own head then says what each part would be called.
"""

import hookmap as hm

lens = hm.Lens("efficientnet_lite0")
concepts = lens.concepts(["../photos/cat.jpg", "../photos/coffee.jpg"], concepts=4)
concepts.save("concepts.png")

# %%
# A concept's share of the activity, and what the head calls it:

for concept in concepts:
    print(f"{concept.share:4.0%}", ", ".join(concept.labels[:3]))
