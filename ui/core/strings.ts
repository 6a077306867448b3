// All that the interface says: English, Chinese.

const STRINGS = {
  open: ["Open", "打开"],
} as const;

export type Word = keyof typeof STRINGS;
export type Language = "en" | "zh";

let column = 0;

/** Say everything from now on in a language. */
export function speak(language: Language): void {
  column = language === "zh" ? 1 : 0;
}

/** The language of a browser's or a server's tag, such as "zh-CN". */
export const languageOf = (tag = ""): Language => (tag.toLowerCase().startsWith("zh") ? "zh" : "en");

/** A text, with `{name}` replaced by its value. */
export function say(word: Word, values: Record<string, string | number> = {}): string {
  return STRINGS[word][column].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]));
}
