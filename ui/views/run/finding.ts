// Searching by words: all of them, anywhere in a text, in capitals or not.

export const wordsOf = (text: string) => text.toLowerCase().split(/\s+/).filter(Boolean);

/** @param lower a text in lower-case letters */
export const holds = (lower: string, words: readonly string[]) => words.every((word) => lower.includes(word));
