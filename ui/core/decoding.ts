import { parse } from "./safetensors.ts";
import type { Answer } from "./source.ts";

/** An answer as hookmap.explorer.wire packs it. */
export function decoded<About>(data: ArrayBuffer): Answer<About> {
  const { metadata, arrays } = parse(data);
  return { about: JSON.parse(metadata.answer) as About, arrays };
}
