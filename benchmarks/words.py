"""What the words of an answer cost, in forward passes of the model: the first that is explained, and each further one.

A LLaVA of random weights with 576 tokens of the picture (336 x 336, patches of 14) and an answer of 30 tokens, on one
CPU core. An answer is made by generating it and one forced pass beside that, which is counted apart.

    python benchmarks/words.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

import hookmap as hm

WORDS = [f"w{number}" for number in range(2000)]
TOKENS = 30


def lens() -> hm.Lens:
    names = ["<pad>", "<s>", "</s>", "<image>", *WORDS]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            image_size=336,
            patch_size=14,
        ),
        text_config=hf.LlamaConfig(
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=8,
            num_attention_heads=6,
            num_key_value_heads=6,
            vocab_size=len(names),
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=3,
        image_seq_length=576,
    )
    side = {"height": 336, "width": 336}
    images = hf.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=side)
    processor = hf.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return hm.Lens(hm.VisionLanguage(hf.LlavaForConditionalGeneration(config).eval(), processor))


def seconds(run: Callable[[], object], times: int) -> float:
    """Of the processor, the median."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return sorted(taken)[times // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", action="append", help="repeatable; by default what is taken by default")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    asked = lens()
    picture = np.random.default_rng(0).integers(0, 255, (336, 448, 3)).astype(np.uint8)
    said = " ".join(WORDS[7 : 7 + TOKENS])

    def answered() -> hm.Answer:
        return asked.ask(picture, "<image> what is it", answer=said, progress=False)

    answer = answered()
    called, x = answer.batch.engine.called, answer.batch.x

    def forward() -> None:
        with torch.no_grad():
            called(x)

    forward()
    one = seconds(forward, given.times)
    print(f"a forward pass of {576 + 4 + TOKENS} tokens: {one:.2f} s; in such passes:")
    print(f"  asking, with an answer that is given      {seconds(answered, given.times) / one:.2f}")
    for method in given.method or [None]:
        fresh = [answered() for _ in range(given.times)]
        each = [seconds(partial(said_now.explain, 3, method=method, progress=False), 1) for said_now in fresh]
        whole = sorted(each)[given.times // 2]
        further = seconds(partial(fresh[0].explain, 5, method=method, progress=False), given.times)
        print(f"  {method or 'default'}: the first word {whole / one:.2f}, each further {further / one:.2f}")


if __name__ == "__main__":
    main()
