// Light or dark: as the system says, until a person says otherwise.

const NAME = "hookmap-theme";

export function remembered(name: string, value?: string): string | null {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null; // a page that is opened as a file may have no storage
  }
}

export const darkNow = () =>
  (document.documentElement.style.colorScheme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

export function wear(): void {
  document.documentElement.style.colorScheme = remembered(NAME) ?? "";
}

/** Change to the other; whether it is dark then. */
export function turn(): boolean {
  const scheme = darkNow() ? "light" : "dark";
  document.documentElement.style.colorScheme = scheme;
  remembered(NAME, scheme);
  return scheme === "dark";
}
